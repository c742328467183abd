"""A step number -> samples and learning rate, the same for any number of workers.

Tests iqa_core/training/recipe.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.errors import CallerError
from iqa_core.training.recipe import Recipe
from iqa_core.training.schedule import Schedule


def schedule(samples: int = 37, **settings: object) -> Schedule:
    lengths = np.random.default_rng(0).integers(20, 200, samples).tolist()
    recipe = Recipe.model_validate({"global_batch": 8, "micro_batch": 2, "epochs": 3, **settings})
    return Schedule(recipe, lengths)


@given(samples=st.integers(1, 60), workers=st.sampled_from([1, 2, 4]), step=st.integers(0, 20))
def test_workers_take_together_what_one_takes_alone(samples: int, workers: int, step: int) -> None:
    plan = schedule(samples)
    alone = {tuple(piece) for piece in plan.micro_batches(step, 0, 1)}
    shared = [tuple(piece) for rank in range(workers) for piece in plan.micro_batches(step, rank, workers)]
    assert set(shared) == alone
    assert len(shared) == 4


def test_each_epoch_sees_each_sample_once() -> None:
    plan = schedule(37)
    taken = np.concatenate([plan.batch(step) for step in range(plan.steps)])
    assert plan.steps == 14
    for epoch in range(3):
        assert sorted(taken[epoch * 37 : (epoch + 1) * 37]) == list(range(37))


def test_a_turn_says_which_sample_in_which_epoch() -> None:
    plan = schedule(37)
    for step in range(plan.steps):
        turns = np.concatenate(plan.micro_turns(step, 0, 1))
        assert sorted(turns % 37) == sorted(plan.batch(step))
        assert set(turns // 37) == {place // 37 for place in range(8 * step, 8 * step + 8)}


def test_batches_are_those_of_the_seed() -> None:
    assert (schedule().batch(3) == schedule().batch(3)).all()
    assert (schedule().batch(3) != schedule(seed=1).batch(3)).any()


def test_samples_of_like_length_go_together() -> None:
    plan = schedule(400, global_batch=64)
    shuffled = [plan.tokens[i] for i in plan.batch(0)]
    unsorted = 1 - sum(shuffled) / sum(2 * max(pair) for pair in zip(shuffled[::2], shuffled[1::2], strict=True))
    assert plan.padding() < 0.05 < unsorted


def test_the_learning_rate_rises_then_falls_to_nearly_nothing() -> None:
    plan = schedule(400, warmup_ratio=0.1, learning_rate=1.0)
    rates = [plan.learning_rate(step) for step in range(plan.steps)]
    warm = rates.index(max(rates))
    assert plan.steps == 150
    assert warm == 14
    assert rates[warm] == 1
    assert rates[0] == pytest.approx(1 / 15)
    assert all(a >= b for a, b in zip(rates[warm:], rates[warm + 1 :], strict=False))
    assert rates[-1] < 0.001


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(CallerError, match="--global-batch 8 is no multiple of 3 workers x --micro-batch 2 = 6"):
        Recipe(global_batch=8, micro_batch=2).accumulation(3)


def test_the_defaults_are_those_of_sa_iqa() -> None:
    recipe = Recipe()
    assert recipe.accumulation(4) == 32
    assert (recipe.learning_rate, recipe.epochs, recipe.warmup_ratio, recipe.zero_stage) == (2e-5, 3, 0.03, 2)
    assert (recipe.vision, recipe.aligner, recipe.language) == ("frozen", "frozen", "full")
