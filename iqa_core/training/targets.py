"""A mean opinion and its spread -> probabilities of the five levels that a model is trained towards.

All targets are (5,) float64, worst to best, and sum to 1. Mean and standard deviation are on the 1..5 scale.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from iqa_core.errors import CallerError
from iqa_core.records import FIVE_LEVELS

TargetKind = Literal["hard", "linear", "gaussian", "gaussian-cdf"]
Target = NDArray[np.float64]

NARROW_STD = 0.2
"""Standard deviation below which a density sampled at whole numbers does not show where between them the mean is."""
MAX_MEAN_SHIFT = 0.1
"""Largest distance of the corrected density's mean from the opinion; beyond it the linear target is used."""

_LEVELS = np.asarray(FIVE_LEVELS.levels, dtype=np.float64)


def level_target(kind: TargetKind, mos: float, std: float | None) -> Target:
    """The target of one opinion. Raises CallerError when a Gaussian target is asked for and `std` is None."""
    if kind == "hard":
        return hard_target(mos)
    if kind == "linear":
        return linear_target(mos)
    if std is None:
        raise CallerError(
            f"{kind} targets need the standard deviation of every opinion, and one of {mos:g} has none; "
            "use --targets linear"
        )
    return gaussian_target(mos, std, "cdf" if kind == "gaussian-cdf" else "pdf")


def hard_target(mos: float) -> Target:
    """Probability 1 for the nearest level."""
    return np.eye(FIVE_LEVELS.num_levels)[FIVE_LEVELS.nearest(mos)]


def linear_target(mos: float) -> Target:
    """Probabilities of the two neighbouring levels with the opinion as their mean: 3.6 -> .4 fair, .6 good."""
    return np.maximum(1 - np.abs(_LEVELS - mos), 0.0)


def gaussian_target(mos: float, std: float, density: Literal["pdf", "cdf"] = "pdf") -> Target:
    """A normal distribution over the levels, corrected linearly to keep its mean (DeQA-Score, arXiv 2501.11561).

    density: the normal density at each level (pdf), or its mass within half a level of it (cdf). Negative probabilities
    become 0, and the rest is rescaled to sum to 1. The linear target is used where the standard deviation is below .2,
    or the mean is off by more than .1.
    """
    if std < NARROW_STD:
        return linear_target(mos)
    found = _corrected(_density(mos, std, density), mos)
    found = found / found.sum()
    return linear_target(mos) if abs(float(found @ _LEVELS) - mos) > MAX_MEAN_SHIFT else found


def _density(mos: float, std: float, density: Literal["pdf", "cdf"]) -> Target:
    if density == "pdf":
        return np.exp(-(((_LEVELS - mos) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    edges = np.append(_LEVELS - 0.5, _LEVELS[-1] + 0.5)
    mass = np.array([0.5 * (1 + math.erf((edge - mos) / (std * math.sqrt(2)))) for edge in edges])
    return np.diff(mass)


def _corrected(raw: Target, mos: float) -> Target:
    """alpha raw + beta with the opinion as its mean, negative values set to 0; its sum may be above 1."""
    total, first = float(raw.sum()), float(raw @ _LEVELS)
    middle = FIVE_LEVELS.middle
    skew = first - middle * total
    alpha = 1 / total if abs(skew) < 1e-6 else (mos - middle) / skew
    beta = (1 - alpha * total) / len(_LEVELS)
    return np.maximum(alpha * raw + beta, 0.0)
