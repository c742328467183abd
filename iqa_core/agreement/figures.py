"""Scores and people's opinions -> how well they agree, with 95 % intervals, and what to be wary of.

A score or an opinion that is NaN is a failed one: it is counted, and left out of every figure. A figure that is not
defined (a constant side, too few pairs) is None, never a number. Shape suffixes: N pairs, R raters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_core.agreement.logistic import Logistic, fit_logistic, refit
from iqa_core.agreement.measures import MIN_PAIRS, Floats, auc, kendall, pearson, spearman

RESAMPLES = 1000
FEW_PAIRS = 30
WEAK = 0.1
"""A correlation at or below this is flagged as near zero."""
APART = 0.1
"""PLCC and SRCC further apart than this are flagged."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its interval; all None where it is not defined."""

    value: float | None
    low: float | None
    """Percentile 2.5 over bootstrap resamples."""
    high: float | None
    """Percentile 97.5."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Scores against mean opinions."""

    scored: int
    """Pairs that the figures rest on."""
    failed: int
    """Pairs without a score."""
    plcc: Figure
    """Pearson's correlation of the raw scores."""
    plcc_fitted: Figure
    """The same after the scores went through a logistic with four parameters."""
    srcc: Figure
    """Spearman's rank correlation."""
    krcc: Figure
    """Kendall's tau-b."""
    rmse: Figure
    """Root mean square error after the fit, in units of the opinions."""
    mae: Figure
    """Mean absolute error after the fit."""
    is_fitted: bool
    """False: the fit failed, and the three figures "after the fit" are those of the raw scores."""
    flags: tuple[str, ...]
    """What a reader should know before quoting a figure."""


MEASURES = ("plcc", "plcc_fitted", "srcc", "krcc", "rmse", "mae")
"""Names of Agreement's figures."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two assessors on the same opinions: figures are first minus second."""

    pairs: int
    """Opinions that both have a score for."""
    plcc: Figure
    srcc: Figure
    first_ahead: float | None
    """Share of resamples in which the first has the higher SRCC."""


@dataclass(frozen=True, slots=True)
class HumanCeiling:
    """How well one rater agrees with the mean of the others: what a scorer as good as one person would reach."""

    images: int
    """Images that two raters or more have seen."""
    pairs: int
    """One per rater and image."""
    plcc: Figure
    srcc: Figure


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Whether the spread that an assessor reports says how wrong it is."""

    pairs: int
    srcc: Figure
    """Rank correlation of spread and absolute error: above 0 where unsure scores are worse ones."""
    within_one_spread: float | None
    """Share of opinions not further from the score than its spread; .68 for normal errors of that spread."""
    slope: float | None
    """Slope of absolute error against spread, through the origin, times sqrt(pi / 2): 1 for normal errors of that
    spread, above 1 where the assessor is too sure."""


def agreement(scores_N: ArrayLike, opinions_N: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Agreement:
    """All figures of one set of pairs; the same seed gives the same intervals.

    Raises ValueError when the two are not of one length.
    """
    (x_N, y_N), failed = _pairs(scores_N, opinions_N)
    fit = fit_logistic(x_N, y_N)
    values = _measures(x_N, y_N, fit)
    figures = bootstrapped(
        lambda picks: _measures(x_N[picks], y_N[picks], refit(x_N[picks], y_N[picks], fit)),
        values,
        len(x_N),
        resamples,
        seed,
    )
    by_name = dict(zip(MEASURES, figures, strict=True))
    flags = _flags(by_name, len(x_N), fit is not None)
    return Agreement(scored=len(x_N), failed=failed, is_fitted=fit is not None, flags=flags, **by_name)


def separation(
    scores_N: ArrayLike, opinions_N: ArrayLike, middle: float, resamples: int = RESAMPLES, seed: int = 0
) -> Figure:
    """`auc` with its interval. Raises ValueError when the two are not of one length."""
    (x_N, y_N), _ = _pairs(scores_N, opinions_N)
    whole = [auc(x_N, y_N, middle)]
    return bootstrapped(lambda picks: [auc(x_N[picks], y_N[picks], middle)], whole, len(x_N), resamples, seed)[0]


def agreement_by_dimension(
    pairs: Mapping[str, tuple[ArrayLike, ArrayLike]], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Agreement]:
    """Agreement per dimension, and `overall`: all dimensions' pairs put together (SA-IQA, arXiv 2512.05098).

    pairs: dimension -> scores and opinions. With one dimension there is no `overall`.
    """
    found = {name: agreement(scores, opinions, resamples, seed) for name, (scores, opinions) in pairs.items()}
    if len(pairs) > 1:
        scores, opinions = (np.concatenate([np.asarray(p[k], float) for p in pairs.values()]) for k in (0, 1))
        found["overall"] = agreement(scores, opinions, resamples, seed)
    return found


def compare(
    first_N: ArrayLike, second_N: ArrayLike, opinions_N: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Difference of two assessors by a paired bootstrap: both have the same resampled images, hard or easy.

    Raises ValueError when the three are not of one length.
    """
    (a_N, b_N, y_N), _ = _pairs(first_N, second_N, opinions_N)

    def differences(picks: NDArray[np.intp]) -> list[float]:
        a, b, y = a_N[picks], b_N[picks], y_N[picks]
        return [pearson(a, y) - pearson(b, y), spearman(a, y) - spearman(b, y)]

    samples = _resampled(differences, len(y_N), resamples, seed)
    plcc, srcc = _figures(differences(np.arange(len(y_N))), samples)
    finite = samples[np.isfinite(samples[:, 1]), 1] if len(samples) else samples
    ahead = float((finite > 0).mean() + (finite == 0).mean() / 2) if len(finite) else None
    return Comparison(len(y_N), plcc, srcc, ahead)


