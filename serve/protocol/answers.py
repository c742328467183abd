"""Assessments -> the JSON of an answer. A number that is not known is absent, never invented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iqa_core.fusion import fuse
from iqa_core.records import FIVE_LEVELS, Assessment, ImageHeader, Rejection
from serve.model.dispatch import Judged, Model

DECIMALS = 6
"""More than float32 holds of a score between 1 and 5."""


def result(judged: Judged, model: Model, dimensions: Sequence[str], probs: bool) -> dict[str, Any]:
    """One image's entry in `results`."""
    size = _size(judged.header)
    outcome = judged.outcome
    if isinstance(outcome, Rejection):
        return {"status": "rejected", "reason": str(outcome.reason), "detail": outcome.detail, **size}
    places = [model.spec.rubric.names.index(name) for name in dimensions]
    entry = {
        "status": "scored",
        "scores": {name: _number(outcome.scores_K[k]) for name, k in zip(dimensions, places, strict=True)},
        "std": {name: _number(outcome.stds_K[k]) for name, k in zip(dimensions, places, strict=True)},
    }
    if probs:
        entry["probs"] = {
            name: [_number(p) for p in outcome.probs_KL[k]] for name, k in zip(dimensions, places, strict=True)
        }
    return {**entry, "reward": reward(outcome, model), **size}


def reward(outcome: Assessment | Rejection, model: Model) -> float | None:
    """The fused score of all dimensions; None where there is none."""
    if isinstance(outcome, Rejection):
        return None
    return _number(fuse(outcome.scores_K[None], model.weights)[0])


def ranking(rewards: Sequence[float | None]) -> dict[str, Any]:
    """Places of the images, best first; equal rewards keep their order, and who has none is not ranked."""
    order = sorted(
        (place for place, found in enumerate(rewards) if found is not None), key=lambda i: -(rewards[i] or 0)
    )
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


def _size(header: ImageHeader | None) -> dict[str, Any]:
    if header is None:
        return {}
    return {"width": header.width, "height": header.height, "format": header.format, "frames": header.frames}


def _number(value: np.floating[Any]) -> float:
    return round(float(value), DECIMALS)
