"""Results -> the JSON of an answer, in the very types that /openapi.json describes.

A number that is not known is absent, never invented. The types are those of typing_extensions, since pydantic reads
typing's own from Python 3.12 on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iqa_core.endpoint.answers import best_first
from iqa_core.questions import Column
from iqa_core.records import FIVE_LEVELS, RATING, AnswerScale, Assessment, ImageHeader, Rejection, ScoreRange, Written
from iqa_core.rubrics import AnyRubric, Rubric, WrittenRubric
from serve.model.results import DECIMALS, ImageResult, Model
from serve.protocol.bodies import Question, RubricQuestion

DESCRIBED = ConfigDict(use_attribute_docstrings=True)


class Size(TypedDict, total=False):
    """What an image's header says, as far as it was read."""

    width: int
    height: int
    format: str
    frames: int


@with_config(DESCRIBED)
class Probs(TypedDict, total=False):
    """What scores were made of."""

    probs: dict[str, list[float]]
    """Probabilities of the answers, worst to best, by dimension; there where they were asked for."""
    yes: dict[str, list[float]]
    """Probability of yes to each of a group's statements, by group; there where the rubric has groups."""


@with_config(DESCRIBED)
class Answers(TypedDict, total=False):
    """What a dimension's scores are made of."""

    answers: list[str]
    """Words, worst to best, in the order of `probs`."""
    worths: list[float]
    """One per answer."""
    statements: list[str]
    """Of a group, in the order of `yes`; the score is their weighted share of yes."""


@with_config(DESCRIBED)
class Scale(Answers):
    """Where a dimension's scores lie, and what they are made of."""

    worst: float
    """The end that is worst; above `best` where less is better."""
    best: float


@with_config(DESCRIBED)
class WrittenText(TypedDict):
    """What was written about an image."""

    caption: str | None
    """Of the first answer that was parsed, as the grammar has it; null where it has none."""
    reasoning: str | None
    """Likewise."""
    parsed: int
    """Answers that were parsed, of which the scores are the mean."""
    finish: Literal["stop", "length"]
    """Whether the first answer that was parsed ended by itself, or was cut at its limit."""
    answers: NotRequired[list[str]]
    """Every answer, verbatim; there where they were asked for."""


class WrittenPart(TypedDict, total=False):
    """There where the rubric is written."""

    written: WrittenText


@with_config(DESCRIBED)
class Scored(Size, Probs, WrittenPart):
    """An image with scores."""

    status: Literal["scored"]
    scores: dict[str, float]
    """Expected worth of the answer by dimension: 1 (worst) to 5 (best), or in its range among `scales`."""
    std: dict[str, float]
    """Spread of the answers by dimension, 0 (sure) to half of the range; of written ones over samples, if known."""
    reward: float
    """Fused score of all dimensions, 1 (worst) to 5 (best)."""


@with_config(DESCRIBED)
class Rejected(Size):
    """An image without scores."""

    status: Literal["rejected"]
    reason: str
    """A code for programs."""
    detail: str
    """A sentence for people."""


@with_config(DESCRIBED)
class Head(TypedDict):
    """What every answer has beside its results."""

    fingerprint: str
    """Names the model that gave the scores."""
    rubric: str
    scales: NotRequired[dict[str, Scale]]
    """Of the dimensions that are shown and not rated in five levels from 1 to 5; absent where all are."""
    request_id: NotRequired[str]
    prompt: NotRequired[str]


class Ranking(TypedDict):
    """The images of one prompt in order."""

    order: list[int]
    """Places of the images that have a reward, best first."""
    best: int | None
    rewards: list[float | None]
    """One per image, in the order in which they were sent; null for an image without scores."""


class Answer(Head):
    """What `/v1/assess` says."""

    results: list[Scored | Rejected]


class RankedAnswer(Answer, Ranking):
    """What `/v1/rank` says."""


def answer(question: Question, model: Model, results: Sequence[ImageResult]) -> Answer:
    """The answer to `/v1/assess`."""
    return {**head(question, model), "results": _entries(question, model, results)}


def ranked_answer(question: Question, model: Model, results: Sequence[ImageResult]) -> RankedAnswer:
    """The answer to `/v1/rank`."""
    ranked = ranking([None if isinstance(one, Rejection) else one.reward for one in results])
    return {**head(question, model), **ranked, "results": _entries(question, model, results)}


def ranking(rewards: Sequence[float | None]) -> Ranking:
    """Places of the images, best first; equal rewards keep their order, and who has none is not ranked."""
    order = best_first(rewards)
    return {"order": order, "best": order[0] if order else None, "rewards": list(rewards)}


