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
    boxes: int = 0
    """Boxes of the user's that belong to an image."""
    boxes_failed: int = 0
    """Those of them without scores: of a failed image, or outside theirs."""
    damage: list[str] = field(default_factory=list)
    """Damaged sources, each with the place of the damage as a reader found it."""

    def columns(self) -> list[str]:
        """Columns that `add` needs."""
        return ["reason", GROUNDING, *([REGIONS] if self.has_boxes else [])]

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
            self._add_boxes(pc.list_flatten(rows.column(REGIONS)))

    def _add_boxes(self, regions: pa.ChunkedArray) -> None:
        """Count boxes by their rows in the first dimension."""
        is_first = pc.equal(pc.struct_field(regions, "dimension"), self.dimensions[0])
        is_own = pc.and_(is_first, pc.equal(pc.struct_field(regions, "method"), BOX))
        reasons = pc.struct_field(regions.filter(is_own), "reason")
        self.boxes += len(reasons)
        self.boxes_failed += len(reasons) - reasons.null_count

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
            "statuses": {name: dict(counts.most_common()) for name, counts in self.statuses.items()},
            **({"boxes": self.boxes, "boxes_without_scores": self.boxes_failed} if self.has_boxes else {}),
            "chunks": self.chunks,
            "damaged_sources": sorted(self.damage),
        }
