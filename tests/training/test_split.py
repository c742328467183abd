"""Opinions -> two parts that share no image and no group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.training.samples import TrainingSample
from iqa_core.training.split import require_disjoint, split, split_texts

DIMENSIONS = ("layout", "harmony")


def opinions(count: int, groups: int | None = None) -> list[Opinion]:
    return [
        Opinion(
            image=f"{n}.png",
            path=Path(f"/data/{n}.png"),
            dimension=dimension,
            mos=3,
            dataset="a",
            group=None if groups is None else str(n % groups),
        )
        for n in range(count)
        for dimension in DIMENSIONS
    ]


def test_an_image_lies_whole_in_one_part() -> None:
    train, validation = split(opinions(200), 0.2, "image", seed=0)
    require_disjoint([row.path for row in train], [row.path for row in validation])
    assert len(train) + len(validation) == 400
    assert len(validation) == 2 * 40


def test_an_image_of_two_data_sets_lies_whole_in_one_part() -> None:
    """Each file by itself would draw its own parts."""
    one, other = opinions(200), [replace(opinion, dataset="b", dimension="quality") for opinion in opinions(200)]
    train, validation = split([*one, *other], 0.2, "image", seed=0)
    require_disjoint([row.path for row in train], [row.path for row in validation])
    assert [row for row in validation if row.dataset == "a"] == split(one, 0.2, "image", seed=0)[1]


def test_a_group_lies_whole_in_one_part() -> None:
    train, validation = split(opinions(200, groups=10), 0.3, "group", seed=1)
    assert not {opinion.group for opinion in train} & {opinion.group for opinion in validation}


def test_the_order_of_rows_does_not_matter() -> None:
    _, forwards = split(opinions(50), 0.3, "image", seed=0)
    _, backwards = split(opinions(50)[::-1], 0.3, "image", seed=0)
    assert set(forwards) == set(backwards)


def test_another_seed_chooses_other_images() -> None:
    assert split(opinions(50), 0.3, "image", seed=0) != split(opinions(50), 0.3, "image", seed=1)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(CallerError, match="the validation part is empty: 1 images"):
        split(opinions(1), 0.001, "image", seed=0)


def test_opinions_without_a_group_cannot_be_split_by_it() -> None:
    with pytest.raises(CallerError, match=r"0.png of a has no group"):
        split(opinions(3), 0.5, "group", seed=0)


def test_an_image_in_both_parts_is_refused() -> None:
    with pytest.raises(CallerError, match="3 images are in --train and in --validation"):
        require_disjoint([row.path for row in opinions(5)], [row.path for row in opinions(3)])


def test_all_answers_about_an_image_are_in_one_part() -> None:
    samples = [TrainingSample(Path(f"{n}.png"), query, "!", "d") for query in "ab" for n in range(40)]
    train, validation = split_texts(samples, 0.25, seed=0)
    require_disjoint([sample.image for sample in train], [sample.image for sample in validation])
    assert (len(train), len(validation)) == (60, 20)
