"""Scores and opinions -> rewards of the error: the published forms, to six digits."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from iqa_core.training.rewards.scores import WIDTHS, ScoreKind, ScoreReward, score_reward

ERRORS = [0, 0.1, 0.34, 0.35, 0.5, 1, 2, 4]
COSINE = ScoreReward()


@pytest.mark.parametrize(
    ("kind", "width", "wanted"),
    [
        ("threshold", None, [1, 1, 1, 0, 0, 0, 0, 0]),
        ("exponential", None, [1, 0.716531, 0.321958, 0.311403, 0.188876, 0.035674, 0.001273, 0.000002]),
        ("cosine", 4, [1, 0.998459, 0.982279, 0.981228, 0.961940, 0.853553, 0.5, 0]),
        ("cosine", 0.35, [1, 0.811745, 0.002013, 0, 0, 0, 0, 0]),
        ("cosine", 0.5, [1, 0.904508, 0.232087, 0.206107, 0, 0, 0, 0]),
        ("cosine", 1, [1, 0.975528, 0.740877, 0.726995, 0.5, 0, 0, 0]),
        ("cosine", None, [1, 0.993844, 0.930371, 0.926320, 0.853553, 0.5, 0, 0]),
        ("quarter-cosine", None, [1, 0.987688, 0.860742, 0.852640, 0.707107, 0, 0, 0]),
        ("plateau", None, [1, 1, 1, 1, 0.995839, 0.923770, 0.575028, 0]),
        ("gaussian", None, [1, 0.995012, 0.943839, 0.940588, 0.882497, 0.606531, 0.135335, 0.000335]),
    ],
)
def test_rewards_of_errors(kind: ScoreKind, width: float | None, wanted: list[float]) -> None:
    np.testing.assert_allclose(ScoreReward(kind=kind, width=width).of_errors(ERRORS), wanted, rtol=0, atol=6e-7)


@pytest.mark.parametrize("kind", WIDTHS)
def test_what_is_missing_stays_missing_and_more_error_is_never_worth_more(kind: ScoreKind) -> None:
    reward = ScoreReward(kind=kind)
    assert np.isnan(reward.of_errors([np.nan])).all()
    assert (np.diff(reward.of_errors(np.linspace(0, 4, 401))) <= 1e-12).all()
    with pytest.raises(ValueError, match="below 0"):
        reward.of_errors([0.1, -0.1])


@pytest.mark.parametrize("width", [0, -1, 4.1])
def test_a_width_lies_inside_the_scale(width: float) -> None:
    with pytest.raises(ValidationError):
        ScoreReward(width=width)


def test_each_rollout_is_held_against_its_image_and_attribute() -> None:
    q = np.array([[[3, 2], [4, np.nan]], [[5, 1], [4, 1]]])
    found = score_reward(q, [[3, 2.5], [np.nan, 1]], COSINE)
    wanted = [[[0, 0.5], [1, np.nan]], [[np.nan, 0], [np.nan, 0]]]
    np.testing.assert_allclose(found, COSINE.of_errors(wanted))


@pytest.mark.parametrize(("q", "y"), [(5.5, 3), (3, 0.5)])
def test_scores_and_opinions_are_on_one_scale(q: float, y: float) -> None:
    with pytest.raises(ValueError, match="outside of 1 to 5"):
        score_reward([[[q]]], [[y]], COSINE)


def test_another_rating_of_the_same_rollouts_may_be_the_target() -> None:
    found = score_reward([[[3.0], [2.0], [np.nan]]], [[[4.0], [2.0], [3.0]]], COSINE)
    np.testing.assert_allclose(found[0, :, 0], [0.5, 1, np.nan])
    with pytest.raises(ValueError, match="target has the shape"):
        score_reward([[[3.0]]], [[3.0, 3.0]], COSINE)
