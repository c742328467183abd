"""Opinions and descriptions -> training samples: image, question, answer and weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion, Texts
from iqa_core.opinions.rows import Row, read_rows
from iqa_core.questions import Question
from iqa_core.records import RATING, ScoreRange
from iqa_core.rubrics import Rubric
from iqa_core.training.targets import Target, TargetKind, level_target, nearest_answer, rated_worths

ANSWER_END = "."
"""Text behind the level word."""

SHOWN = 20
"""Number of questions that an error names."""

IMAGE_TAG = "<image>"
"""Place of the image in a description's query."""


@dataclass(frozen=True, slots=True)
class Level:
    """The level word of an answer, and its target."""

    answer_start: str
    """The answer up to the level word."""
    dimension: str
    """Or the statement."""
    mos: float
    """Mean opinion, 1..5."""
    target: tuple[float, ...]
    """Probabilities of the answers, worst to best."""
    answers: tuple[str, ...]
    """All answers of the question, worst to best."""
    worths: tuple[float, ...]
    """What each is worth on 1 (worst) to 5 (best), whatever the dimension's own range."""
    range: ScoreRange = RATING
    """The dimension's own range."""


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One image, one question, one answer."""

    image: Path
    query: str
    """Text behind the image in the user's turn, verbatim but for the placeholders of `texts`."""
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
    texts: Texts = ()
    """Slot -> text, for every slot of the query."""


def level_samples(
    opinions: Sequence[Opinion],
    rubric: Rubric,
    targets: TargetKind,
    weights: Mapping[str, float],
    *,
    paraphrased: bool = False,
) -> list[TrainingSample]:
    """One sample per opinion on a dimension or a statement, in order.

    weights: name of a data set or dimension -> factor; a sample's factors are multiplied. paraphrased: samples get the
    rubric's paraphrases.
    Raises CallerError on a dimension or statement that the rubric lacks, one without paraphrases where they are asked
    for, and a Gaussian target without a standard deviation.
    """
    questions = {question.name: (question, rated_worths(question.scale)) for question in rubric.questions}
    asked = {opinion.dimension for opinion in opinions}
    _require_asked(asked, rubric)
    paraphrases = {dimension.name: dimension.paraphrases for dimension in rubric.dimensions} if paraphrased else {}
    if paraphrased and (without := sorted(name for name in asked if not paraphrases.get(name))):
        raise CallerError(
            f"rubric {rubric.id} has no paraphrases of {', '.join(without)}; add them to its TOML, or leave "
            "--augment-prompts-paraphrase out"
        )
    samples = []
    for opinion in opinions:
        question, worths_A = questions[opinion.dimension]
        samples.append(
            TrainingSample(
                image=opinion.path,
                query=question.query,
                answer=_answer(question, worths_A, opinion.mos),
                dataset=opinion.dataset,
                weight=weights.get(opinion.dataset, 1.0) * weights.get(opinion.dimension, 1.0),
                level=_level(question, worths_A, opinion, targets),
                paraphrases=paraphrases.get(opinion.dimension, ()),
                texts=opinion.texts,
            )
        )
    return samples


def _require_asked(names: set[str], rubric: Rubric) -> None:
    """Raises CallerError when opinions are about what the rubric does not ask, such as a group of statements."""
    known = [question.name for question in rubric.questions]
    groups = {column.name for column in rubric.columns if column.scale.is_group}
    if mixed := sorted((names & groups).difference(known)):
        raise CallerError(
            f"opinions on {', '.join(mixed)}, a group of statements of rubric {rubric.id}: training takes one on each "
            "statement by its name"
        )
    if unknown := sorted(names - set(known)):
        raise CallerError(
            f"opinions on {', '.join(unknown)}, but rubric {rubric.id} asks for {_few(known)}; "
            "name another --rubric, or leave these rows out"
        )


def _few(names: Sequence[str]) -> str:
    """The first names of what may be a long checklist."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _answer(question: Question, worths_A: Target, mos: float) -> str:
    """The whole answer with the word that is nearest to an opinion; the word alone where nothing stands before it."""
    word = question.scale.answers[nearest_answer(mos, worths_A)]
    return f"{question.answer_start} {word}{ANSWER_END}" if question.answer_start else word


def _level(question: Question, worths_A: Target, opinion: Opinion, targets: TargetKind) -> Level:
    return Level(
        answer_start=question.answer_start,
        dimension=opinion.dimension,
        mos=opinion.mos,
        target=tuple(level_target(targets, opinion.mos, opinion.std, worths_A).tolist()),
        answers=question.scale.answers,
        worths=tuple(worths_A.tolist()),
        range=question.scale.range,
    )


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
