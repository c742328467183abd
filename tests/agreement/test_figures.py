"""Agreement with opinions: reference figures, intervals that hold, and what is not defined stays undefined.

Tests iqa_core/agreement/measures.py and iqa_core/agreement/logistic.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from iqa_core.agreement import auc, kendall, pearson, spearman
from iqa_core.agreement.figures import (
    Figure,
    agreement,
    agreement_by_dimension,
    compare,
    human_ceiling,
    separation,
    uncertainty,
)
from iqa_core.agreement.logistic import Logistic, fit_logistic
from iqa_core.agreement.measures import wilson

NOTHING = Figure(None, None, None)
X = np.array([1.2, 2, 2.9, 3.1, 3.8, 4.4, 4.6, 1.9])
Y = np.array([10, 22, 45, 40, 70, 85, 88, 25.0])


def noisy(count: int, noise: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and opinions in 1..5."""
    random = np.random.default_rng(seed)
    opinions = random.uniform(1, 5, count)
    return opinions + random.normal(0, noise, count), opinions


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def test_the_reference_figures_of_the_field() -> None:
    """Computed with SciPy from the definitions of VQEG's report; six digits."""
    found = agreement(X, Y, resamples=20)
    assert value(found.plcc) == pytest.approx(0.986052, abs=1e-6)
    assert value(found.plcc_fitted) == pytest.approx(0.992545, abs=1e-6)
    assert value(found.srcc) == pytest.approx(0.952381, abs=1e-6)
    assert value(found.krcc) == pytest.approx(0.857143, abs=1e-6)
    assert value(found.rmse) == pytest.approx(3.386019, abs=1e-6)
    assert (found.scored, found.failed, found.is_fitted) == (8, 0, True)


def test_ranks_of_which_one_pair_of_six_is_the_wrong_way_round() -> None:
    """Ranks 1, 2, 5, 3 (1 is best) against rewards .9, .1, -.5, .2: 5 of 6 pairs right, so tau is 4 / 6."""
    found = agreement([0.9, 0.1, -0.5, 0.2], [-1, -2, -5, -3], resamples=0)
    assert value(found.krcc) == pytest.approx(4 / 6)
    assert value(found.srcc) == pytest.approx(0.8)
    assert (found.krcc.low, found.krcc.high) == (None, None)


finite = st.floats(-100, 100).map(lambda number: round(number, 3))


@given(st.lists(st.tuples(finite, finite), min_size=3, max_size=40))
@settings(max_examples=60)
def test_correlations_are_scipys_ties_included(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(pearson(x, y))
        assert math.isnan(spearman(x, y))
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)


def test_ranks_do_not_see_the_scale_and_the_fit_undoes_it() -> None:
    x, y = noisy(200, 0.4)
    bent = np.exp(x)
    plain, other = agreement(x, y, resamples=0), agreement(bent, y, resamples=0)
    assert value(other.srcc) == pytest.approx(value(plain.srcc))
    assert value(other.krcc) == pytest.approx(value(plain.krcc))
    assert value(other.plcc) < value(plain.plcc) - 0.1
    assert value(other.plcc_fitted) > value(other.plcc) + 0.05


def test_a_logistic_is_found_again() -> None:
    x = np.linspace(-3, 3, 50)
    fit = fit_logistic(x, Logistic(5, 1, 0.3, 0.7)(x))
    assert fit is not None
    assert [fit.b1, fit.b2, fit.b3, fit.b4] == pytest.approx([5, 1, 0.3, 0.7], abs=1e-4)


@pytest.mark.parametrize("count", [4, 60])
def test_where_the_logistic_cannot_be_fitted_the_raw_scores_count_and_it_is_said(count: int) -> None:
    """Opinions that rise exponentially have no upper bound: the best logistic lies at infinity."""
    _, y = noisy(count, 0)
    found = agreement(np.log(y), y, resamples=10)
    assert not found.is_fitted
    assert found.plcc_fitted == found.plcc != NOTHING
    assert value(found.rmse) == pytest.approx(np.sqrt(np.mean((np.log(y) - y) ** 2)))
    assert any("could not be fitted" in flag for flag in found.flags)


def test_failed_scores_are_counted_and_left_out() -> None:
    x, y = noisy(50, 0.5)
    holes = x.copy()
    holes[[3, 17, 40]] = math.nan
    found, kept = agreement(holes, y, resamples=10), ~np.isnan(holes)
    assert (found.scored, found.failed) == (47, 3)
    assert found.srcc == agreement(x[kept], y[kept], resamples=10).srcc


@pytest.mark.parametrize("scores", [[3.0] * 40, [math.nan] * 40, [1.0, 2.0] + [math.nan] * 38])
def test_what_is_not_defined_is_none(scores: list[float]) -> None:
    found = agreement(scores, np.linspace(1, 5, 40), resamples=10)
    assert found.plcc == found.srcc == found.krcc == NOTHING
    assert any("no correlation" in flag for flag in found.flags)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: -x, "near or below 0"),
        (lambda x: -x, "the fit turned them round"),
        (lambda x: np.exp(2.5 * x), "far apart"),
        (lambda x: np.random.default_rng(5).permutation(x), "near or below 0"),
    ],
)
def test_a_reader_is_warned(change: Callable[[NDArray[np.float64]], NDArray[np.float64]], said: str) -> None:
    x, y = noisy(300, 0.3)
    assert any(said in flag for flag in agreement(change(x), y, resamples=0).flags)
    assert agreement(x, y, resamples=0).flags == ()
    assert agreement(x[:10], y[:10], resamples=0).flags == ("only 10 pairs: intervals are rough",)


