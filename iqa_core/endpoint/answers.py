"""The JSON of an endpoint's answer -> scores, or a ValueError that says where it is no such answer.

Checked value by value, up to the first fault: a reward that is no number from 1 to 5 would steer a training run. A
dimension's scores lie between 1 and 5, in five levels, or where the answer itself says so (`scales`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from iqa_core.endpoint.values import number_of, shown, text_of, text_or_none, value_of
from iqa_core.records import FIVE_LEVELS, RATING, Finish, ScoreRange

T = TypeVar("T")

PROBS_TOLERANCE = 1e-3
"""Difference from 1 that the sum of a dimension's probabilities may have: an endpoint rounds them to 6 decimals."""

ANSWER_STEP = 1e-6
"""Answers are rounded to six decimals, which may lift a score over an end that has more."""
FLOAT32_STEP = 2.0**-23
"""A score is rounded to float32, which may lift it over an end of its range by this part of it."""

MAX_WORTH = 1e6
"""Worth of an answer at most, either way."""


@dataclass(frozen=True, slots=True)
class WrittenText:
    """What the endpoint's model wrote about one image."""

    caption: str | None
    """Of the first answer that was parsed; None where the grammar has none."""
    reasoning: str | None
    """Likewise."""
    parsed: int
    """Answers that were parsed."""
    finish: str
    """`stop`, or `length` where the first of them was cut at its limit."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the endpoint says of one image."""

    reward: float | None
    """1 (worst) to 5 (best); None when the image was rejected: never a made-up number."""
    scores: dict[str, float]
    """Expected worth of the answer per dimension, in its range; empty when rejected."""
    std: dict[str, float]
    """Spread per dimension, 0 (sure) to half of its range."""
    reason: str | None
    detail: str | None
    fingerprint: str
    """The model that gave it."""
    probs: dict[str, list[float]] | None = None
    """Probabilities of a dimension's answers, worst to best, where they were asked for."""
    yes: dict[str, list[float]] = field(default_factory=dict)
    """Probability of yes to each of a group's statements, by group."""
    ranges: dict[str, ScoreRange] = field(default_factory=dict)
    """Of the dimensions that do not go from 1 (worst) to 5 (best)."""
    written: WrittenText | None = None
    """What the model wrote, where the rubric makes it write; a spread that is not known is then absent."""

    def rating(self, dimension: str) -> float:
        """A dimension's score, brought from its range to 1 (worst) to 5 (best). Raises KeyError where it has none."""
        own = self.ranges.get(dimension, RATING)
        return own.rating(own.inside(self.scores[dimension]))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The images of one prompt, best first."""

    order: list[int]
    """Places of the images that have a reward."""
    best: int | None
    scores: list[Score]
    """One per image, in the order in which they were given."""


@dataclass(frozen=True, slots=True)
class Description:
    """What the endpoint's model answers to a question about one image."""

    text: str | None
    """Verbatim; None when the image was rejected."""
    finish: str | None
    """`stop`, or `length` where the answer was cut at its limit."""
    reason: str | None
    detail: str | None
    fingerprint: str
    """The model that wrote it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What values a dimension may have."""

    range: ScoreRange = RATING
    num_answers: int = FIVE_LEVELS.num_levels
    """Or of statements, in a group."""
    is_group: bool = False


RATED = Scale()
"""That of five levels, and of every reward."""


def best_first(rewards: Sequence[float | None]) -> list[int]:
    """Places of the rewards, highest first; equal ones keep their order, and None has no place."""
    return sorted((i for i, found in enumerate(rewards) if found is not None), key=lambda i: -(rewards[i] or 0))


def ranking_of(scores: Sequence[Score]) -> Ranking:
    """Scores of the images of one prompt, ranked by reward."""
    order = best_first([score.reward for score in scores])
    return Ranking(order, order[0] if order else None, list(scores))


