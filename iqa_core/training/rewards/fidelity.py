"""What rollouts say and what people think -> how well each rollout ranks its image among the others of the batch.

Thurstone's model: an image's quality is a normal distribution, with mean and variance over its rollouts; the chance
that image i is better than image j follows from both, and is held against people's preference (VisualQuality-R1,
arXiv 2505.14460, for one score; here for each attribute of a written answer, with what is missing left out).

Only ranks count: all predictions may shift together, or be stretched about their ranks, and the reward stays. So it
needs a reward of absolute scores beside it (see `scores`). Shape suffixes are those of `arrays` and `pairs`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from iqa_core.training.rewards.arrays import Floats, moments, opinions, predictions, shaped
from iqa_core.training.rewards.pairs import Alignment, LabelScales, comparable, mean_over_others

Preferences = Literal["hard", "soft"]
"""What people prefer: wholly the image of the higher opinion; or with the chance that follows from both spreads."""

EPSILON = 1e-6
"""Added to sums of variances, and to products of probabilities, before a division or a root."""
CHANCE = float(np.sqrt(0.5 + EPSILON) + np.sqrt(EPSILON))
"""Fidelity of equal predictions to a hard preference, .708107: a curve of fidelity begins here, not at 0."""


def fidelity(
    q_NKA: ArrayLike,
    y_NA: ArrayLike,
    d_N: ArrayLike,
    s_NA: ArrayLike | None = None,
    *,
    preferences: Preferences = "hard",
    alignment: Alignment = "within",
    variance_floor: float = 0.0,
    scales: LabelScales | None = None,
) -> Floats:
    """Mean fidelity of each rollout over the image's partners, (N, K, A), .002 to 1.001; NaN where there is none.

    An image has partners on an attribute where both have an opinion and two parsed rollouts or more; with soft
    preferences also a known spread. A rollout that was not parsed has NaN, and changes nothing for the others.

    variance_floor: lowest variance of an image's rollouts. Scores of two decimals are often all equal, and then the
    chance jumps from 0 to 1; .01 is a spread of .1.
    scales: of the data sets' training parts, for the alignment `standardised` alone.

    At least N x N x K x A evaluations of the normal distribution within one data set, 10 million for 512 images of 8
    rollouts and 5 attributes; memory is bounded. Raises ValueError on shapes and values as `predictions` and `opinions`
    do, on a negative floor, and on scales that are missing or not asked for.
    """
    q = predictions(q_NKA)
    people = opinions(q, y_NA, d_N, s_NA)
    if variance_floor < 0:
        raise ValueError(f"variance_floor is {variance_floor:g}; it is 0 or more")
    if (scales is not None) != (alignment == "standardised"):
        raise ValueError(f"alignment {alignment}: scales belong to `standardised`, which needs them, and to no other")
    if scales is not None:
        people = scales.standardised(people)
    reward_NKA = np.full(q.shape, np.nan)
    for attribute in range(q.shape[2]):
        mean_N, variance_N, count_N = moments(q[:, :, attribute])
        y_N = people.y_NA[:, attribute]
        s_N = people.s_NA[:, attribute] if preferences == "soft" else None
        is_usable_N = np.isfinite(y_N if s_N is None else y_N + s_N) & (count_N > 1)
        variance_N = np.maximum(variance_N, variance_floor)
        for images in comparable(is_usable_N, people.d_N, alignment):
            reward_NKA[images, :, attribute] = _among(
                q[images, :, attribute],
                mean_N[images],
                variance_N[images],
                y_N[images],
                None if s_N is None else s_N[images],
            )
    return reward_NKA


def over_attributes(reward_NKA: ArrayLike, weights_A: ArrayLike) -> Floats:
    """Weighted mean over the attributes that a rollout has a reward for, (N, K); NaN where it has none.

    The weights are those of these attributes made to sum to 1: a data set with opinions on one attribute is worth as
    much as one with opinions on all. Raises ValueError unless there is a weight for each, none below 0, one above.
    """
    reward = predictions(reward_NKA)
    weights = shaped("weights_A", weights_A, reward.shape[2:])
    if not (weights >= 0).all() or not weights.any():
        raise ValueError(f"weights_A is {weights.tolist()}; none is below 0, and one at least above")
    weights_NKA = np.where(np.isfinite(reward), weights, 0.0)
    total_NK = weights_NKA.sum(axis=2)
    sum_NK = (weights_NKA * np.nan_to_num(reward)).sum(axis=2)
    return np.where(total_NK > 0, sum_NK / np.where(total_NK > 0, total_NK, 1), np.nan)


def above_chance(fidelity: float) -> float:
    """Fidelity to hard preferences on a scale of its own: 0 for equal predictions, 1 for the right order, surely."""
    return (fidelity - CHANCE) / (1 - CHANCE)


def _among(q_MK: Floats, mean_M: Floats, variance_M: Floats, y_M: Floats, s_M: Floats | None) -> Floats:
    """Mean fidelity of each rollout over all images but its own, (M, K)."""

    def compare(block: slice) -> Floats:
        scale_BM = np.sqrt(variance_M[block, None] + variance_M + EPSILON)
        x_BKM = (q_MK[block, :, None] - mean_M) / scale_BM[:, None]
        y_BM = y_M[block, None] - y_M
        if s_M is None:
            return _to_hard(x_BKM, np.sign(y_BM))
        return _to_any(x_BKM, ndtr(y_BM / np.sqrt(s_M[block, None] ** 2 + s_M**2 + EPSILON))[:, None])

    return mean_over_others(compare, *q_MK.shape)


def _to_any(x: Floats, g: Floats | float) -> Floats:
    """sqrt(p g + e) + sqrt((1 - p)(1 - g) + e) for p = ndtr(x); best at p = g.

    1 - p is ndtr(-x), which has all its digits where p is nearly 1.
    """
    return np.sqrt(ndtr(x) * g + EPSILON) + np.sqrt(ndtr(-x) * (1 - g) + EPSILON)


def _to_hard(x_BKM: Floats, order_BM: Floats) -> Floats:
    """The same for preferences of 1 (order 1), 0 (order -1) and .5 (order 0), at half the cost but for the last."""
    found_BKM = np.sqrt(ndtr(x_BKM * order_BM[:, None]) + EPSILON) + np.sqrt(EPSILON)
    ties = np.nonzero(order_BM == 0)
    found_BKM[ties[0], :, ties[1]] = _to_any(x_BKM[ties[0], :, ties[1]], 0.5)
    return found_BKM
