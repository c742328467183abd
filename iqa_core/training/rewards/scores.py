"""What rollouts say and what people think -> how near each score is to the opinion, whatever the other images get.

It is the anchor of a ranking reward, which does not see the scale, and the reward of a rating that a judge made from
the rollout's own caption (self-consistency). Errors are in points of the scale 1 to 5. Shape suffixes are those of
`arrays`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from iqa_core.records import RATING
from iqa_core.training.rewards.arrays import Floats, predictions, rated, shaped

ScoreKind = Literal["threshold", "exponential", "cosine", "quarter-cosine", "plateau", "gaussian"]

WIDTHS: dict[ScoreKind, float] = {
    "threshold": 0.35,  # Q-Insight, arXiv 2503.22679
    "exponential": 0.3,  # Q-Hawkeye, arXiv 2601.22920
    "cosine": 2.0,
    "quarter-cosine": 1.0,
    "plateau": 0.35,
    "gaussian": 1.0,  # MR-IQA's limit for one image, arXiv 2606.29760
}
"""Width of each kind where none is given."""


class ScoreReward(BaseModel):
    """A reward of the error of one score, 1 where it is right, and never below 0."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: ScoreKind = "cosine"
    """With e the error and t the width. threshold: 1 below t, else 0. exponential: exp(-e / t). cosine: half a period,
    from 1 at 0 to 0 at t and beyond. quarter-cosine: a quarter of a period, likewise. plateau: 1 up to t, then half a
    period to 0 at the whole scale's width. gaussian: exp(-e^2 / 2 t^2)."""
    width: float | None = Field(default=None, gt=0, le=RATING.width)
    """In points; None is the kind's own: .35, .3, 2, 1, .35, 1. A cosine of 4 falls over the whole scale, but is nearly
    flat about 0, where .1 point costs .0015."""

    @property
    def t(self) -> float:
        """The width, in points."""
        return WIDTHS[self.kind] if self.width is None else self.width

    def of_errors(self, errors: ArrayLike) -> Floats:
        """Reward of each error, 0 to 1, of the same shape; NaN for NaN. Raises ValueError on an error below 0."""
        e = np.asarray(errors, dtype=np.float64)
        if (e < 0).any():
            raise ValueError(f"an error of {np.nanmin(e):g} is below 0; give absolute errors")
        if self.kind == "threshold":
            return np.where(np.isnan(e), np.nan, e < self.t)
        if self.kind == "exponential":
            return np.exp(-e / self.t)
        if self.kind == "gaussian":
            return np.exp(-((e / self.t) ** 2) / 2)
        if self.kind == "quarter-cosine":
            return np.cos(np.pi / 2 * np.minimum(e / self.t, 1))
        if self.kind == "plateau":
            return _half_cosine(np.maximum(e - self.t, 0) / (RATING.width - self.t))
        return _half_cosine(e / self.t)


def score_reward(q_NKA: ArrayLike, target: ArrayLike, kind: ScoreReward) -> Floats:
    """Reward of each rollout's score on each attribute, (N, K, A); NaN where score or target is.

    target: people's opinions (N, A), or another rating of each rollout (N, K, A), such as what a judge reads from its
    caption alone. Raises ValueError on shapes and values as `predictions` and `shaped` do, and outside of 1 to 5.
    """
    q = rated("q_NKA", predictions(q_NKA))
    shape = q.shape if np.ndim(target) == q.ndim else (len(q), q.shape[2])
    wanted = rated("target", shaped("target", target, shape))
    return kind.of_errors(np.abs(q - (wanted if wanted.ndim == q.ndim else wanted[:, None])))


def _half_cosine(progress: Floats) -> Floats:
    """1 at 0, 0 at 1 and beyond."""
    return 0.5 * (1 + np.cos(np.pi * np.minimum(progress, 1)))
