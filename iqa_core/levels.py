"""Logits of the five level words -> probabilities -> expected score and spread on the 1..5 scale; bins over a scale.

Shape suffixes: L levels (5, worst to best), K dimensions of the rubric, N any leading shape (images, or images and K).
Q-Align (arXiv 2312.17090), section 3; SA-IQA (arXiv 2512.05098).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_core.records import FIVE_LEVELS, Assessment, RatingScale, Reason, Rejection

SCORING_VERSION = 1
"""Part of the fingerprint; raised by hand when the same checkpoint, rubric and image would get another score."""

SUM_TOLERANCE = 1e-4
"""How far probabilities may be from 1 in sum: five float32 roundings are below 1e-6, bfloat16 ones are not accepted."""

_LEVELS_L = np.asarray(FIVE_LEVELS.levels, dtype=np.float64)


def level_probabilities(logits_NL: ArrayLike) -> NDArray[np.float32]:
    """Softmax over the five level words, in float64, shape as given; each row sums to 1.

    Raises ValueError on a logit that is not finite or a last axis that is not 5 long: a probability is never guessed.
    """
    logits = _levels_last(logits_NL)
    if not np.isfinite(logits).all():
        raise ValueError("a level logit is not finite")
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def expected_score(probs_NL: ArrayLike) -> NDArray[np.float32]:
    """Mean opinion on the 1..5 scale, shape N; higher is better.

    Raises ValueError on a row that is not a distribution: a score is never guessed.
    """
    return _mean(_distribution(probs_NL)).astype(np.float32)


def score_std(probs_NL: ArrayLike) -> NDArray[np.float32]:
    """Standard deviation of the level distribution in score units, shape N, 0 to 2.

    Raises ValueError on a row that is not a distribution.
    """
    probs = _distribution(probs_NL)
    distance = _LEVELS_L - _mean(probs)[..., None]
    return np.sqrt((probs * distance**2).sum(axis=-1)).astype(np.float32)


def assessments_of(logits_NKL: ArrayLike) -> list[Assessment | Rejection]:
    """Level logits (N, K, L) -> an assessment per image; `assessor_failed` where a logit is not finite.

    A batch at a time: for a single image, nearly all of 0.1 ms goes into calling numpy.
    Raises ValueError when the array has other axes, or another number of levels.
    """
    logits = _levels_last(logits_NKL)
    if logits.ndim != 3:
        raise ValueError(f"images, dimensions and levels are expected; shape is {logits.shape}")
    sound_N = np.asarray(np.isfinite(logits).all(axis=(1, 2)))
    probs_NKL = level_probabilities(logits[sound_N])
    sound = zip(expected_score(probs_NKL), score_std(probs_NKL), probs_NKL, strict=True)
    failed = Rejection(Reason.ASSESSOR_FAILED, "the model returned a level logit that is not finite")
    return [Assessment(*next(sound)) if is_sound else failed for is_sound in sound_N]


def assessment_of(logits_KL: ArrayLike) -> Assessment | Rejection:
    """Level logits (K, L) of one image -> its assessment, as in `assessments_of`."""
    return assessments_of(_levels_last(logits_KL)[None])[0]


def bin_edges(scale: RatingScale, per_level: int) -> NDArray[np.float64]:
    """Edges of equal bins over a scale, so many from one level to the next: shape (bins + 1,), ascending."""
    return np.linspace(scale.worst, scale.best, (scale.best - scale.worst) * per_level + 1)


def bin_counts(values_N: NDArray[np.floating], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values fall into each bin, shape (bins,); a value beyond an end counts in the bin at that end."""
    return np.histogram(np.clip(values_N, float(edges[0]), float(edges[-1])), edges)[0]


def _levels_last(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != FIVE_LEVELS.num_levels:
        raise ValueError(
            f"last axis must hold the {FIVE_LEVELS.num_levels} levels, worst to best; shape is {array.shape}"
        )
    return array


def _distribution(probs_NL: ArrayLike) -> NDArray[np.float64]:
    probs = _levels_last(probs_NL)
    totals = probs.sum(axis=-1, keepdims=True)
    if not ((probs >= 0).all() and (np.abs(totals - 1) <= SUM_TOLERANCE).all()):
        raise ValueError("a row of level probabilities is negative, not finite, or does not sum to 1")
    return probs / totals


def _mean(probs_NL: NDArray[np.float64]) -> NDArray[np.float64]:
    # Not a matrix product: BLAS may sum in another order for another batch size.
    return (probs_NL * _LEVELS_L).sum(axis=-1)


REWARD_BOUNDS: tuple[float, ...] = tuple(bin_edges(FIVE_LEVELS, per_level=5)[1:].round(1).tolist())
"""Upper bounds of a reward's bins, 1.2, 1.4, … 5.0: Prometheus' buckets, of a job and of the endpoint."""
