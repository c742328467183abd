"""What a batch says, and which rewards count -> each of these rewards by its name, one number per rollout.

Shape suffixes are those of `arrays`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from iqa_core.training.rewards.answers import Answers, Part
from iqa_core.training.rewards.arrays import Floats
from iqa_core.training.rewards.composition import Composition
from iqa_core.training.rewards.fidelity import Preferences, fidelity, over_attributes
from iqa_core.training.rewards.margin import Tolerance, margin
from iqa_core.training.rewards.pairs import Alignment, LabelScales
from iqa_core.training.rewards.rouge import Measure, rouge1
from iqa_core.training.rewards.scores import ScoreReward, score_reward


@dataclass(frozen=True)
class Batch:
    """Answers about the images of all workers, and what is known of these images."""

    answers: Answers
    y_NA: ArrayLike
    d_N: ArrayLike
    s_NA: ArrayLike | None = None
    references_N: Sequence[Sequence[str]] | None = None
    """What people wrote about each image: none, one text or several."""
    judged_NKA: ArrayLike | None = None
    """What a judge reads from each rollout's caption alone; NaN where its answer was not parsed."""
    scales: LabelScales | None = None
    """Scales of the data sets' training parts, for the alignment `standardised` alone."""


CAPTION = "caption"
"""Name of the reward that needs a judge of captions."""


class RewardSettings(BaseModel):
    """Which rewards there are, each with its settings, and how they become advantages."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    composition: Composition = Composition()
    """Weights by the names of `REWARDS`."""
    attributes: dict[str, float] = Field(default={})
    """Attribute -> its weight among those of one rollout, 0 or more; 1 for one that is not named."""
    preferences: Preferences = "hard"
    """Whether raters who disagree make a preference less sure, for `fidelity`."""
    alignment: Alignment = "within"
    """Whether images of different data sets are compared, for `fidelity`."""
    variance_floor: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Lowest variance of an image's rollouts, for `fidelity`."""
    tolerance: Tolerance = "unit"
    """What the error of a difference is divided by, for `margin`."""
    score: ScoreReward = ScoreReward()
    """Reward of the rollout's own score."""
    caption: ScoreReward = ScoreReward()
    """Reward of what a judge reads from its caption."""
    caption_target: Literal["opinion", "own"] = "opinion"
    """What the judge's rating is held against: people's opinion, or what the rollout said itself."""
    words: Part = "both"
    """Which part of an answer is held against what people wrote; both are joined by a line break."""
    measure: Measure = "f1"
    """What share the words in common are taken of."""

    @field_validator("attributes")
    @classmethod
    def _has_weights(cls, attributes: dict[str, float]) -> dict[str, float]:
        if not all(np.isfinite(weight) and weight >= 0 for weight in attributes.values()):
            raise ValueError("no weight is below 0 or infinite")
        return attributes

    @model_validator(mode="after")
    def _knows_its_rewards(self) -> Self:
        unknown = sorted(self.composition.weights.keys() - REWARDS.keys())
        if unknown:
            raise ValueError(f"there is no reward {unknown[0]}; there are {', '.join(REWARDS)}")
        return self


def rewards_of(batch: Batch, settings: RewardSettings, attributes: Sequence[str]) -> dict[str, Floats]:
    """Each reward of `settings`, (N, K), NaN where there is none; what `composed` takes.

    attributes: their names, in the order of the answers. Raises ValueError on a weight of an attribute that is not
    there, a reward whose texts or ratings the batch lacks, and as the rewards themselves do.
    """
    unknown = sorted(settings.attributes.keys() - set(attributes))
    if unknown:
        raise ValueError(f"there is no attribute {unknown[0]}; there are {', '.join(attributes)}")
    weights_A = np.array([settings.attributes.get(name, 1.0) for name in attributes])
    found = {name: REWARDS[name](batch, settings) for name in settings.composition.weights}
    return {name: over_attributes(reward, weights_A) if reward.ndim == 3 else reward for name, reward in found.items()}


def _fidelity(batch: Batch, settings: RewardSettings) -> Floats:
    return fidelity(
        batch.answers.q_NKA,
        batch.y_NA,
        batch.d_N,
        batch.s_NA,
        preferences=settings.preferences,
        alignment=settings.alignment,
        variance_floor=settings.variance_floor,
        scales=batch.scales,
    )


def _margin(batch: Batch, settings: RewardSettings) -> Floats:
    return margin(batch.answers.q_NKA, batch.y_NA, batch.d_N, batch.s_NA, tolerance=settings.tolerance)


def _score(batch: Batch, settings: RewardSettings) -> Floats:
    return score_reward(batch.answers.q_NKA, batch.y_NA, settings.score)


def _caption(batch: Batch, settings: RewardSettings) -> Floats:
    if batch.judged_NKA is None:
        raise ValueError("the reward `caption` needs what a judge reads from the captions")
    target = batch.answers.q_NKA if settings.caption_target == "own" else batch.y_NA
    return score_reward(batch.judged_NKA, target, settings.caption)


def _words(batch: Batch, settings: RewardSettings) -> Floats:
    if batch.references_N is None:
        raise ValueError("the reward `words` needs what people wrote")
    return rouge1(batch.answers.texts(settings.words), batch.references_N, settings.measure)


def _format(batch: Batch, _: RewardSettings) -> Floats:
    return batch.answers.format_NK


REWARDS: Mapping[str, Callable[[Batch, RewardSettings], Floats]] = {
    "fidelity": _fidelity,
    "margin": _margin,
    "score": _score,
    CAPTION: _caption,
    "words": _words,
    "format": _format,
}
"""Name of a reward -> what makes it of a batch: (N, K), or (N, K, A) where attributes have one each."""
