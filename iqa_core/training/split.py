"""Samples or opinions -> a training and a validation part that share no image (and no group)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.training.samples import TrainingSample

SplitBy = Literal["image", "group"]
Row = TypeVar("Row")


def split(opinions: Sequence[Opinion], fraction: float, by: SplitBy, seed: int) -> tuple[list[Opinion], list[Opinion]]:
    """Training and validation opinions, in order; `fraction` of the images (or groups) go to validation.

    Which ones depends on their names and the seed alone, not on the order of the rows. An image of several data sets
    goes with the first that has it.
    Raises CallerError when a part is empty, or an opinion has no group to split by.
    """
    first: dict[Path, Opinion] = {}
    for opinion in opinions:
        first.setdefault(opinion.path, opinion)
    return _parts(opinions, [_key(first[opinion.path], by) for opinion in opinions], fraction, by, seed)


def split_texts(
    samples: Sequence[TrainingSample], fraction: float, seed: int
) -> tuple[list[TrainingSample], list[TrainingSample]]:
    """The same of samples, by their images; all answers about an image are in one part, whatever they answer."""
    return _parts(samples, [sample.image.name for sample in samples], fraction, "image", seed)


def _parts(
    rows: Sequence[Row], keys: Sequence[str], fraction: float, by: SplitBy, seed: int
) -> tuple[list[Row], list[Row]]:
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    chosen = set(ordered[: round(fraction * len(ordered))])
    train, validation = (
        [row for row, key in zip(rows, keys, strict=True) if (key in chosen) == wanted] for wanted in (False, True)
    )
    if not train or not validation:
        empty = "training" if validation else "validation"
        raise CallerError(
            f"the {empty} part is empty: {len(ordered)} {by}s at --validation-fraction {fraction:g}; "
            "give more data, another fraction, or --validation"
        )
    return train, validation


def require_disjoint(train: Iterable[Path], validation: Iterable[Path], given: str = "--train") -> None:
    """Raises CallerError when an image is in both parts: validation would measure what was memorised.

    given: the flag of the first.
    """
    shared = set(train) & set(validation)
    if shared:
        raise CallerError(
            f"{len(shared)} images are in {given} and in --validation, {min(shared)} among them; "
            "a validation part has images of its own"
        )


def _key(opinion: Opinion, by: SplitBy) -> str:
    if by == "image":
        return f"{opinion.dataset}\0{opinion.image}"
    if opinion.group is None:
        raise CallerError(f"--split-by group: {opinion.image} of {opinion.dataset} has no group")
    return f"{opinion.dataset}\0{opinion.group}"
