"""Preferences -> weights: those that made the preferences are found again, and judging follows its conventions."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.errors import CallerError
from iqa_core.preferences.bradley_terry import fit_weights, judge, splits, tie_threshold
from iqa_core.preferences.pairs import pairs_of_ranking


def made(count: int, weights: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Differences, and preferences drawn from the model itself."""
    random = np.random.default_rng(seed)
    differences = random.normal(size=(count, len(weights)))
    chance = 1 / (1 + np.exp(-differences @ np.asarray(weights)))
    return differences, (random.random(count) < chance).astype(float)


def test_weights_that_made_the_preferences_are_found_again() -> None:
    found = fit_weights(*made(20_000, [2.0, 1.0, 0.5, 0.0]))
    np.testing.assert_allclose(found, [2, 1, 0.5, 0], atol=0.1)


def test_weights_are_not_negative_unless_they_may_be() -> None:
    data = made(5000, [1.0, -0.5])
    assert fit_weights(*data)[1] == 0
    assert fit_weights(*data, signed=True)[1] == pytest.approx(-0.5, abs=0.1)


def test_a_tie_is_half_a_win_each() -> None:
    differences, shares = np.array([[1.0], [1.0], [1.0], [1.0]]), np.array([1, 1, 0.5, 0.5])
    doubled = fit_weights(np.repeat(differences, 2, axis=0), np.array([1, 1, 1, 1, 1, 0, 1, 0.0]))
    np.testing.assert_allclose(fit_weights(differences, shares), doubled, atol=1e-4)


def test_scores_that_say_the_opposite_are_no_weights() -> None:
    with pytest.raises(CallerError, match="preferred images do not score higher"):
        fit_weights(np.array([[-1.0], [-2.0]]), np.array([1.0, 1.0]))


def test_five_of_six_pairs_of_the_known_ranking_are_right() -> None:
    rewards = {"a": 0.9, "b": 0.1, "c": -0.5, "d": 0.2}
    pairs = list(pairs_of_ranking(list(rewards), [1, 2, 5, 3], "prompt"))
    margins = np.array([rewards[pair.first] - rewards[pair.second] for pair in pairs])
    found = judge(margins, np.array([pair.share for pair in pairs]), 0.0)
    assert found.pairs == 6
    assert found.ties_wrong == pytest.approx(5 / 6)


def test_equal_rewards_are_wrong_or_half_right_by_convention() -> None:
    found = judge(np.array([1.0, 0.0, -1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.5]), 0.0)
    assert found.pairs == 3
    assert [found.ties_wrong, found.ties_half] == pytest.approx([2 / 3, 2.5 / 3])
    assert found.three_way == pytest.approx(3 / 4), "a tie that is called one is right"
    assert found.low <= found.ties_wrong <= found.high


def test_the_tie_threshold_lies_between_ties_and_wins() -> None:
    margins = np.array([0.1, -0.05, 0.02, 2.0, -3.0, 1.5])
    shares = np.array([0.5, 0.5, 0.5, 1.0, 0.0, 1.0])
    assert 0.1 <= tie_threshold(margins, shares) < 1.5


def test_splits_keep_groups_whole_and_repeat() -> None:
    groups = [str(n // 4) for n in range(400)]
    found = splits(groups, 200, 60, 3, seed=1)
    for fit, held in found:
        assert not {groups[i] for i in fit} & {groups[i] for i in held}
        assert (len(fit), len(held)) == (200, 60)
    assert all((a[0] == b[0]).all() for a, b in zip(found, splits(groups, 200, 60, 3, seed=1), strict=True))
    with pytest.raises(CallerError, match="1 groups cannot be split"):
        splits(["a"] * 10, 5, 5, 1, seed=0)
