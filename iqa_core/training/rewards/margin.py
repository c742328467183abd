"""What rollouts say and what people think -> how well each rollout keeps the distances to the other images.

Ranking and scale in one reward: predicted and true difference of two images, on 1 to 5, are held against each other
(MR-IQA, arXiv 2606.29760). Shape suffixes are those of `arrays` and `pairs`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from iqa_core.training.rewards.arrays import Floats, moments, opinions, predictions, rated
from iqa_core.training.rewards.pairs import comparable, mean_over_others

Tolerance = Literal["unit", "sigma"]
"""What a wrong difference is divided by: 1 point; or the standard deviation of the difference of two opinions."""

EPSILON = 1e-6
"""Added to the variance of a difference, so that raters who all agree leave a tolerance of .001 points."""


def margin(
    q_NKA: ArrayLike, y_NA: ArrayLike, d_N: ArrayLike, s_NA: ArrayLike | None = None, *, tolerance: Tolerance = "unit"
) -> Floats:
    """Mean of exp(-z^2 / 2) over an image's partners, z being the error of the difference, (N, K, A), 0 to 1.

    Partners are images of one data set that have an opinion and one parsed rollout or more; with `sigma` also a known
    spread. NaN where there is none, and for a rollout that was not parsed.
    Raises ValueError on shapes and values as `predictions` and `opinions` do, and on opinions outside of 1 to 5.
    """
    q = predictions(q_NKA)
    people = opinions(q, y_NA, d_N, s_NA)
    rated("y_NA", people.y_NA)
    reward_NKA = np.full(q.shape, np.nan)
    for attribute in range(q.shape[2]):
        mean_N, _, count_N = moments(q[:, :, attribute])
        y_N = people.y_NA[:, attribute]
        variance_N = people.s_NA[:, attribute] ** 2 if tolerance == "sigma" else np.full(len(q), 0.5)
        is_usable_N = np.isfinite(y_N + variance_N) & (count_N > 0)
        for images in comparable(is_usable_N, people.d_N, "within"):
            reward_NKA[images, :, attribute] = _among(
                q[images, :, attribute], mean_N[images], y_N[images], variance_N[images]
            )
    return reward_NKA


def _among(q_MK: Floats, mean_M: Floats, y_M: Floats, variance_M: Floats) -> Floats:
    """Mean reward of each rollout over all images but its own, (M, K)."""

    def compare(block: slice) -> Floats:
        error_BKM = (q_MK[block, :, None] - mean_M) - (y_M[block, None] - y_M)[:, None]
        return np.exp(-(error_BKM**2) / (2 * (variance_M[block, None] + variance_M + EPSILON))[:, None])

    return mean_over_others(compare, *q_MK.shape)
