"""Numbers of a batch -> arrays of one shape, or what is wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iqa_core.training.rewards.arrays import moments, opinions, predictions, rated

Q = np.full((3, 2, 1), 3.0)


@pytest.mark.parametrize("values", [[3.0], [[3.0]], np.zeros((2, 0, 1)), np.zeros((1, 1, 1, 1))])
def test_predictions_have_three_axes(values: Any) -> None:
    with pytest.raises(ValueError, match="images, rollouts, attributes"):
        predictions(values)


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ({"y_NA": [[1], [2]]}, r"y_NA has the shape \(2, 1\); here it is \(3, 1\)"),
        ({"y_NA": [[1], [2], [np.inf]]}, "y_NA has an infinite number"),
        ({"s_NA": [[1], [2]]}, "s_NA has the shape"),
        ({"s_NA": [[1], [np.nan], [-0.5]]}, "standard deviation -0.5"),
        ({"d_N": [0, 1]}, "d_N is int64 of the shape"),
        ({"d_N": [0, 1, 0.5]}, "d_N is float64"),
    ],
)
def test_opinions_fit_the_predictions(people: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opinions(Q, **{"y_NA": [[1], [2], [3]], "d_N": [0, 0, 0], **people})


def test_a_score_outside_of_the_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"q has 5\.1, outside of 1 to 5"):
        rated("q", np.array([1.0, np.nan, 5.1]))


def test_moments_are_those_of_what_was_parsed() -> None:
    mean, variance, count = moments(np.array([[1, 2, np.nan], [4, np.nan, np.nan], [np.nan] * 3]))
    np.testing.assert_array_equal(mean, [1.5, 4, np.nan])
    np.testing.assert_array_equal(variance, [0.5, np.nan, np.nan])
    assert count.tolist() == [2, 1, 0]