def test_intervals_are_the_same_for_the_same_seed_and_narrow_with_the_count() -> None:
    x, y = noisy(60, 0.8)
    assert agreement(x, y, 20, seed=1) == agreement(x, y, 20, seed=1)
    assert agreement(x, y, 20, seed=1).srcc != agreement(x, y, 20, seed=2).srcc
    wide, narrow = (agreement(*noisy(n, 0.8), 40).srcc for n in (40, 640))
    assert all(figure.low is not None and figure.high is not None for figure in (wide, narrow))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2  # type: ignore[operator]


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Rank correlation of bivariate normals of r = .8 is 6 / pi asin(.4); 38 of 40 intervals of 95 % should hold it."""
    random = np.random.default_rng(3)
    truth, held = 6 / np.pi * np.arcsin(0.4), 0
    for seed in range(40):
        spreads, errors = np.exp(random.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=80)).T
        found = uncertainty(errors, spreads, np.zeros(80), 100, seed).srcc
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert held >= 33


def test_overall_is_all_pairs_together() -> None:
    x, y = noisy(60, 0.5)
    parts = {"layout": (x[:20], y[:20]), "harmony": (x[20:], y[20:])}
    found = agreement_by_dimension(parts, resamples=10)
    assert list(found) == ["layout", "harmony", "overall"]
    assert found["overall"] == agreement(x, y, resamples=10)
    assert list(agreement_by_dimension({"layout": (x, y)}, resamples=0)) == ["layout"]


def test_a_better_assessor_is_found_to_be_better() -> None:
    good, y = noisy(200, 0.3, seed=1)
    bad = y + np.random.default_rng(9).normal(0, 1.0, 200)
    found = compare(good, bad, y, 50)
    assert found.pairs == 200
    assert found.srcc.low is not None
    assert found.srcc.low > 0
    assert found.first_ahead == 1
    same = compare(good, good, y, 50)
    assert (same.srcc, same.first_ahead) == (Figure(0, 0, 0), 0.5)
    swapped = compare(bad, good, y, 50)
    assert value(swapped.plcc) == pytest.approx(-value(found.plcc))


def test_a_pair_counts_only_where_both_have_a_score() -> None:
    x, y = noisy(30, 0.3)
    holes = x.copy()
    holes[:5] = math.nan
    assert compare(holes, x, y, 10).pairs == 25


def test_the_human_ceiling_is_one_rater_against_the_mean_of_the_others() -> None:
    found = human_ceiling([(1, 2, 3), (4, 5), (3,), (), (2, 2, 5)], resamples=20)
    assert found is not None
    one = [1, 2, 3, 4, 5, 2, 2, 5]
    others = [2.5, 2, 1.5, 5, 4, 3.5, 3.5, 2]
    assert (found.images, found.pairs) == (3, 8)
    assert value(found.plcc) == pytest.approx(np.corrcoef(one, others)[0, 1])
    assert value(found.srcc) == pytest.approx(stats.spearmanr(one, others).statistic)
    assert human_ceiling([(3,), ()]) is None


def test_raters_who_agree_have_a_high_ceiling() -> None:
    random = np.random.default_rng(4)
    truths = random.uniform(1, 5, 200)
    close, far = (
        human_ceiling([tuple(truth + random.normal(0, noise, 3)) for truth in truths], 50) for noise in (0.2, 1.5)
    )
    assert close is not None
    assert far is not None
    assert close.srcc.low is not None
    assert value(close.srcc) > close.srcc.low > 0.9 > value(far.srcc)


def test_a_spread_that_is_the_error_is_calibrated() -> None:
    random = np.random.default_rng(6)
    spreads = random.uniform(0.2, 1.2, 4000)
    opinions = random.uniform(1, 5, 4000)
    found = uncertainty(opinions + random.normal(0, spreads), spreads, opinions, 20)
    assert found.within_one_spread == pytest.approx(0.683, abs=0.03)
    assert found.slope == pytest.approx(1, abs=0.05)
    assert value(found.srcc) > 0.3
    sure = uncertainty(opinions + random.normal(0, spreads), spreads / 3, opinions, 5)
    assert sure.slope == pytest.approx(3, abs=0.2)


def test_a_spread_that_is_always_zero_has_no_slope() -> None:
    found = uncertainty([1, 2, 3], [0, 0, 0], [1, 2, 4], 5)
    assert (found.slope, found.srcc) == (None, NOTHING)
    assert found.within_one_spread == pytest.approx(2 / 3)


def test_columns_of_different_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="3, 2 values"):
        agreement([1, 2, 3], [1, 2])


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(5)
    scores, opinions = random.integers(0, 6, 60) / 2.0, random.choice([1.0, 2.5, 3.0, 5.0], 60)
    pairs = [(x, y) for x in scores[opinions > 3] for y in scores[opinions < 3]]
    wanted = np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x, y in pairs])
    assert auc(scores, opinions, 3.0) == pytest.approx(wanted)
    assert math.isnan(auc(scores, np.full(60, 5.0), 3.0)), "nobody says no"
    found = separation([*scores, math.nan], [*opinions, 5.0], 3.0, resamples=50)
    assert found.value == pytest.approx(wanted), "a failed score is left out"
    assert found.low is not None
    assert found.high is not None
    assert found.low < wanted < found.high


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [(30, 100, (0.218949, 0.395849)), (61, 300, (0.161674, 0.252494)), (1, 9, (0.019891, 0.434999)), (0, 0, (0, 1))],
)
def test_a_rate_has_wilsons_interval(hits: int, trials: int, expected: tuple[float, float]) -> None:
    assert wilson(hits, trials) == pytest.approx(expected, abs=1e-6)
