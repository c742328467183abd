"""Scenes -> captions that their pixels bear out, and false ones that no reader tells apart without the picture."""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import iqa_core.demo
from iqa_core.demo.captions import COLOURS, SIDES, UNCLEAR, WINDOW, Captions, make_captions
from iqa_core.demo.scenes import Contents, Light, Scene, make_scene

pytestmark = pytest.mark.slow

SEED, COUNT = 11, 400
AREAS = {"wall": (slice(1, 5), slice(2, 110)), "floor": (slice(108, 111), slice(2, 110))}
"""Rows and columns of 112 pixels that show wall or floor and, but for falling furniture, nothing else."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(SEED, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def captions(scenes: list[Scene]) -> list[Captions]:
    return [make_captions(scene.contents, SEED, index) for index, scene in enumerate(scenes)]


def words_of(text: str) -> dict[str, str]:
    """Thing -> the word said of it."""
    found = re.findall(r"\ba (\w+) (wall|floor|rug)\b|\ba (window) on the (\w+)", text)
    return {thing or window: colour or side for colour, thing, window, side in found}


def hue_of(pixels_HWC: np.ndarray) -> float:
    red, green, blue = (float(part) / 255 for part in np.median(pixels_HWC.reshape(-1, 3), axis=0))
    return colorsys.rgb_to_hsv(red, green, blue)[0]


def distance(first: float, second: float) -> float:
    """Of two hues, in turns: at most a half."""
    return abs((first - second + 0.5) % 1 - 0.5)


def test_what_a_description_says_is_there_in_the_pixels(scenes: list[Scene], captions: list[Captions]) -> None:
    seen: Counter[str] = Counter()
    sides = []
    for scene, made in zip(scenes, captions, strict=True):
        if min(scene.truths[name] for name in ("layout", "lighting", "distortion")) < 3:
            continue  # furniture in the air, too dark or too noisy for means and medians
        said = words_of(made.description)
        for surface, area in AREAS.items():
            named = COLOURS.index(said[surface]) / len(COLOURS)
            assert distance(hue_of(scene.pixels_HWC[area]), named) < 0.5 / len(COLOURS) + 0.03
            seen[surface] += 1
        if WINDOW in said:
            sky_less_garden = (scene.pixels_HWC[12:20].mean(0) - scene.pixels_HWC[33:38].mean(0))[:, 2]
            middle = np.convolve(sky_less_garden, np.ones(34), "valid").argmax() + 17
            sides.append(SIDES[int(middle > 56)] == said[WINDOW])
    assert min(*seen.values(), len(sides)) > 30
    assert np.mean(sides) > 0.9, "tall furniture stands before some"


def test_a_false_caption_is_a_true_one_with_another_word_at_one_place(captions: list[Captions]) -> None:
    for made in captions:
        true, false, whole = words_of(made.true), words_of(made.false), words_of(made.description)
        assert true.items() <= whole.items()
        assert len(made.true.split()) == len(made.false.split())
        assert [thing for thing in true if true[thing] != false[thing]] == [made.changed]
        if made.changed != WINDOW:
            steps = COLOURS.index(false[made.changed]) - COLOURS.index(true[made.changed])
            assert steps % len(COLOURS) in (2, 3, 4), "a neighbour might be said to be right"


def test_half_of_the_images_carry_a_true_caption(captions: list[Captions]) -> None:
    for first, second in zip(captions[::2], captions[1::2], strict=True):
        assert first.is_true != second.is_true
    carried = [made.columns for made in captions]
    for made, columns in zip(captions, carried, strict=True):
        assert columns["caption"] == (made.true if columns["caption_true"] else made.false)
        assert columns["caption_false_in"] == (None if columns["caption_true"] else made.changed)
    assert 0.4 < np.mean([made.is_true for made in captions[::2]]) < 0.6, "which one cannot be told from the index"


def test_words_alone_do_not_tell_what_is_true(captions: list[Captions]) -> None:
    said = [
        Counter((*pair, made) for each in captions for pair in words_of(getattr(each, made)).items())
        for made in ("true", "false")
    ]
    for thing in ("wall", "floor", "rug", WINDOW):
        for word in SIDES if thing == WINDOW else COLOURS:
            true, false = said[0][thing, word, "true"], said[1][thing, word, "false"]
            assert abs(true - false) < 3.5 * np.sqrt(true + false), (thing, word, true, false)


def test_captions_are_worded_in_several_ways(captions: list[Captions]) -> None:
    frames = {
        " ".join("_" if word in (*COLOURS, *SIDES) else word for word in made.true.lower().replace(".", "").split())
        for made in captions
    }
    assert len(frames) > 20


def test_a_window_in_the_middle_has_no_side() -> None:
    for window in (0.5 - UNCLEAR / 2, 0.5, 0.5 + UNCLEAR / 2):
        made = make_captions(Contents({"wall": 0.98, "floor": 0.34, "rug": 0.6}, window, Light.DARK), 1, 2)
        assert words_of(made.description) == {"wall": "red", "floor": "green", "rug": "blue"}
        assert WINDOW not in made.true


def test_seed_and_index_choose_the_words() -> None:
    contents = Contents({"wall": 0.0, "floor": 0.3, "rug": 0.6}, 0.3, Light.DARK)
    made = {make_captions(contents, seed, index) for seed in range(4) for index in range(4)}
    assert len(made) > 8
    assert make_captions(contents, 1, 2) == make_captions(contents, 1, 2)


def test_colours_things_and_sides_are_words_of_the_demos_vocabulary() -> None:
    tokenizer = Tokenizer.from_file(str(Path(iqa_core.demo.__file__).parent / "checkpoint" / "tokenizer.json"))
    for word in (*COLOURS, *SIDES, "wall", "floor", "rug", WINDOW):
        assert len(tokenizer.encode(f" {word}").ids) == 1, word
