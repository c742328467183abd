"""Chunks of grounded images -> counts by status and reason, of dimensions and boxes, in memory that does not grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.tables.regions.columns import BOX
from iqa_core.tables.regions.nesting import GROUNDING, REGIONS
from iqa_core.tables.scores.columns import SCORED, counts_of
from iqa_core.tables.scores.summary import Distribution


@dataclass(slots=True)
class GroundingSummary:
    """Counts of the tables of one output."""

    dimensions: Sequence[str]
    has_boxes: bool
    """Whether a user brought boxes, which are counted then."""
    chunks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Rejection code, or `scored` -> images."""
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    """Dimension -> status -> images."""
    has_scores: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    """Source, key and id of a box that belongs to an image, or to several in one place -> whether it has scores."""
    damage: list[str] = field(default_factory=list)
    """Damaged sources, each with the place of the damage as a reader found it."""

    def columns(self) -> list[str]:
        """Columns that `add` needs."""
        return ["reason", GROUNDING, *(["source", "key", REGIONS] if self.has_boxes else [])]

    def add(self, rows: pa.Table, damage: str | None, answers: Mapping[str, int] = MappingProxyType({})) -> None:
        """Count a chunk's rows, one per image. answers: of written rubrics, which have no views."""
        self.chunks += 1
        self.counts.update(counts_of(rows))
        if damage is not None:
            self.damage.append(damage)
        said = pc.list_flatten(rows.column(GROUNDING))
        statuses = pc.struct_field(said, "status").to_pylist()
        for name, status in zip(pc.struct_field(said, "dimension").to_pylist(), statuses, strict=True):
            self.statuses.setdefault(name, Counter())[status] += 1
        if self.has_boxes:
            self._add_boxes(rows)

    def _add_boxes(self, rows: pa.Table) -> None:
        """Count boxes by their rows in the first dimension."""
        rows = rows.combine_chunks()
        regions = rows.column(REGIONS).combine_chunks()
        said = pc.list_flatten(regions)
        is_first = pc.equal(pc.struct_field(said, "dimension"), self.dimensions[0])
        is_own = pc.and_(is_first, pc.equal(pc.struct_field(said, "method"), BOX))
        own, images = said.filter(is_own), rows.take(pc.list_parent_indices(regions).filter(is_own))
        ids, reasons = (pc.struct_field(own, name).to_pylist() for name in ("box_id", "reason"))
        sources, keys = (images.column(name).to_pylist() for name in ("source", "key"))
        for *box, reason in zip(sources, keys, ids, reasons, strict=True):
            place = tuple(box)
            self.has_scores[place] = reason is None or self.has_scores.get(place, False)

    @property
    def boxes(self) -> int:
        """Boxes of the user's that belong to an image."""
        return len(self.has_scores)

    @property
    def boxes_failed(self) -> int:
        """Those of them without scores: of a failed image, or outside theirs."""
        return len(self.has_scores) - sum(self.has_scores.values())

    @property
    def images(self) -> int:
        return self.counts.total()

    @property
    def rejected(self) -> int:
        return self.images - self.counts[SCORED]

    @property
    def reasons(self) -> Mapping[str, int]:
        """Rejection code -> images, most frequent first."""
        return {reason: count for reason, count in self.counts.most_common() if reason != SCORED}

    @property
    def distributions(self) -> Mapping[str, Distribution]:
        """None: rewards are of whole images."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """The table's part of run.json."""
        return {
            "images": self.images,
            "grounded": self.counts[SCORED],
            "rejected": self.rejected,
            "rejected_by_reason": dict(self.reasons),
            **self.said_of_parts(),
            "chunks": self.chunks,
            "damaged_sources": sorted(self.damage),
        }

    def said_of_parts(self) -> dict[str, Any]:
        """What no score table has of it."""
        return {
            "statuses": {name: dict(counts.most_common()) for name, counts in self.statuses.items()},
            **({"boxes": self.boxes, "boxes_without_scores": self.boxes_failed} if self.has_boxes else {}),
        }
