"""A scene -> what a writer would say of it under two written rubrics, in one of many wordings, all of it true.

A clause says how far something is wrong with one of the four dimensions, in the nearest of five degrees of its truth.
A caption tells what can be seen, without numbers and without words of the score, so that a reader who has the caption
alone can judge the room by it.

With noise, the numbers are those of a writer who judges by rough guess, while the words stay true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from iqa_core.demo.captions import WINDOW, phrase, words_of
from iqa_core.demo.scenes import DIMENSIONS, FURNITURE, Light, Scene, furniture_map
from iqa_core.records import FIVE_LEVELS
from iqa_core.rubrics import WrittenRubric, load_any_rubric
from iqa_core.written.writing import written_as

WRITTEN, PERCEPTION = "interior-written-v1", "interior-perception-v1"

DEGREES = ("very", "rather", "somewhat", "slightly", "barely")
"""How far something is wrong, where its truth is nearest to 1, 2, 3, 4 and 5."""
LEVELS = ("bad", "poor", "fair", "good", "excellent")
"""What is said of the whole there; none of them stands in a caption."""

CLAUSES: Mapping[str, Sequence[str]] = {
    "layout": ("the pieces are {} tilted", "the furniture is {} bunched", "the pieces are {} floating"),
    "harmony": ("the colours are {} clashing", "the hues are {} saturated", "the hues are {} clashing"),
    "distortion": ("the picture is {} noisy", "the picture is {} warped", "the surfaces are {} wavy"),
}
LIGHT_CLAUSES: Mapping[Light, Sequence[str]] = {
    Light.DARK: ("the light is {} dark", "the room is {} dark", "the room is {} dim"),
    Light.BRIGHT: ("the light is {} bright", "the room is {} bright", "the picture is {} bright"),
    Light.UNEVEN: ("the light is {} uneven", "the lighting is {} uneven", "the light in the room is {} uneven"),
}
"""Wordings that say the same. In what way light is wrong cannot be seen where it barely is: it is uneven there."""

_JOINTS = ("; ", ", ", ". ")
_BEGINNINGS = ("A room with", "There is", "The picture shows")
_OVERALL = ("overall it is {}", "the whole is {}", "the quality is {}")
_CONTRASTS = ("{best} is best and {worst} is worst", "{worst} is worst and {best} is best")


@dataclass(frozen=True, slots=True)
class SceneTexts:
    """What is said of one scene."""

    answers: Mapping[str, str]
    """Name of a rubric -> its answer."""
    quality: float
    """Of the scene as a whole, 1 (worst) to 5 (best)."""
    other: str
    """What another writer, who sees the same, answers to the rubric PERCEPTION, in other words and without noise."""


@cache
def written_rubrics() -> Mapping[str, WrittenRubric]:
    """The rubrics that answers are about, by their names."""
    loaded = ((name, load_any_rubric(name)) for name in (WRITTEN, PERCEPTION))
    return {name: rubric for name, rubric in loaded if isinstance(rubric, WrittenRubric)}


def degree(truth: float) -> int:
    """The nearest of five degrees, 0 (worst) to 4 (best), to a truth in 1..5."""
    return int(truth + 0.5) - int(FIVE_LEVELS.worst)


def make_texts(scene: Scene, seed: int, index: int, noise: float = 0.0) -> SceneTexts:
    """Answers about the scene of that seed and index, which choose the wording.

    noise: standard deviation, in points, of what each number is off by before it is clipped to 1..5.
    """
    rng = np.random.Generator(np.random.PCG64([seed, index, 5]))
    thought = _said([*_clauses(scene, rng), _overall(scene, rng)], rng)
    caption, reasoning = _perceived(scene, seed, index, rng)
    numbers = _off([*(scene.truths[name] for name in DIMENSIONS), scene.quality], noise, seed, index)
    forms = {name: rubric.form for name, rubric in written_rubrics().items()}
    written = written_as(numbers, forms[WRITTEN], reasoning=thought)
    perceived = written_as(numbers[-1:], forms[PERCEPTION], caption, reasoning)
    own_words = np.random.Generator(np.random.PCG64([seed, index, 9]))
    other = written_as([scene.quality], forms[PERCEPTION], *_perceived(scene, seed, index, own_words))
    return SceneTexts({WRITTEN: written, PERCEPTION: perceived}, scene.quality, other)


def _perceived(scene: Scene, seed: int, index: int, rng: np.random.Generator) -> tuple[str, str]:
    """Caption and reasoning."""
    caption = f"{_contents(scene, seed, index, rng)} {_said(_clauses(scene, rng), rng)}"
    return caption, _said([*_clauses(scene, rng), _contrast(scene, rng), _overall(scene, rng)], rng)


def _off(truths: Sequence[float], noise: float, seed: int, index: int) -> list[float]:
    """The truths, each with an error of its own. A stream of its own too: wordings are the same with any noise."""
    errors = np.random.Generator(np.random.PCG64([seed, index, 8])).normal(scale=noise, size=len(truths))
    return np.clip(np.add(truths, errors), FIVE_LEVELS.worst, FIVE_LEVELS.best).tolist()


def _clauses(scene: Scene, rng: np.random.Generator) -> list[str]:
    """One for each dimension, in order."""
    light = scene.contents.light if degree(scene.truths["lighting"]) < len(DEGREES) - 1 else Light.UNEVEN
    clauses = {**CLAUSES, "lighting": LIGHT_CLAUSES[light]}
    return [_picked(clauses[name], rng).format(DEGREES[degree(scene.truths[name])]) for name in DIMENSIONS]


def _contents(scene: Scene, seed: int, index: int, rng: np.random.Generator) -> str:
    """The wall, the window where its side is clear, and the two pieces of furniture of which most is seen."""
    words = words_of(scene.contents)
    areas = np.bincount(furniture_map(seed, index).ravel(), minlength=len(FURNITURE) + 1)[1:]
    things = [phrase(thing, words[thing]) for thing in ("wall", WINDOW) if thing in words]
    things += [f"a {FURNITURE[k]}" for k in np.argsort(-areas, kind="stable")[:2]]
    return f"{_picked(_BEGINNINGS, rng)} {', '.join(things[:-1])} and {things[-1]}."


def _contrast(scene: Scene, rng: np.random.Generator) -> str:
    ordered = sorted(DIMENSIONS, key=lambda name: scene.truths[name])
    return _picked(_CONTRASTS, rng).format(best=ordered[-1], worst=ordered[0])


def _overall(scene: Scene, rng: np.random.Generator) -> str:
    return _picked(_OVERALL, rng).format(LEVELS[degree(scene.quality)])


def _said(clauses: Sequence[str], rng: np.random.Generator) -> str:
    """The clauses as one sentence, or as a sentence each."""
    joint = _picked(_JOINTS, rng)
    parts = [_capital(clause) if joint == ". " else clause for clause in clauses]
    return f"{_capital(joint.join(parts))}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _picked(wordings: Sequence[str], rng: np.random.Generator) -> str:
    return wordings[int(rng.integers(len(wordings)))]
