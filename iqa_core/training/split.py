"""Samples or opinions -> a training and a validation part that share no image (and no group)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion

SplitBy = Literal["image", "group"]


def split(opinions: Sequence[Opinion], fraction: float, by: SplitBy, seed: int) -> tuple[list[Opinion], list[Opinion]]:
    """Training and validation opinions, in order; `fraction` of the images (or groups) go to validation.

    Which ones depends on their names and the seed alone, not on the order of the rows.
    Raises CallerError when a part is empty, or an opinion has no group to split by.
    """
    keys = [_key(opinion, by) for opinion in opinions]
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    chosen = set(ordered[: round(fraction * len(ordered))])
    parts = [
        [opinion for opinion, key in zip(opinions, keys, strict=True) if (key in chosen) == wanted]
        for wanted in (False, True)
    ]
    if not all(parts):
        empty = "validation" if not parts[1] else "training"
        raise CallerError(
            f"the {empty} part is empty: {len(set(keys))} {by}s at --validation-fraction {fraction:g}; "
            "give more data, another fraction, or --validation"
        )
    return parts[0], parts[1]


def require_disjoint(train: Sequence[Opinion], validation: Sequence[Opinion]) -> None:
    """Raises CallerError when an image is in both parts: validation would measure what was memorised."""
    shared = {opinion.path for opinion in train} & {opinion.path for opinion in validation}
    if shared:
        raise CallerError(
            f"{len(shared)} images are in --train and in --validation, {min(shared)} among them; "
            "a validation part has images of its own"
        )


def _key(opinion: Opinion, by: SplitBy) -> str:
    if by == "image":
        return f"{opinion.dataset}\0{opinion.image}"
    if opinion.group is None:
        raise CallerError(f"--split-by group: {opinion.image} of {opinion.dataset} has no group")
    return f"{opinion.dataset}\0{opinion.group}"
