"""Two columns of numbers, such as scores and people's opinions -> one figure of how well they go together.

Shape suffix: N pairs. A figure that is not defined is NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_PAIRS = 3
"""Below it no correlation is given: two points always lie on a line."""


def pearson(x_N: Floats, y_N: Floats) -> float:
    """Product-moment correlation; NaN where a side is constant or there are fewer than MIN_PAIRS."""
    if len(x_N) < MIN_PAIRS:
        return math.nan
    x, y = x_N - x_N.mean(), y_N - y_N.mean()
    scale = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    # a constant side leaves rounding errors of its mean, some 1e-16 of it
    is_constant = np.ptp(x_N) == 0 or np.ptp(y_N) == 0 or scale == 0
    return math.nan if is_constant else float((x * y).sum()) / scale


def spearman(x_N: Floats, y_N: Floats) -> float:
    """Correlation of ranks, ties at their mean rank; NaN as in `pearson`."""
    return pearson(_ranks(x_N), _ranks(y_N))


def kendall(x_N: Floats, y_N: Floats) -> float:
    """Tau-b; NaN as in `pearson`."""
    from scipy.stats import kendalltau  # a second to import, of which training and scoring have no use

    return float(kendalltau(x_N, y_N).statistic) if len(x_N) >= MIN_PAIRS else math.nan


def auc(scores_N: Floats, opinions_N: Floats, middle: float) -> float:
    """Share of pairs of an opinion above the middle and one below in which scores are in the same order; ties half.

    NaN where there are none on a side. An opinion at the middle is left out.
    """
    is_above_N, is_below_N = opinions_N > middle, opinions_N < middle
    above, below = int(is_above_N.sum()), int(is_below_N.sum())
    if not above or not below:
        return math.nan
    is_either_N = is_above_N | is_below_N
    ranks = _ranks(scores_N[is_either_N])[is_above_N[is_either_N]]  # Mann and Whitney's U from the sum of ranks
    return (float(ranks.sum()) - above * (above + 1) / 2) / (above * below)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a rate of hits, by Wilson's score; (0, 1) without trials.

    Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if not trials:
        return 0.0, 1.0
    z = 1.959964
    rate, wider = hits / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / wider
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / wider
    return middle - half, middle + half


def _ranks(values_N: Floats) -> Floats:
    """1 to N, ties at their mean; SciPy's own takes three times as long for the few hundred values of a resample."""
    _, places_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return np.asarray(counts.cumsum() - (counts - 1) / 2)[places_N]
