"""Results -> the JSON of an answer, in the very types that /openapi.json describes.

A number that is not known is absent, never invented. The types are those of typing_extensions, since pydantic reads
typing's own from Python 3.12 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iqa_core.answers import best_first
from iqa_core.records import FIVE_LEVELS, ImageHeader, Rejection
from serve.model.results import DECIMALS, ImageResult, Model
from serve.protocol.bodies import Question

DESCRIBED = ConfigDict(use_attribute_docstrings=True)


class Size(TypedDict, total=False):
    """What an image's header says, as far as it was read."""

    width: int
    height: int
    format: str
    frames: int


class Probs(TypedDict, total=False):
    """Probabilities of the levels, worst to best, by dimension; there where they were asked for."""

    probs: dict[str, list[float]]


@with_config(DESCRIBED)
class Scored(Size, Probs):
    """An image with scores."""

    status: Literal["scored"]
    scores: dict[str, float]
    """Expected level by dimension, 1 (worst) to 5 (best)."""
    std: dict[str, float]
    """Spread of the level distribution by dimension, 0 (sure) to 2."""
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


class Head(TypedDict):
    """What every answer has beside its results."""

    fingerprint: str
    """Names the model that gave the scores."""
    rubric: str
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
    return {**_head(question, model), "results": _entries(question, model, results)}


def ranked_answer(question: Question, model: Model, results: Sequence[ImageResult]) -> RankedAnswer:
    """The answer to `/v1/rank`."""
    ranked = ranking([None if isinstance(one, Rejection) else one.reward for one in results])
    return {**_head(question, model), **ranked, "results": _entries(question, model, results)}


def ranking(rewards: Sequence[float | None]) -> Ranking:
    """Places of the images, best first; equal rewards keep their order, and who has none is not ranked."""
    order = best_first(rewards)
    return {"order": order, "best": order[0] if order else None, "rewards": list(rewards)}


def description(model: Model) -> dict[str, Any]:
    """One entry of /v1/models: what is served, and what its numbers mean."""
    rubric = model.spec.rubric
    scale = {"min": FIVE_LEVELS.worst, "max": FIVE_LEVELS.best, "higher_is": "better"}
    weights = dict(zip(model.weights.dimensions, model.weights.weights, strict=True))
    return {
        "checkpoint": model.spec.checkpoint,
        "rubric": rubric.id,
        "meant_for": model.spec.meant_for,
        "fingerprint": model.fingerprint,
        "fingerprint_parts": dict(model.spec.fingerprint_parts),
        "dimensions": [
            {"name": name, **scale, "std_max": FIVE_LEVELS.max_std, "weight": weights[name]} for name in rubric.names
        ],
        "levels": list(rubric.levels),
        "reward": {**scale, "weights": model.weights.source},
    }


def _head(question: Question, model: Model) -> Head:
    head: Head = {"fingerprint": model.fingerprint, "rubric": model.spec.rubric.id}
    if question.request_id is not None:
        head["request_id"] = question.request_id
    if question.prompt is not None:
        head["prompt"] = question.prompt
    return head


def _entries(question: Question, model: Model, results: Sequence[ImageResult]) -> list[Scored | Rejected]:
    names = model.spec.rubric.names
    columns = {name: names.index(name) for name in question.dimensions or names}
    return [_entry(one, columns, question.probs) for one in results]


def _entry(one: ImageResult, columns: Mapping[str, int], with_probs: bool) -> Scored | Rejected:
    if isinstance(one, Rejection):
        return {"status": "rejected", "reason": str(one.reason), "detail": one.detail, **_size(one.header)}
    found = one.assessment
    scores_K, stds_K = _rounded(found.scores_K), _rounded(found.stds_K)
    probs: Probs = {"probs": {name: _rounded(found.probs_K[k]) for name, k in columns.items()}} if with_probs else {}
    return {
        "status": "scored",
        "scores": {name: scores_K[k] for name, k in columns.items()},
        "std": {name: stds_K[k] for name, k in columns.items()},
        **probs,
        "reward": one.reward,
        **_size(one.header),
    }


def _size(header: ImageHeader | None) -> Size:
    if header is None:
        return {}
    return {"width": header.width, "height": header.height, "format": header.format, "frames": header.frames}


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [round(value, DECIMALS) for value in values.tolist()]