def scores_of(answer: Any, num_images: int, with_probs: bool) -> list[Score]:
    """The scores in an answer of /v1/assess, one per image. Raises ValueError where it is no such answer."""
    fingerprint = text_of(value_of(answer, "fingerprint", ""), "fingerprint")
    scales = scales_of(answer.get("scales", {}))
    results = results_of(answer, num_images)
    return [_score(one, f"results.{place}.", fingerprint, scales, with_probs) for place, one in enumerate(results)]


def descriptions_of(answer: Any, num_images: int) -> list[Description]:
    """The answers in one of /v1/describe, one per image. Raises ValueError where it is no such answer."""
    fingerprint = text_of(value_of(answer, "fingerprint", ""), "fingerprint")
    results = results_of(answer, num_images)
    return [_description(one, f"results.{place}.", fingerprint) for place, one in enumerate(results)]


def results_of(answer: Any, num_images: int) -> list[Any]:
    """Those of an answer, one per image. Raises ValueError where they are more or fewer."""
    results = value_of(answer, "results", "")
    if not isinstance(results, list) or len(results) != num_images:
        found = len(results) if isinstance(results, list) else 0
        raise ValueError(f"it has {found} results, and {num_images} were asked for")
    return results


def _description(result: Any, where: str, fingerprint: str) -> Description:
    status = value_of(result, "status", where)
    if status == "rejected":
        return Description(None, None, *why_rejected(result, where, {"text", "finish"}), fingerprint)
    if status != "described":
        raise ValueError(f"{where}status is {shown(status)}, neither described nor rejected")
    text = text_of(value_of(result, "text", where), f"{where}text")
    return Description(text, _finish(result, where), None, None, fingerprint)


def models_of(answer: Any) -> list[dict[str, Any]]:
    """The models in an answer of /v1/models: one or more, each with fingerprint and dimensions.

    Raises ValueError where it is no such answer.
    """
    models = value_of(answer, "models", "")
    if not isinstance(models, list) or not models:
        raise ValueError("it has no models")
    for place, model in enumerate(models):
        text_of(value_of(model, "fingerprint", f"models.{place}."), f"models.{place}.fingerprint")
        dimensions = value_of(model, "dimensions", f"models.{place}.")
        if not isinstance(dimensions, list) or not dimensions:
            raise ValueError(f"it has no models.{place}.dimensions")
        for k, dimension in enumerate(dimensions):
            where = f"models.{place}.dimensions.{k}."
            text_of(value_of(dimension, "name", where), f"{where}name")
    return models


def scales_of(found: Any) -> dict[str, Scale]:
    """Dimension -> its scale, of those that are not rated in five levels. Raises ValueError on what is no scale."""
    if not isinstance(found, dict):
        raise ValueError(f"scales is {shown(found)}, nothing by dimension")
    return {name: _scale(one, f"scales.{name[:64]}.") for name, one in found.items()}


def _scale(found: Any, where: str) -> Scale:
    worst, best = (
        number_of(value_of(found, end, where), -MAX_WORTH, MAX_WORTH, f"{where}{end}") for end in ("worst", "best")
    )
    if worst == best:
        raise ValueError(f"{where}best is {best:g}, as is {where}worst")
    is_group = "statements" in found
    answers = value_of(found, "statements" if is_group else "answers", where)
    if not isinstance(answers, list) or not answers:
        raise ValueError(f"{where}answers is {shown(answers)}, no answers or statements")
    return Scale(ScoreRange(worst, best), len(answers), is_group)


def _score(result: Any, where: str, fingerprint: str, scales: Mapping[str, Scale], with_probs: bool) -> Score:
    status = value_of(result, "status", where)
    if status == "rejected":
        lies = {"reward", "scores", "std", "probs", "yes"}
        return Score(None, {}, {}, *why_rejected(result, where, lies), fingerprint)
    if status != "scored":
        raise ValueError(f"{where}status is {shown(status)}, neither scored nor rejected")
    return _scored(result, where, fingerprint, scales, with_probs)