def human_ceiling(ratings: Sequence[Sequence[float]], resamples: int = RESAMPLES, seed: int = 0) -> HumanCeiling | None:
    """Agreement of each rater with the mean of the other raters of the same image; None where no image has two.

    ratings: one sequence of single ratings per image. Resampled by image, since the pairs of one belong together.
    """
    images = [np.asarray(row, float) for row in ratings if len(row) > 1]
    if not images:
        return None
    one_NR = np.full((len(images), max(map(len, images))), math.nan)
    others_NR = one_NR.copy()
    for n, row in enumerate(images):
        one_NR[n, : len(row)] = row
        others_NR[n, : len(row)] = (row.sum() - row) / (len(row) - 1)

    def measured(picks: NDArray[np.intp]) -> list[float]:
        one, others = one_NR[picks].ravel(), others_NR[picks].ravel()
        is_there = np.isfinite(one)
        return [pearson(one[is_there], others[is_there]), spearman(one[is_there], others[is_there])]

    plcc, srcc = bootstrapped(measured, measured(np.arange(len(images))), len(images), resamples, seed)
    return HumanCeiling(len(images), int(np.isfinite(one_NR).sum()), plcc, srcc)


def uncertainty(
    scores_N: ArrayLike, spreads_N: ArrayLike, opinions_N: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Uncertainty:
    """How well spread tells absolute error; scores, spreads and opinions are in one unit.

    Raises ValueError when the three are not of one length.
    """
    (x_N, s_N, y_N), _ = _pairs(scores_N, spreads_N, opinions_N)
    error_N = np.abs(x_N - y_N)

    def ranked(picks: NDArray[np.intp]) -> list[float]:
        return [spearman(s_N[picks], error_N[picks])]

    [srcc] = bootstrapped(ranked, ranked(np.arange(len(x_N))), len(x_N), resamples, seed)
    squares = float((s_N**2).sum())
    slope = float((error_N * s_N).sum()) / squares * math.sqrt(math.pi / 2) if squares else None
    return Uncertainty(len(x_N), srcc, float((error_N <= s_N).mean()) if len(x_N) else None, slope)


def bootstrapped(
    measured: Callable[[NDArray[np.intp]], list[float]], values: list[float], count: int, resamples: int, seed: int
) -> list[Figure]:
    """The values with their intervals, by what is measured on resamples of the indices of `count` images or pairs."""
    return _figures(values, _resampled(measured, count, resamples, seed))


def _measures(x_N: Floats, y_N: Floats, fit: Logistic | None) -> list[float]:
    if not len(x_N):
        return [math.nan] * len(MEASURES)
    fitted_N = x_N if fit is None else fit(x_N)
    error_N = fitted_N - y_N
    return [
        pearson(x_N, y_N),
        pearson(fitted_N, y_N),
        spearman(x_N, y_N),
        kendall(x_N, y_N),
        math.sqrt(float((error_N**2).mean())),
        float(np.abs(error_N).mean()),
    ]


def _pairs(*columns: ArrayLike) -> tuple[tuple[Floats, ...], int]:
    """The rows in which every column has a number, and how many have not."""
    arrays = tuple(np.asarray(column, dtype=np.float64).reshape(-1) for column in columns)
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(f"columns of {', '.join(str(len(array)) for array in arrays)} values cannot be compared")
    is_whole = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    return tuple(array[is_whole] for array in arrays), int((~is_whole).sum())


def _resampled(
    measured: Callable[[NDArray[np.intp]], list[float]], count: int, resamples: int, seed: int
) -> NDArray[np.float64]:
    """What is measured on resamples with replacement, one row each."""
    random = np.random.default_rng(seed)
    rows = [measured(random.integers(count, size=count)) for _ in range(resamples if count >= MIN_PAIRS else 0)]
    return np.asarray(rows, dtype=np.float64)


def _figures(values: list[float], samples: NDArray[np.float64]) -> list[Figure]:
    figures = []
    for k, value in enumerate(values):
        if not math.isfinite(value):
            figures.append(Figure(None, None, None))
            continue
        finite = samples[np.isfinite(samples[:, k]), k] if len(samples) else samples
        low, high = map(float, np.percentile(finite, [2.5, 97.5])) if len(finite) else (None, None)
        figures.append(Figure(value, low, high))
    return figures


def _flags(figures: Mapping[str, Figure], scored: int, is_fitted: bool) -> tuple[str, ...]:
    plcc, fitted, srcc = (figures[name].value for name in ("plcc", "plcc_fitted", "srcc"))
    flags = []
    if scored < FEW_PAIRS:
        flags.append(f"only {scored} pairs: intervals are rough")
    if plcc is None or srcc is None:
        flags.append("no correlation: too few pairs, or all scores or all opinions are equal")
        return tuple(flags)
    if not is_fitted:
        flags.append("the logistic could not be fitted: figures after the fit are those of the raw scores")
    if min(plcc, srcc) <= WEAK:
        flags.append(f"correlation near or below 0 (PLCC {plcc:.3f}, SRCC {srcc:.3f})")
    if plcc < 0 and fitted is not None and fitted > 0:
        flags.append("scores fall where opinions rise; the fit turned them round, so quote no fitted figure")
    if abs(plcc - srcc) > APART:
        flags.append(f"PLCC {plcc:.3f} and SRCC {srcc:.3f} are far apart: right order, wrong scale, or outliers")
    return tuple(flags)
