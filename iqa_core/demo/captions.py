"""What a scene shows -> a caption that is true of it, and one in the same words that is false in one detail.

A caption tells the colour of the wall, the floor or the rug, and often on which side the window is. One colour
each: in a scene of good harmony colours are alike, so that of two unlike ones a reader could tell that one is false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iqa_core.demo.scenes import Contents

COLOURS = ("red", "yellow", "green", "teal", "blue", "purple")
"""Names of the hues around 0, 1/6, .. 5/6 turns; each is one token of the demo's vocabulary."""
SIDES = ("left", "right")
WINDOW = "window"
UNCLEAR = 0.04
"""How near to the picture's middle a window has no side: the warp moves it as far."""

_BEGINNINGS = ("A room with", "There is", "The picture shows", "A picture of")


@dataclass(frozen=True, slots=True)
class Captions:
    """What can be said of one scene."""

    true: str
    false: str
    """The true caption with one word changed."""
    changed: str
    """The thing that the word is about: `wall`, `floor`, `rug` or `window`."""
    is_true: bool
    """Which of the two the image carries."""
    description: str
    """All that captions may tell of the scene, always in one order and wording."""

    @property
    def columns(self) -> dict[str, str | bool | None]:
        """What the image carries: its caption, whether that is true, and what is false in it."""
        return {
            "caption": self.true if self.is_true else self.false,
            "caption_true": self.is_true,
            "caption_false_in": None if self.is_true else self.changed,
        }


def make_captions(contents: Contents, seed: int, index: int) -> Captions:
    """Captions of a surface, half of them with the window; one of the scenes 2k and 2k + 1 carries a true caption.

    The wrong word is drawn so that each is as frequent as where it is right: a colour at least two names away.
    """
    random = np.random.Generator(np.random.PCG64([seed, index, 3]))
    words = words_of(contents)
    things = [tuple(contents.hues)[random.integers(len(contents.hues))]]
    if WINDOW in words and random.random() < 0.5:
        things.insert(int(random.integers(2)), WINDOW)
    changed = things[random.integers(len(things))]
    others = _others(words[changed])
    wrong = {**words, changed: others[random.integers(len(others))]}
    beginning = _BEGINNINGS[random.integers(len(_BEGINNINGS))]
    first_is_true = np.random.Generator(np.random.PCG64([seed, index // 2, 4])).random() < 0.5
    return Captions(
        true=_sentence(beginning, things, words),
        false=_sentence(beginning, things, wrong),
        changed=changed,
        is_true=first_is_true == (index % 2 == 0),
        description=_sentence(_BEGINNINGS[0], list(words), words),
    )


def words_of(contents: Contents) -> dict[str, str]:
    """Thing -> its colour or side; without the window where its side is unclear."""
    words = {surface: COLOURS[int(len(COLOURS) * hue + 0.5) % len(COLOURS)] for surface, hue in contents.hues.items()}
    if abs(contents.window - 0.5) >= UNCLEAR:
        words[WINDOW] = SIDES[contents.window > 0.5]
    return words


def _others(word: str) -> tuple[str, ...]:
    """Words that are false where this one is true."""
    if word in SIDES:
        return (SIDES[1 - SIDES.index(word)],)
    place = COLOURS.index(word)
    return tuple(COLOURS[(place + step) % len(COLOURS)] for step in range(2, len(COLOURS) - 1))


def _sentence(beginning: str, things: Sequence[str], words: Mapping[str, str]) -> str:
    return f"{beginning} {' and '.join(phrase(thing, words[thing]) for thing in things)}."


def phrase(thing: str, word: str) -> str:
    """A thing with its colour or side."""
    return f"a {thing} on the {word}" if thing == WINDOW else f"a {word} {thing}"
