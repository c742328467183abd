"""The JSON of an endpoint's answer -> scores, or a ValueError that says where it is no such answer.

Checked value by value, up to the first fault: a reward that is no number from 1 to 5 would steer a training run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from iqa_core.records import FIVE_LEVELS

PROBS_TOLERANCE = 1e-3
"""Difference from 1 that the sum of a dimension's probabilities may have: an endpoint rounds them to 6 decimals."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the endpoint says of one image."""

    reward: float | None
    """1 (worst) to 5 (best); None when the image was rejected: never a made-up number."""
    scores: dict[str, float]
    """Expected level per dimension, 1 to 5; empty when rejected."""
    std: dict[str, float]
    """Spread per dimension, 0 (sure) to 2."""
    reason: str | None
    detail: str | None
    fingerprint: str
    """The model that gave it."""
    probs: dict[str, list[float]] | None = None
    """Probabilities of the five levels, worst to best, where they were asked for."""


def best_first(rewards: Sequence[float | None]) -> list[int]:
    """Places of the rewards, highest first; equal ones keep their order, and None has no place."""
    return sorted((i for i, found in enumerate(rewards) if found is not None), key=lambda i: -(rewards[i] or 0))


def scores_of(answer: Any, num_images: int, with_probs: bool) -> list[Score]:
    """The scores in an answer of /v1/assess, one per image. Raises ValueError where it is no such answer."""
    fingerprint = _text(_of(answer, "fingerprint", ""), "fingerprint")
    results = _of(answer, "results", "")
    if not isinstance(results, list) or len(results) != num_images:
        found = len(results) if isinstance(results, list) else 0
        raise ValueError(f"it has {found} results, and {num_images} were asked for")
    return [_score(one, f"results.{place}.", fingerprint, with_probs) for place, one in enumerate(results)]


def models_of(answer: Any) -> list[dict[str, Any]]:
    """The models in an answer of /v1/models: one or more, each with fingerprint and dimensions.

    Raises ValueError where it is no such answer.
    """
    models = _of(answer, "models", "")
    if not isinstance(models, list) or not models:
        raise ValueError("it has no models")
    for place, model in enumerate(models):
        _text(_of(model, "fingerprint", f"models.{place}."), f"models.{place}.fingerprint")
        dimensions = _of(model, "dimensions", f"models.{place}.")
        if not isinstance(dimensions, list) or not dimensions:
            raise ValueError(f"it has no models.{place}.dimensions")
        for k, dimension in enumerate(dimensions):
            where = f"models.{place}.dimensions.{k}."
            _text(_of(dimension, "name", where), f"{where}name")
    return models


def _score(result: Any, where: str, fingerprint: str, with_probs: bool) -> Score:
    status = _of(result, "status", where)
    if status == "rejected":
        reason, detail = (_text(_of(result, name, where), f"{where}{name}") for name in ("reason", "detail"))
        if lies := {"reward", "scores", "std", "probs"} & result.keys():
            raise ValueError(f"{where}{min(lies)} is there though the image was rejected")
        return Score(None, {}, {}, reason, detail, fingerprint)
    if status != "scored":
        raise ValueError(f"{where}status is {_shown(status)}, neither scored nor rejected")
    reward = _on_scale(_of(result, "reward", where), f"{where}reward")
    scores = _by_dimension(_of(result, "scores", where), f"{where}scores", _on_scale)
    std = _by_dimension(_of(result, "std", where), f"{where}std", _spread)
    probs = _by_dimension(_of(result, "probs", where), f"{where}probs", _levels) if with_probs else None
    if not scores.keys() == std.keys() == (scores if probs is None else probs).keys():
        raise ValueError(f"{where}std or {where}probs has other dimensions than {where}scores")
    return Score(reward, scores, std, None, None, fingerprint, probs)


def _by_dimension(found: Any, where: str, checked: Callable[[Any, str], Any]) -> dict[str, Any]:
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{where} is {_shown(found)}, no values by dimension")
    return {name: checked(value, f"{where}.{name[:64]}") for name, value in found.items()}


def _on_scale(found: Any, where: str) -> float:
    return _number(found, FIVE_LEVELS.worst, FIVE_LEVELS.best, where)


def _spread(found: Any, where: str) -> float:
    return _number(found, 0, FIVE_LEVELS.max_std, where)


def _levels(found: Any, where: str) -> list[float]:
    if not isinstance(found, list) or len(found) != FIVE_LEVELS.num_levels:
        raise ValueError(f"{where} is {_shown(found)}, no {FIVE_LEVELS.num_levels} probabilities")
    probs = [_number(one, 0, 1, where) for one in found]
    if abs(sum(probs) - 1) > PROBS_TOLERANCE:
        raise ValueError(f"{where} sums to {sum(probs):g}, not to 1")
    return probs


def _number(found: Any, low: float, high: float, where: str) -> float:
    # a bool is an int to Python; NaN is neither above nor below
    if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
        raise ValueError(f"{where} is {_shown(found)}, no number from {low} to {high}")
    return float(found)


def _text(found: Any, where: str) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{where} is {_shown(found)}, no text")
    return found


def _of(found: Any, name: str, where: str) -> Any:
    if not isinstance(found, dict) or name not in found:
        raise ValueError(f"it has no {where}{name}")
    return found[name]


def _shown(found: Any) -> str:
    """The beginning of a value, however large it is."""
    if isinstance(found, list | dict):
        return f"a {type(found).__name__} of {len(found)}"
    return repr(found if not isinstance(found, str) else found[:40])[:60]