def why_rejected(result: Any, where: str, lies: set[str]) -> tuple[str, str]:
    """Reason and detail. lies: what a rejected image cannot have. Raises ValueError where it has, or lacks them."""
    reason, detail = (text_of(value_of(result, name, where), f"{where}{name}") for name in ("reason", "detail"))
    if told := lies & result.keys():
        raise ValueError(f"{where}{min(told)} is there though the image was rejected")
    return reason, detail


def _finish(found: Any, where: str) -> str:
    if (finish := found.get("finish")) not in (Finish.STOP, Finish.LENGTH):
        raise ValueError(f"{where}finish is {shown(finish)}, neither stop nor length")
    return str(finish)


def _scored(result: Any, where: str, fingerprint: str, scales: Mapping[str, Scale], with_probs: bool) -> Score:
    reward = inside(value_of(result, "reward", where), RATED, f"{where}reward")
    scores = _by_dimension(value_of(result, "scores", where), scales, f"{where}scores", inside)
    if not scores:
        raise ValueError(f"{where}scores is {shown(result['scores'])}, no values by dimension")
    written = _written(result["written"], f"{where}written.") if "written" in result else None
    std = _by_dimension(
        value_of(result, "std", where), scales, f"{where}std", _spread if written is None else _over_samples
    )
    probs = _by_dimension(value_of(result, "probs", where), scales, f"{where}probs", _probs) if with_probs else None
    yes = _by_dimension(result.get("yes", {}), scales, f"{where}yes", _yes)
    groups = {name for name in scores if name in scales and scales[name].is_group}
    spread = scores.keys() if written is None else scores.keys() & std.keys()
    wanted = {"std": (std, spread), "probs": (probs, scores.keys() - groups), "yes": (yes, groups)}
    for name, (own, dimensions) in wanted.items():
        if own is not None and own.keys() != dimensions:
            raise ValueError(f"{where}{name} has other dimensions than {where}scores")
    ranges = {name: scales[name].range for name in scores if name in scales and scales[name].range != RATING}
    return Score(reward, scores, std, None, None, fingerprint, probs, yes, ranges, written)


def _written(found: Any, where: str) -> WrittenText:
    caption, reasoning = (
        text_or_none(value_of(found, name, where), f"{where}{name}") for name in ("caption", "reasoning")
    )
    parsed = number_of(value_of(found, "parsed", where), 1, math.inf, f"{where}parsed")
    return WrittenText(caption, reasoning, int(parsed), _finish(found, where))


def _by_dimension(
    found: Any, scales: Mapping[str, Scale], where: str, checked: Callable[[Any, Scale, str], T]
) -> dict[str, T]:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is {shown(found)}, no values by dimension")
    return {name: checked(value, scales.get(name, RATED), f"{where}.{name[:64]}") for name, value in found.items()}


def inside(found: Any, scale: Scale, where: str) -> float:
    """The value as a score on a scale. Raises ValueError on one beyond its ends."""
    low, high = scale.range.low, scale.range.high
    return number_of(found, low, high, where, slack=ANSWER_STEP + FLOAT32_STEP * max(abs(low), abs(high)))


def _spread(found: Any, scale: Scale, where: str) -> float:
    high = (scale.range.high - scale.range.low) / 2
    return number_of(found, 0, high, where, slack=ANSWER_STEP + FLOAT32_STEP * high)


def _over_samples(found: Any, scale: Scale, where: str) -> float:
    return number_of(found, 0, scale.range.max_sample_std, where, slack=ANSWER_STEP)


def _probs(found: Any, scale: Scale, where: str) -> list[float]:
    probs = _yes(found, scale, where)
    if abs(sum(probs) - 1) > PROBS_TOLERANCE:
        raise ValueError(f"{where} sums to {sum(probs):g}, not to 1")
    return probs


def _yes(found: Any, scale: Scale, where: str) -> list[float]:
    if not isinstance(found, list) or len(found) != scale.num_answers:
        raise ValueError(f"{where} is {shown(found)}, no {scale.num_answers} probabilities")
    return [number_of(one, 0, 1, where) for one in found]
