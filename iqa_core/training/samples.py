"""Opinions and descriptions -> what a model is shown, what it is to answer, and how much that counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.opinions.rows import Row, read_rows
from iqa_core.records import FIVE_LEVELS
from iqa_core.rubrics import Rubric
from iqa_core.training.targets import TargetKind, level_target

ANSWER_END = "."
"""What follows the level word."""

IMAGE_TAG = "<image>"


@dataclass(frozen=True, slots=True)
class Level:
    """The level word of an answer, and what it is trained towards."""

    answer_start: str
    """The answer up to it."""
    dimension: str
    mos: float
    """1..5."""
    target: tuple[float, ...]
    """Probabilities of the levels, worst to best."""


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One image, one question, one answer."""

    image: Path
    query: str
    """What stands behind the image in the user's turn."""
    answer: str
    """Whole, without the end of the turn."""
    dataset: str
    weight: float = 1.0
    level: Level | None = None
    """None for an answer without a level word, such as a description."""
    tokens: int = 0
    """Of image, question (its longest wording) and answer; 0 until they are counted."""
    paraphrases: tuple[str, ...] = ()
    """Other wordings of the query that it may be asked in."""
    max_pixels: int | None = None
    """Bound on the prepared image where it had to be shrunk."""


def level_samples(
    opinions: Sequence[Opinion],
    rubric: Rubric,
    targets: TargetKind,
    weights: Mapping[str, float],
    *,
    paraphrased: bool = False,
) -> list[TrainingSample]:
    """One sample per opinion, in order.

    weights: of data sets and dimensions by name; both multiply. paraphrased: samples carry the rubric's paraphrases.
    Raises CallerError on a dimension that the rubric does not have, on one without paraphrases where they are asked
    for, on a weight that belongs to nothing, and on a target that an opinion cannot give.
    """
    by_name = {dimension.name: dimension for dimension in rubric.dimensions}
    unknown = sorted({opinion.dimension for opinion in opinions} - by_name.keys())
    if unknown:
        raise CallerError(
            f"opinions on {', '.join(unknown)}, but rubric {rubric.id} asks for {', '.join(rubric.names)}; "
            "name another --rubric, or leave these rows out"
        )
    asked = {opinion.dimension for opinion in opinions}
    if paraphrased and (without := sorted(name for name in asked if not by_name[name].paraphrases)):
        raise CallerError(
            f"rubric {rubric.id} has no paraphrases of {', '.join(without)}; add them to its TOML, or leave "
            "--augment-prompts-paraphrase out"
        )
    samples = []
    for opinion in opinions:
        dimension = by_name[opinion.dimension]
        start = rubric.answer_start(dimension)
        target = level_target(targets, opinion.mos, opinion.std)
        samples.append(
            TrainingSample(
                image=opinion.path,
                query=dimension.query,
                answer=f"{start} {rubric.levels[FIVE_LEVELS.nearest(opinion.mos)]}{ANSWER_END}",
                dataset=opinion.dataset,
                weight=weights.get(opinion.dataset, 1.0) * weights.get(opinion.dimension, 1.0),
                level=Level(start, opinion.dimension, opinion.mos, tuple(map(float, target))),
                paraphrases=dimension.paraphrases if paraphrased else (),
            )
        )
    return samples


def text_samples(paths: Sequence[Path], weights: Mapping[str, float]) -> list[TrainingSample]:
    """Samples of JSONL files with `query`, `response` and `image` (or `images` with one), paths relative to the file.

    A leading `<image>` of the query is left out: the image always stands first. Raises CallerError with the line.
    """
    return [_text_sample(row, path, weights) for path in paths for row in read_rows(path)]


def _text_sample(row: Row, path: Path, weights: Mapping[str, float]) -> TrainingSample:
    query = row.text("query").removeprefix(IMAGE_TAG).lstrip("\n")
    if IMAGE_TAG in query:
        raise CallerError(f"{row.place}: query has {IMAGE_TAG} inside; one image, in front, is what can be trained on")
    return TrainingSample(
        image=path.absolute().parent / _image(row),
        query=query,
        answer=row.text("response"),
        dataset=path.stem,
        weight=weights.get(path.stem, 1.0),
    )


def _image(row: Row) -> str:
    images = row.values.get("images")
    if images is None:
        return row.text("image")
    if not (isinstance(images, list) and len(images) == 1 and isinstance(images[0], str)):
        raise CallerError(f"{row.place}: images is {images!r}; a list of one path is wanted")
    return images[0]


def require_known_weights(weights: Mapping[str, float], samples: Sequence[TrainingSample]) -> None:
    """Raises CallerError when a weight belongs to no data set and no dimension, or is not above 0."""
    names = set(_names(samples))
    if unknown := sorted(weights.keys() - names):
        raise CallerError(f"--weight {unknown[0]}: there is no such data set or dimension; there are {sorted(names)}")
    if low := sorted(name for name, weight in weights.items() if not 0 < weight < float("inf")):
        raise CallerError(f"--weight {low[0]}={weights[low[0]]:g}: a weight is above 0; leave data out to give it none")


def _names(samples: Sequence[TrainingSample]) -> Iterator[str]:
    for sample in samples:
        yield sample.dataset
        if sample.level is not None:
            yield sample.level.dimension
