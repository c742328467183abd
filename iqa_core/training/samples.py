"""Opinions and descriptions -> training samples: image, question, answer and weight."""

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
"""Text behind the level word."""

IMAGE_TAG = "<image>"
"""Place of the image in a description's query."""


@dataclass(frozen=True, slots=True)
class Level:
    """The level word of an answer, and its target."""

    answer_start: str
    """The answer up to the level word."""
    dimension: str
    mos: float
    """Mean opinion, 1..5."""
    target: tuple[float, ...]
    """Probabilities of the levels, worst to best."""


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One image, one question, one answer."""

    image: Path
    query: str
    """Text behind the image in the user's turn."""
    answer: str
    """The whole answer, without the token that ends the turn."""
    dataset: str
    weight: float = 1.0
    level: Level | None = None
    """None for an answer without a level word, such as a description."""
    tokens: int = 0
    """Number of tokens of image, question (in its longest wording) and answer; 0 until they are counted."""
    paraphrases: tuple[str, ...] = ()
    """Other wordings of the query, one of which may be asked."""
    max_pixels: int | None = None
    """Bound on the prepared image, where it is shrunk to fit the token limit."""


def level_samples(
    opinions: Sequence[Opinion],
    rubric: Rubric,
    targets: TargetKind,
    weights: Mapping[str, float],
    *,
    paraphrased: bool = False,
) -> list[TrainingSample]:
    """One sample per opinion, in order.

    weights: name of a data set or dimension -> factor; a sample's factors are multiplied. paraphrased: samples get the
    rubric's paraphrases.
    Raises CallerError on a dimension that the rubric lacks, on one without paraphrases where they are asked for, and on
    a Gaussian target without a standard deviation.
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

    A leading `<image>` of the query is dropped: the image always comes first.
    Raises CallerError, which names the line, on anything else.
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
    """Raises CallerError when a weight names no data set and no dimension, or is not above 0."""
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
