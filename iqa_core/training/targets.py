"""A mean opinion and its spread -> probabilities of the answers that a model is trained towards.

All targets are (A,) float64, worst to best, and sum to 1. Mean and standard deviation are on the 1..5 scale, and so are
the worths of the A answers, ascending: those of five levels, or of another range brought there (see `rated_worths`).
Targets by name want worths that differ; `level_target` takes any.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iqa_core.errors import CallerError
from iqa_core.fusion import Curve
from iqa_core.questions import LEVELS
from iqa_core.records import AnswerScale

TargetKind = Literal["hard", "linear", "gaussian", "gaussian-cdf"]
Target = NDArray[np.float64]

NARROW_STD = 0.2
"""Standard deviation below which a density sampled at the worths does not show where between them the mean is."""
MAX_MEAN_SHIFT = 0.1
"""Largest distance of the corrected density's mean from the opinion; beyond it the linear target is used."""

_LEVELS = np.asarray(LEVELS.worths)


def rated_worths(scale: AnswerScale) -> Target:
    """What each answer is worth on 1 (worst) to 5 (best), shape (A,), ascending."""
    return Curve.between_ends(scale.range)(np.asarray(scale.worths))


def nearest_answer(mos: float, worths_A: Target = _LEVELS) -> int:
    """Index of the answer that is nearest to an opinion; of two as near the better one."""
    return len(worths_A) - 1 - int(np.abs(worths_A[::-1] - mos).argmin())


def level_target(kind: TargetKind, mos: float, std: float | None, worths_A: Target = _LEVELS) -> Target:
    """The target of one opinion; answers of one worth share its probability equally.

    Raises CallerError when a Gaussian target is asked for and `std` is None.
    """
    worths, places_A, counts = np.unique(worths_A, return_inverse=True, return_counts=True)
    return (_target(kind, mos, std, worths) / counts)[places_A]


def _target(kind: TargetKind, mos: float, std: float | None, worths_A: Target) -> Target:
    """The same where all worths differ."""
    if kind == "hard":
        return hard_target(mos, worths_A)
    if kind == "linear":
        return linear_target(mos, worths_A)
    if std is None:
        raise CallerError(
            f"{kind} targets need the standard deviation of every opinion, and one of {mos:g} has none; "
            "use --targets linear"
        )
    return gaussian_target(mos, std, "cdf" if kind == "gaussian-cdf" else "pdf", worths_A)


def hard_target(mos: float, worths_A: Target = _LEVELS) -> Target:
    """Probability 1 for the nearest answer."""
    return np.eye(len(worths_A))[nearest_answer(mos, worths_A)]


def linear_target(mos: float, worths_A: Target = _LEVELS) -> Target:
    """Probabilities of the two neighbouring answers with the opinion as their mean: 3.6 -> .4 fair, .6 good.

    An opinion beyond all worths gives the answer at that end probability 1.
    """
    mean = min(max(mos, worths_A[0]), worths_A[-1])
    above = max(int(np.searchsorted(worths_A, mean)), 1)
    pair = slice(above - 1, above + 1)
    target = np.zeros(len(worths_A))
    target[pair] = 1 - np.abs(worths_A[pair] - mean) / (worths_A[above] - worths_A[above - 1])
    return target


def gaussian_target(
    mos: float, std: float, density: Literal["pdf", "cdf"] = "pdf", worths_A: Target = _LEVELS
) -> Target:
    """A normal distribution over the answers, corrected linearly to keep its mean (DeQA-Score, arXiv 2501.11561).

    density: the normal density at each worth (pdf), or its mass up to halfway to the next worths (cdf). Negative
    probabilities become 0, and the rest is rescaled to sum to 1. The linear target is used where the standard deviation
    is below .2, or the mean is off by more than .1.
    """
    raw = _density(mos, std, density, worths_A) if std >= NARROW_STD else np.zeros(0)
    if not raw.any():  # also where all worths are too far away for a density above 0
        return linear_target(mos, worths_A)
    found = _corrected(raw, mos, worths_A)
    found = found / found.sum()
    return linear_target(mos, worths_A) if abs(float(found @ worths_A) - mos) > MAX_MEAN_SHIFT else found


def _density(mos: float, std: float, density: Literal["pdf", "cdf"], worths_A: Target = _LEVELS) -> Target:
    if density == "pdf":
        return np.exp(-(((worths_A - mos) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    halves = np.diff(worths_A) / 2
    edges = [worths_A[0] - halves[0], *(worths_A[:-1] + halves), worths_A[-1] + halves[-1]]
    mass = np.array([0.5 * (1 + math.erf((edge - mos) / (std * math.sqrt(2)))) for edge in edges])
    return np.diff(mass)


def _corrected(raw: Target, mos: float, worths_A: Target = _LEVELS) -> Target:
    """alpha raw + beta with the opinion as its mean, negative values set to 0; its sum may be above 1."""
    total, first = float(raw.sum()), float(raw @ worths_A)
    middle = float(worths_A.mean())
    skew = first - middle * total
    alpha = 1 / total if abs(skew) < 1e-6 else (mos - middle) / skew
    beta = (1 - alpha * total) / len(worths_A)
    return np.maximum(alpha * raw + beta, 0.0)
