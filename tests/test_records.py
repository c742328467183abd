"""The rating scale: its levels, its ends, the level that is nearest to a value; and scores of other ranges on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.records import FIVE_LEVELS, RATING, RatingScale, ScoreRange


def test_five_levels_are_worth_1_to_5() -> None:
    assert FIVE_LEVELS.levels == (1, 2, 3, 4, 5)
    assert (FIVE_LEVELS.worst, FIVE_LEVELS.middle, FIVE_LEVELS.best, FIVE_LEVELS.max_std) == (1, 3, 5, 2)


@pytest.mark.parametrize(("num_levels", "shown"), [(2, "0.5"), (3, "1"), (4, "1.5"), (5, "2")])
def test_the_largest_spread_is_whole_where_it_can_be(num_levels: int, shown: str) -> None:
    assert str(RatingScale(num_levels).max_std) == shown


@given(st.integers(2, 12).map(RatingScale), st.floats(-20, 20))
def test_the_nearest_level_is_no_further_than_any_other(scale: RatingScale, value: float) -> None:
    nearest = abs(scale.levels[scale.nearest(value)] - value)
    assert nearest == pytest.approx(min(abs(level - value) for level in scale.levels))


ENDS = st.tuples(*[st.integers(-100, 100)] * 2).filter(lambda ends: ends[0] != ends[1])


@given(ENDS.map(lambda ends: ScoreRange(*ends)), st.floats(0, 1), st.floats(0, 1))
def test_scores_of_any_range_come_to_1_to_5(own: ScoreRange, one: float, other: float) -> None:
    scores = [own.worst + (own.best - own.worst) * share for share in (one, other)]
    ratings = [own.rating(score) for score in scores]
    assert ratings == pytest.approx([1 + 4 * one, 1 + 4 * other])
    assert abs(ratings[0] - ratings[1]) == pytest.approx(own.points(abs(scores[0] - scores[1])), abs=1e-12)
    assert (own.rating(own.worst), own.rating(own.best)) == (1, 5)
    np.testing.assert_array_equal(own.rating(np.array(scores)), ratings)
    assert (own.inside(own.low - 1), own.inside(scores[0]), own.inside(own.high + 1)) == (own.low, scores[0], own.high)


def test_a_rating_of_1_to_5_keeps_its_bits() -> None:
    assert RATING.rating(3.3) == 3.3
