"""Data sets and an epoch -> batches of images that may be compared."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.errors import CallerError
from iqa_core.training.ranking.sampler import DomainBatchSampler, require_ranks

SIZES = (40, 203, 11)


def labels(sizes: tuple[int, ...] = SIZES) -> Any:
    """Data sets of these sizes, whose images lie among one another."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@given(
    sizes=st.lists(st.integers(8, 60), min_size=1, max_size=4).map(tuple),
    epoch=st.integers(0, 5),
    repeat=st.integers(1, 4),
    again=st.integers(1, 3),
    alpha=st.floats(0, 1),
    mode=st.sampled_from(["homogeneous", "mixed"]),
)
@settings(max_examples=25)
def test_an_epoch_is_as_long_as_it_says_and_no_image_comes_twice(
    sizes: tuple[int, ...], epoch: int, repeat: int, again: int, alpha: float, mode: Any
) -> None:
    unique = 8 if mode == "homogeneous" else 4 * len(sizes)
    datasets = labels(sizes)
    sampler = DomainBatchSampler(datasets, unique, repeat, again, seed=3, mode=mode, alpha=alpha)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    batches = sampler.batches(epoch)
    assert len(drawn) == len(sampler)
    assert drawn == [i for batch in batches for _ in range(again) for i in batch for _ in range(repeat)]
    assert len(np.unique(batches)) == batches.size > 0
    for batch in batches:
        counts = np.bincount(datasets[batch], minlength=len(sizes)).tolist()
        assert sorted(counts) == sorted([8] + [0] * (len(sizes) - 1) if mode == "homogeneous" else [4] * len(sizes))


def test_each_index_comes_as_the_trainer_asks() -> None:
    sampler = DomainBatchSampler([0] * 6, unique=3, repeat=2, again=2)
    runs = [(index, len(list(run))) for index, run in groupby(sampler)]
    assert [count for _, count in runs] == [2] * 12
    assert [index for index, _ in runs[:3]] == [index for index, _ in runs[3:6]]
    assert {index for index, _ in runs} == set(range(6))


def test_the_rollouts_of_an_image_may_lie_on_two_workers() -> None:
    drawn = list(DomainBatchSampler([0] * 3, unique=3, repeat=4))
    first, second, third = drawn[0], drawn[4], drawn[8]
    assert [drawn[:6], drawn[6:]] == [[first] * 4 + [second] * 2, [second] * 2 + [third] * 4]  # 2 workers, 6 each


@pytest.mark.parametrize(
    ("alpha", "batches"),
    [
        (1, {0: 10, 1: 50, 2: 2}),  # all that they have, but for a remainder below 4
        (0.5, {0: 5, 1: 11, 2: 2}),  # by the root of 40, 203 and 11
        (0, {0: 2, 1: 2, 2: 2}),
    ],
)
def test_data_sets_are_drawn_by_a_power_of_their_size(alpha: float, batches: dict[int, int]) -> None:
    sampler = DomainBatchSampler(labels(), unique=4, repeat=1, alpha=alpha)
    of_sets = [int(labels()[batch[0]]) for batch in sampler.batches(0)]
    assert Counter(of_sets) == batches
    assert len(list(groupby(of_sets))) > 3 or alpha == 0  # not one data set after another


def test_an_epoch_has_its_own_order_whichever_came_before() -> None:
    first, resumed = (DomainBatchSampler(labels(), 4, 1, seed=5) for _ in range(2))
    orders = []
    for epoch in range(3):
        first.set_epoch(epoch)
        orders.append(list(first))
    resumed.set_epoch(2)
    assert list(resumed) == orders[2]
    assert orders[0] != orders[1] != orders[2]
    other = DomainBatchSampler(labels(), 4, 1, seed=6)
    assert list(other) != orders[0]


def test_how_often_each_image_was_used() -> None:
    sampler = DomainBatchSampler(labels(), unique=4, repeat=6, again=2, alpha=0.5)
    used = sampler.used(30)
    assert used.sum() == 30 * 18 * 4
    of_sets = [used[labels() == d] for d in range(3)]
    assert [int(of_set.sum()) for of_set in of_sets] == [30 * 5 * 4, 30 * 11 * 4, 30 * 2 * 4]
    assert all((of_set > 0).all() for of_set in of_sets)  # another part of the larger ones in each epoch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unique": 1}, "a batch of 1 images has nothing to rank"),
        ({"unique": 12}, "data set 2 has 11 images, and a batch takes 12 of it"),
        ({"unique": 36, "mode": "mixed"}, "data set 2 has 11 images, and a batch takes 12 of it"),
        ({"unique": 16, "mode": "mixed"}, r"takes 5\.33333 from each of 3 data sets; take a multiple of 3, 12 or more"),
        ({"unique": 9, "mode": "mixed"}, "takes 3 from each of 3 data sets"),
    ],
)
def test_batches_that_rank_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CallerError, match=message):
        DomainBatchSampler(labels(), repeat=2, **settings)


@pytest.mark.parametrize("settings", [{"repeat": 0}, {"again": 0}, {"alpha": 1.1}, {"alpha": -0.1}])
def test_numbers_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="alpha"):
        DomainBatchSampler([0, 0], **{"unique": 2, "repeat": 1, **settings})


def test_opinions_that_are_all_equal_rank_nothing() -> None:
    opinions = np.array([[1, 3.5], [2, 3], [3, 2], [3, np.nan]])
    require_ranks(opinions, [0, 0, 0, 0], ["quality", "noise"])
    require_ranks(np.full((3, 1), np.nan), [0, 0, 1], ["quality"])
    with pytest.raises(CallerError, match="the opinions of data set 1 on quality are all 3, which ranks nothing"):
        require_ranks(opinions, [0, 0, 1, 1], ["quality", "noise"])
