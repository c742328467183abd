"""Opinions -> level targets: the published vectors, and what holds for every opinion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.errors import CallerError
from iqa_core.questions import LEVELS
from iqa_core.records import FIVE_LEVELS, AnswerScale, ScoreRange
from iqa_core.training import targets
from iqa_core.training.targets import gaussian_target, hard_target, level_target, linear_target, rated_worths

OPINIONS = st.floats(1, 5)
SPREADS = st.floats(0, 2)


@pytest.mark.parametrize(
    ("mos", "std", "best_to_worst"),
    [
        (3.6, 0.55, [0.030121, 0.555811, 0.399875, 0.012335, 0.001858]),
        (4.8, 0.4, [0.843078, 0.135364, 0.007211, 0.007173, 0.007173]),
        (1.1, 0.3, [0.008891, 0.008891, 0.008891, 0.019982, 0.953345]),
    ],
)
def test_gaussian_targets_are_those_of_deqa_score(mos: float, std: float, best_to_worst: list[float]) -> None:
    np.testing.assert_allclose(gaussian_target(mos, std)[::-1], best_to_worst, atol=1e-6)


def test_the_cumulative_form_is_renormalised_after_it_was_cut_off() -> None:
    raw = targets._corrected(targets._density(4.8, 0.4, "cdf"), 4.8)
    np.testing.assert_allclose(raw[::-1], [0.775648, 0.236222, 0, 0, 0], atol=1e-6)
    assert raw.sum() == pytest.approx(1.011869, abs=1e-6)
    np.testing.assert_allclose(gaussian_target(4.8, 0.4, "cdf"), raw / raw.sum())


def test_linear_targets_lie_on_the_two_neighbours() -> None:
    np.testing.assert_allclose(linear_target(3.6), [0, 0, 0.4, 0.6, 0], atol=1e-12)


@pytest.mark.parametrize(("mos", "level"), [(1.0, 0), (1.49, 0), (1.5, 1), (2.5, 2), (3.6, 3), (4.5, 4), (5.0, 4)])
def test_hard_targets_are_the_nearest_level_and_halves_go_up(mos: float, level: int) -> None:
    assert FIVE_LEVELS.nearest(mos) == level
    assert hard_target(mos).tolist() == [float(k == level) for k in range(5)]


@given(mos=OPINIONS, std=SPREADS, kind=st.sampled_from(["hard", "linear", "gaussian", "gaussian-cdf"]))
def test_every_target_is_a_distribution(mos: float, std: float, kind: targets.TargetKind) -> None:
    target = level_target(kind, mos, std)
    assert (target >= 0).all()
    assert target.sum() == pytest.approx(1)


@given(mos=OPINIONS, std=SPREADS)
def test_soft_targets_keep_the_opinion(mos: float, std: float) -> None:
    assert linear_target(mos) @ np.array(FIVE_LEVELS.levels) == pytest.approx(mos)
    assert gaussian_target(mos, std) @ np.array(FIVE_LEVELS.levels) == pytest.approx(mos, abs=0.1 + 1e-9)


def test_opinions_without_a_spread_have_no_gaussian_target() -> None:
    with pytest.raises(CallerError, match="--targets linear"):
        level_target("gaussian", 3.2, None)


@pytest.mark.parametrize(
    ("worths", "ends", "rated"),
    [
        (LEVELS.worths, (1, 5), [1, 2, 3, 4, 5]),
        ((0, 1), (0, 1), [1, 5]),
        ((10, 5.5, 1), (10, 1), [1, 3, 5]),
        ((2, 4), (0, 4), [3, 5]),
    ],
)
def test_worths_are_brought_to_the_scale_of_opinions(
    worths: tuple[float, ...], ends: tuple[float, float], rated: list[float]
) -> None:
    scale = AnswerScale(tuple(map(str, worths)), worths, ScoreRange(*ends))
    assert rated_worths(scale).tolist() == rated


@given(
    mos=OPINIONS,
    std=SPREADS,
    kind=st.sampled_from(["hard", "linear", "gaussian", "gaussian-cdf"]),
    worths=st.lists(st.sampled_from(np.linspace(1, 5, 41).tolist()), min_size=2, max_size=20, unique=True).map(sorted),
)
def test_targets_over_any_answers_are_distributions_that_keep_the_opinion(
    mos: float, std: float, kind: targets.TargetKind, worths: list[float]
) -> None:
    worths_A = np.array(worths)
    target = level_target(kind, mos, std, worths_A)
    assert (target >= 0).all()
    assert target.sum() == pytest.approx(1)
    within = min(max(mos, worths[0]), worths[-1])
    if kind == "linear":
        assert target @ worths_A == pytest.approx(within)
        assert np.count_nonzero(target) <= 2
    if kind == "hard":
        assert abs(worths_A[target.argmax()] - mos) == pytest.approx(np.abs(worths_A - mos).min())
    if kind.startswith("gaussian"):
        assert target @ worths_A == pytest.approx(within, abs=0.1 + 1e-9)
