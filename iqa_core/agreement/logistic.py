"""Scores and opinions -> the logistic from the ones to the others, the form in which the field fits them.

Shape suffix: N pairs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from iqa_core.agreement.measures import Floats

MAX_EVALUATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Logistic:
    """(b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2, the form in which the field fits scores to opinions."""

    b1: float
    b2: float
    b3: float
    b4: float

    def __call__(self, x_N: Floats) -> Floats:
        return np.asarray(_logistic(x_N, self.b1, self.b2, self.b3, self.b4))


def fit_logistic(x_N: Floats, y_N: Floats) -> Logistic | None:
    """The least-squares logistic from scores to opinions; None when MAX_EVALUATIONS evaluations do not find it.

    It starts from [max y, min y, mean x, std x / 4], as the field's code does (VQEG's 4-parameter form).
    """
    if len(x_N) < 5 or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return None
    start = Logistic(float(y_N.max()), float(y_N.min()), float(x_N.mean()), float(x_N.std()) / 4)
    return _fit(x_N, y_N, start, tolerance=1e-8)


def refit(x_N: Floats, y_N: Floats, whole: Logistic | None) -> Logistic | None:
    """The fit of a resample, begun where the whole sample's fit ended: 4 evaluations instead of 23.

    A resample that has no fit of its own after 200 takes that of the whole sample.
    """
    return None if whole is None else _fit(x_N, y_N, whole, tolerance=1e-6, evaluations=200) or whole


def _fit(
    x_N: Floats, y_N: Floats, start: Logistic, tolerance: float, evaluations: int = MAX_EVALUATIONS
) -> Logistic | None:
    """tolerance: relative change of squares and parameters at which the search ends."""
    from scipy.optimize import OptimizeWarning, curve_fit

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", OptimizeWarning)  # it warns about the covariance, which is not used
        try:
            found, _ = curve_fit(
                _logistic,
                x_N,
                y_N,
                p0=[start.b1, start.b2, start.b3, start.b4],
                jac=_slopes,
                maxfev=evaluations,
                ftol=tolerance,
                xtol=tolerance,
            )
        except (RuntimeError, ValueError):
            return None
        fit = Logistic(*map(float, found))
        fitted_N = fit(x_N)
    # a step far outside of the data maps every score to one value: that is no fit
    return fit if np.isfinite(fitted_N).all() and np.ptp(fitted_N) > 0 else None


def _logistic(x_N: Floats, b1: float, b2: float, b3: float, b4: float) -> Floats:
    return np.asarray((b1 - b2) * expit((x_N - b3) / b4) + b2)


def _slopes(x_N: Floats, b1: float, b2: float, b3: float, b4: float) -> Floats:
    """Derivatives of `_logistic` with respect to its parameters, (N, 4)."""
    rise_N = expit((x_N - b3) / b4)
    steep_N = (b1 - b2) * rise_N * (1 - rise_N) / b4
    return np.stack([rise_N, 1 - rise_N, -steep_N, -steep_N * (x_N - b3) / b4], axis=1)
