"""The rating scale: its levels, its ends, and the level that is nearest to a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.records import FIVE_LEVELS, RatingScale


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
