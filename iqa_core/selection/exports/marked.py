"""Kept rows and their images' regions -> images with marked boxes, as tools of annotation want them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from iqa_core.grounding.boxes import Box
from iqa_core.selection.grounded import Place, places_of


@dataclass(frozen=True, slots=True)
class MarkedRegion:
    """A box, and what was said of it in one dimension."""

    dimension: str
    score: float
    box: Box
    """In pixels of the upright image."""
    area: float
    """Pixels of its mask, or of the box where it has none."""
    counts: str | None
    """The mask's runs, compressed as COCO has them."""
    method: str
    label: str | None
    """The user's, of a box that somebody brought."""
    box_id: str | None


@dataclass(frozen=True, slots=True)
class MarkedImage:
    """A kept image and its regions."""

    key: str
    source: str
    is_file: bool
    """Whether the source is the image itself, and not a tar or table that it lies in."""
    width: int
    height: int
    scores: Mapping[str, float]
    """Dimension -> score of the whole image."""
    regions: tuple[MarkedRegion, ...]


def marked(
    blocks: Iterable[pa.Table], regions: Mapping[Place, Iterable[Mapping[str, Any]]], dimensions: Iterable[str]
) -> Iterator[MarkedImage]:
    """Each kept image, with those of its regions that have a box. dimensions: whose scores are told."""
    names = [*dimensions]
    for block in blocks:
        columns = ["key", "source", "width", "height", "offset", "row", *names]
        for place, row in zip(places_of(block), block.select(columns).to_pylist(), strict=True):
            yield MarkedImage(
                row["key"],
                row["source"],
                row["offset"] is None and row["row"] is None,
                row["width"],
                row["height"],
                {name: row[name] for name in names},
                tuple(map(_region, regions.get(place, ()))),
            )


def _region(row: Mapping[str, Any]) -> MarkedRegion:
    box = Box(row["box_x"], row["box_y"], row["box_w"], row["box_h"])
    counts = None if row["mask"] is None else row["mask"]["counts"]
    return MarkedRegion(
        row["dimension"], row["score"], box, row["area"], counts, row["method"], row["label"], row["box_id"]
    )
