"""Rewards -> their sum and its advantages: what is missing, what is floored, and which comes first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from iqa_core.training.rewards.composition import Composition, advantages, composed, filled, group_std
from iqa_core.training.rewards.fidelity import fidelity

NAN = float("nan")
THREE_IMAGES = np.array(
    [[3, 3.2, 3.4, 3.1, 2.9, 3.3], [4, 4.2, 3.8, 4.1, 4, 3.9], [2, 2.5, 1.5, 2.2, 2.1, 1.9]], dtype=float
)


def of_three_images() -> Any:
    return fidelity(THREE_IMAGES[:, :, None], [[3.2], [3.9], [2.4]], [0, 0, 0])[:, :, 0]


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=6e-7)


def test_a_floor_keeps_noise_from_becoming_the_gradient() -> None:
    reward = of_three_images()
    std = group_std(reward)
    same(std, [0.000949, 0.000272, 0.004381])
    unfloored = advantages(reward, "none") / (std[:, None] + 1e-4)  # as trl divides
    same(unfloored[0], [-0.212706, 0.796307, -0.155463, 0.505990, -1.628173, 0.694044])
    same(unfloored[1], [0.328883, 0.423774, -1.451413, 0.409147, 0.328883, -0.039273])
    same(unfloored[2], [0.448625, -1.978223, 0.520346, 0.162961, 0.354979, 0.491312])
    floored = advantages(reward)
    same(floored[0], [-0.004463, 0.016707, -0.003262, 0.010616, -0.034161, 0.014562])
    same(floored[2], [0.040209, -0.177303, 0.046637, 0.014606, 0.031816, 0.044035])
    assert np.abs(floored[1]).max() < 0.011


def test_what_a_rollout_lacks_is_worth_nothing_and_what_an_image_lacks_is_left_out() -> None:
    reward = np.array([[0.9, NAN, 0.7], [NAN, NAN, NAN]])
    np.testing.assert_array_equal(filled(reward), [[0.9, 0, 0.7], [NAN] * 3])
    found = composed(
        {"fidelity": reward, "form": [[1, 0, 1], [1, 0, 1]]},
        Composition(weights={"fidelity": 1, "form": 0.5}, scaling="none"),
    )
    same(found.reward_NK, [[1.4, 0, 1.2], [0.5, 0, 0.5]])
    same(found.advantage_NK, [[8 / 15, -13 / 15, 5 / 15], [1 / 6, -2 / 6, 1 / 6]])


@pytest.mark.parametrize("aggregation", ["sum_then_normalise", "normalise_then_sum"])
def test_an_image_without_any_reward_teaches_nothing(aggregation: Any) -> None:
    rewards = {"fidelity": [[0.9, 0.7], [NAN, NAN]], "seen": [[1.0, 0.0], [1.0, 0.0]]}
    found = composed(rewards, Composition(weights={"fidelity": 1, "seen": 0}, aggregation=aggregation))
    np.testing.assert_array_equal(found.reward_NK, [[0.9, 0.7], [NAN, NAN]])
    same(found.advantage_NK, [[np.sqrt(0.5), -np.sqrt(0.5)], [0, 0]])
    assert np.isnan(found.std_N).tolist() == [False, True]


def test_in_a_sum_the_wider_reward_leads_and_normalised_first_both_count_alike() -> None:
    rewards = {"wide": [[0.0, 1.0, 0.0, 1.0]], "narrow": [[0.3, 0.2, 0.1, 0.0]]}
    weights = {"wide": 1.0, "narrow": 1.0}
    summed = composed(rewards, Composition(weights=weights, std_floor=0.001)).advantage_NK[0]
    apart = composed(rewards, Composition(weights=weights, std_floor=0.001, aggregation="normalise_then_sum"))
    assert np.sign(summed).tolist() == [-1, 1, -1, 1]
    alone = [advantages(np.array(reward), std_floor=0.001) for reward in rewards.values()]
    wanted = alone[0] + alone[1]
    same(apart.advantage_NK, (wanted - wanted.mean()) / wanted.std(ddof=1))
    assert np.sign(apart.advantage_NK).tolist() == [[1, 1, -1, -1]]


def test_scaling_by_the_batch_keeps_how_far_groups_are_spread() -> None:
    reward = np.array([[0.0, 1.0], [0.4, 0.6]])
    same(np.ptp(advantages(reward, "group"), axis=1), [np.sqrt(2), np.sqrt(2)])
    same(np.ptp(advantages(reward, "batch"), axis=1), np.array([1, 0.2]) / reward.std(ddof=1))
    same(np.ptp(advantages(reward, "none"), axis=1), [1, 0.2])


@given(value=st.floats(-10, 10), rollouts=st.integers(1, 9))
def test_a_dead_group_is_exactly_dead(value: float, rollouts: int) -> None:
    reward = np.full((1, rollouts), value)
    assert group_std(reward).tolist() == [0]
    assert not advantages(reward).any()


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5))
def test_what_all_rollouts_of_an_image_share_cancels(seed: int, shift: float) -> None:
    reward = np.random.default_rng(seed).random((3, 5))
    np.testing.assert_allclose(advantages(reward + shift), advantages(reward), atol=1e-9)
    np.testing.assert_allclose(advantages(reward).sum(axis=1), 0, atol=1e-9)


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": 1, "b": -1}, {"a": float("nan")}])
def test_weights_are_positive(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Composition(weights=weights)


def test_rewards_and_weights_have_the_same_names_and_shapes() -> None:
    composition = Composition(weights={"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"rewards are \['a'\], and weights of \['a', 'b'\]"):
        composed({"a": [[1.0]]}, composition)
    for flat in (np.zeros(2), np.zeros((1, 0))):
        with pytest.raises(ValueError, match="neither of them 0"):
            composed({"a": flat, "b": flat}, composition)
    with pytest.raises(ValueError, match="b has the shape"):
        composed({"a": [[1.0, 2.0]], "b": [[1.0]]}, composition)