def description(model: Model) -> dict[str, Any]:
    """One entry of /v1/models: what is served, and what its numbers mean."""
    rubric = model.spec.rubric
    weights = dict(zip(model.weights.dimensions, model.weights.weights, strict=True))
    levels = {"levels": list(rubric.levels)} if isinstance(rubric, Rubric) and rubric.levels else {}
    return {
        "checkpoint": model.spec.checkpoint,
        "rubric": rubric.id,
        "meant_for": model.spec.meant_for,
        "fingerprint": model.fingerprint,
        "fingerprint_parts": dict(model.spec.fingerprint_parts),
        "slots": list(rubric.slots),
        **({"kind": rubric.kind} if isinstance(rubric, WrittenRubric) else {}),
        "dimensions": [{**_described(column, rubric), "weight": weights[column.name]} for column in rubric.columns],
        **levels,
        "reward": {**_range(RATING), "weights": model.weights.source},
    }


def _described(column: Column, rubric: AnyRubric) -> dict[str, Any]:
    scale = column.scale
    std_max = _plain(scale.range.max_sample_std if isinstance(rubric, WrittenRubric) else scale.max_std)
    return {"name": column.name, **_range(scale.range), "std_max": std_max, **_answers(column, rubric)}


def _answers(column: Column, rubric: AnyRubric) -> Answers:
    """What a column's scores are made of; nothing where it is the rubric's levels, or a number that was written."""
    if isinstance(rubric, WrittenRubric):
        return {}
    questions = [rubric.questions[place] for place in column.questions]
    if column.scale.is_group:
        return {"statements": [question.name for question in questions]}
    scale = questions[0].scale
    if scale == AnswerScale(rubric.levels, tuple(map(float, FIVE_LEVELS.levels))):
        return {}
    return {"answers": list(scale.answers), "worths": [_plain(worth) for worth in scale.worths]}


def _range(found: ScoreRange) -> dict[str, Any]:
    higher_is = "better" if found.best > found.worst else "worse"
    return {"min": _plain(found.low), "max": _plain(found.high), "higher_is": higher_is}


def _plain(number: float) -> float:
    """An int where it is whole, as JSON shows it."""
    return int(number) if number.is_integer() else number


def head(question: RubricQuestion, model: Model) -> Head:
    """What an answer has beside its results."""
    rubric = model.spec.rubric
    found: Head = {"fingerprint": model.fingerprint, "rubric": rubric.id}
    if scales := dict(_scales(_shown(question, rubric).values(), rubric)):
        found["scales"] = scales
    if question.request_id is not None:
        found["request_id"] = question.request_id
    if question.prompt is not None:
        found["prompt"] = question.prompt
    return found


def _scales(columns: Iterable[Column], rubric: AnyRubric) -> Iterator[tuple[str, Scale]]:
    for column in columns:
        if answers := _answers(column, rubric):
            ends = column.scale.range
            yield column.name, {"worst": _plain(ends.worst), "best": _plain(ends.best), **answers}


def _shown(question: RubricQuestion, rubric: AnyRubric) -> dict[int, Column]:
    """Place among the rubric's columns -> column, of those that are asked for."""
    places = [rubric.names.index(name) for name in question.dimensions or rubric.names]
    return {place: rubric.columns[place] for place in places}


def _entries(question: Question, model: Model, results: Sequence[ImageResult]) -> list[Scored | Rejected]:
    columns = _shown(question, model.spec.rubric)
    return [_entry(one, columns, question) for one in results]


def _entry(one: ImageResult, columns: Mapping[int, Column], question: Question) -> Scored | Rejected:
    if isinstance(one, Rejection):
        return rejected(one)
    found = one.assessment
    scores_K, stds_K = _rounded(found.scores_K), _rounded(found.stds_K)
    return {
        "status": "scored",
        "scores": {column.name: scores_K[k] for k, column in columns.items()},
        "std": {column.name: stds_K[k] for k, column in columns.items() if not math.isnan(stds_K[k])},
        **_probs(found, columns, question.probs),
        **_written(found.written, question.answers),
        "reward": one.reward,
        **size(one.header),
    }


def _written(found: Written | None, with_answers: bool) -> WrittenPart:
    if found is None:
        return {}
    text: WrittenText = {
        "caption": found.caption,
        "reasoning": found.reasoning,
        "parsed": found.parsed,
        "finish": found.finish.value,
    }
    if with_answers:
        text["answers"] = list(found.answers)
    return {"written": text}


def _probs(found: Assessment, columns: Mapping[int, Column], with_probs: bool) -> Probs:
    probs: Probs = {}
    if found.written is not None:
        return probs
    if with_probs:
        probs["probs"] = {one.name: _rounded(found.probs_K[k]) for k, one in columns.items() if not one.scale.is_group}
    if yes := {one.name: _rounded(found.probs_K[k]) for k, one in columns.items() if one.scale.is_group}:
        probs["yes"] = yes
    return probs


def rejected(one: Rejection) -> Rejected:
    """The entry of an image without a result."""
    return {"status": "rejected", "reason": str(one.reason), "detail": one.detail, **size(one.header)}


def size(header: ImageHeader | None) -> Size:
    """What the header says, where it was read."""
    if header is None:
        return {}
    return {"width": header.width, "height": header.height, "format": header.format, "frames": header.frames}


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [round(value, DECIMALS) for value in values.tolist()]
