"""Rollouts and opinions -> how well differences are kept."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.training.rewards.margin import margin

Q = np.array([[3.0, 3.5], [4.0, 4.5], [2.0, np.nan]])[:, :, None]
Y = np.array([[3.0], [4.0], [2.5]])
D = [0, 0, 0]


def test_a_difference_is_held_against_the_true_one() -> None:
    [first] = margin(Q, Y, D)[:1, :, 0]
    errors = np.array([[3 - 4.25 + 1, 3 - 2 - 0.5], [3.5 - 4.25 + 1, 3.5 - 2 - 0.5]])
    np.testing.assert_allclose(first, np.exp(-(errors**2) / 2).mean(axis=1), atol=1e-6)


def test_raters_who_disagree_forgive_more() -> None:
    sure, unsure = (margin(Q, Y, D, np.full((3, 1), s), tolerance="sigma") for s in (0.2, 1.0))
    assert np.nanmax(sure) < np.nanmin(unsure)
    [first] = margin(Q, Y, D, np.full((3, 1), 0.5), tolerance="sigma")[:1, 0, 0]
    assert first == pytest.approx(np.exp(-np.array([0.25**2, 0.5**2])).mean(), abs=1e-5)  # 2 x (.5^2 + .5^2) = 1


def test_a_shift_of_all_predictions_is_not_seen_and_a_stretch_is() -> None:
    np.testing.assert_allclose(margin(Q - 0.5, Y, D), margin(Q, Y, D))
    assert np.nanmean(margin(Y[:, None], Y, D)) == 1
    assert np.nanmean(margin(2 * Y[:, None], Y, D)) < 0.8


def test_what_is_missing_has_no_reward() -> None:
    assert np.isnan(margin(Q, Y, D)[2, 1, 0])
    assert np.isnan(margin(Q, Y, [0, 1, 2])).all()
    assert np.isnan(margin(Q, Y, D, [[1.0], [1.0], [np.nan]], tolerance="sigma")[2]).all()


def test_opinions_of_another_scale_are_refused() -> None:
    with pytest.raises(ValueError, match="y_NA has 60, outside of 1 to 5"):
        margin(Q, Y * 20, D)
