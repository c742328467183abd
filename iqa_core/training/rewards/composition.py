"""Several rewards of a batch -> one per rollout, and its advantage over the others of its image.

What is missing is of two kinds. A whole image without a reward (no opinion, no partner, no reference): the reward is
left out of its sum. A rollout without one, where another of its image has it (not parsed): it is worth 0, or the model
would learn to say nothing where it is unsure. Shape suffixes: N images, K rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, field_validator

from iqa_core.training.rewards.arrays import Floats, shaped

Aggregation = Literal["sum_then_normalise", "normalise_then_sum"]
"""The weighted sum is normalised in its group (GRPO); or each reward is, and their sum over the batch (GDPO)."""
Scaling = Literal["group", "batch", "none"]
"""What a reward's distance from its group's mean is divided by: the group's standard deviation, the batch's, or 1."""

STD_FLOOR = 0.05
"""Late in training a group's fidelities are .001 apart, and without a floor noise would become advantages of 2."""


class Composition(BaseModel):
    """Which rewards there are, and how they become advantages."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    weights: dict[str, float] = Field(default={"fidelity": 1, "score": 1, "format": 0.5}, min_length=1)
    """Reward -> its weight, 0 or more, and one at least above. A reward of weight 0 is only reported. By default scores
    anchor the ranks, whose reward is blind to the scale."""
    aggregation: Aggregation = "sum_then_normalise"
    """Sum first or normalise first. In a sum the reward with the largest spread leads: early that of form."""
    scaling: Scaling = "group"
    """What the sum's distance is divided by, for `sum_then_normalise` alone."""
    std_floor: float = Field(default=STD_FLOOR, gt=0, allow_inf_nan=False)
    """Lowest standard deviation that anything is divided by."""

    @field_validator("weights")
    @classmethod
    def _has_a_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if not all(np.isfinite(weight) and weight >= 0 for weight in weights.values()) or not any(weights.values()):
            raise ValueError("no weight is below 0 or infinite, and one at least is above 0")
        return weights


@dataclass(frozen=True)
class Composed:
    """What a batch is worth."""

    reward_NK: Floats
    """Weighted sum; NaN for all rollouts of an image without any reward."""
    advantage_NK: Floats
    """0 for these."""
    std_N: Floats
    """Unbiased standard deviation of the sum in each group; 0 is a dead group, which teaches nothing. NaN for these."""


def composed(rewards_NK: Mapping[str, ArrayLike], composition: Composition) -> Composed:
    """Reward and advantage of each rollout. rewards_NK: by name, each (N, K), NaN where there is none.

    Raises ValueError when the names are not those of the weights, or the shapes differ or are no such shape.
    """
    if rewards_NK.keys() != composition.weights.keys():
        raise ValueError(f"rewards are {sorted(rewards_NK)}, and weights of {sorted(composition.weights)}")
    shape = np.shape(next(iter(rewards_NK.values())))
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"rewards have the shape {shape}; it is (images, rollouts), neither of them 0")
    parts = {name: filled(shaped(name, reward, shape)) for name, reward in rewards_NK.items()}
    reward_NK = weighted_sum(parts, composition.weights)
    if composition.aggregation == "sum_then_normalise":
        advantage_NK = advantages(reward_NK, composition.scaling, composition.std_floor)
    else:
        alone = {name: advantages(part, "group", composition.std_floor) for name, part in parts.items()}
        sum_NK = np.where(np.isnan(reward_NK), np.nan, weighted_sum(alone, composition.weights))
        advantage_NK = np.nan_to_num((sum_NK - _mean(sum_NK)) / max(_std(sum_NK), composition.std_floor))
    return Composed(reward_NK, advantage_NK, group_std(reward_NK))


def filled(reward_NK: Floats) -> Floats:
    """0 for a rollout without a reward, where another of its image has one; an image without any keeps its NaN."""
    is_rewarded_N1 = np.isfinite(reward_NK).any(axis=1, keepdims=True)
    return np.where(is_rewarded_N1, np.nan_to_num(reward_NK), np.nan)


def weighted_sum(parts_NK: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """Sum over the rewards that an image has, (N, K); NaN where it has none.

    The weights stay as they are: what an image lacks is the same for all of its rollouts, and cancels in its group.
    """
    stacked = np.stack([weights[name] * part for name, part in parts_NK.items() if weights[name]])
    return np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))


def advantages(reward_NK: Floats, scaling: Scaling = "group", std_floor: float = STD_FLOOR) -> Floats:
    """Distance of each reward from its group's mean in standard deviations, (N, K); 0 where there is no reward.

    Rewards are those of `filled`: an image has all or none.
    """
    off_NK = _off_first(reward_NK)
    off_NK = off_NK - off_NK.mean(axis=1, keepdims=True)
    if scaling == "none":
        return np.nan_to_num(off_NK)
    std = group_std(reward_NK)[:, None] if scaling == "group" else np.full((1, 1), _std(reward_NK))
    return np.nan_to_num(off_NK / np.maximum(std, std_floor))


def group_std(reward_NK: Floats) -> Floats:
    """Unbiased standard deviation in each group, (N,); 0 for a single rollout, NaN without a reward."""
    if reward_NK.shape[1] == 1:
        return reward_NK[:, 0] * 0
    return _off_first(reward_NK).std(axis=1, ddof=1)


def _off_first(reward_NK: Floats) -> Floats:
    """Rewards less the first of their group: equal ones are 0 then, where their mean may differ by its last bit."""
    return reward_NK - reward_NK[:, :1]


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0


def _std(values: Floats) -> float:
    """Unbiased, over what is known; 0 for fewer than two numbers."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if known.size > 1 else 0.0
