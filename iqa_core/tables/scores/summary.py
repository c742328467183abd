"""Score files -> counts, reasons and distributions of the whole table, in memory that does not grow with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns
from iqa_core.levels import bin_counts
from iqa_core.questions import LEVELS, ColumnScale
from iqa_core.records import RATING, ScoreRange
from iqa_core.tables.scores.columns import SCORED, counts_of

BINS = 4000
"""Of each histogram: a quantile on 1 to 5 is right within 0.001, on another range within a 4000th of it."""


@dataclass(slots=True)
class Distribution:
    """Scores of one dimension."""

    range: ScoreRange = RATING
    count: int = 0
    total: float = 0.0
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count these scores, shape (N,); all are finite."""
        self.count += len(values)
        self.total += float(values.sum(dtype=np.float64))
        self.histogram += bin_counts(values, self._edges)

    def mean(self) -> float | None:
        """None where nothing was scored."""
        return self.total / self.count if self.count else None

    def quantile(self, fraction: float) -> float | None:
        """Within one bin; None where nothing was scored."""
        if not self.count:
            return None
        index = int(np.searchsorted(np.cumsum(self.histogram), max(fraction * self.count, 1)))
        return float((self._edges[index] + self._edges[index + 1]) / 2)

    @property
    def _edges(self) -> NDArray[np.float64]:
        return np.linspace(self.range.low, self.range.high, BINS + 1)


@dataclass(slots=True)
class Summary:
    """Counts and distributions of a score table, added up chunk by chunk."""

    dimensions: Sequence[str]
    scales: Mapping[str, ColumnScale] = field(default_factory=dict)
    """Of dimensions that are not five levels worth 1 to 5."""
    chunks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Rejection code, or `scored` -> rows."""
    damage: list[str] = field(default_factory=list)
    """Damaged sources, each with the place of the damage as a reader found it."""
    distributions: dict[str, Distribution] = field(default_factory=dict)
    slots: SlotColumns = NO_SLOTS
    texts_cut: int = 0
    """Scored images of whose texts only the beginning was asked about."""
    answers: Counter[str] = field(default_factory=Counter)
    """How written answers were parsed: what came of them -> their number."""

    def columns(self) -> list[str]:
        """Columns of a score file that `add` needs."""
        return ["reason", *self.dimensions, "reward", *self.slots.that_may_be_cut]

    def add(self, rows: pa.Table, damage: str | None, answers: Mapping[str, int] = MappingProxyType({})) -> None:
        """Count a chunk's rows. damage: of its source, as the reader noted it; answers: how they were parsed."""
        self.chunks += 1
        self.answers.update(answers)
        self.counts.update(counts_of(rows))
        self.texts_cut += self.slots.num_cut(rows)
        if damage is not None:
            self.damage.append(damage)
        for name in (*self.dimensions, "reward"):
            values = rows.column(name).drop_null().to_numpy()
            distribution = self.distributions.setdefault(name, Distribution(self.scales.get(name, LEVELS).range))
            distribution.add(values[np.isfinite(values)])

    @property
    def images(self) -> int:
        return self.counts.total()

    @property
    def scored(self) -> int:
        return self.counts[SCORED]

    @property
    def rejected(self) -> int:
        return self.images - self.scored

    @property
    def reasons(self) -> Mapping[str, int]:
        """Rejection code -> rows, most frequent first."""
        return {reason: count for reason, count in self.counts.most_common() if reason != SCORED}

    def statistics(self) -> dict[str, dict[str, float | None]]:
        """Mean and quartiles by dimension, and of the reward."""
        return {
            name: {
                "mean": distribution.mean(),
                "q1": distribution.quantile(0.25),
                "median": distribution.quantile(0.5),
                "q3": distribution.quantile(0.75),
            }
            for name, distribution in self.distributions.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The table's part of run.json."""
        return {
            "images": self.images,
            "scored": self.scored,
            "rejected": self.rejected,
            "rejected_by_reason": dict(self.reasons),
            **({"texts_cut": self.texts_cut} if self.slots.columns else {}),
            **({"written_answers": dict(self.answers.most_common())} if self.answers else {}),
            "chunks": self.chunks,
            "damaged_sources": sorted(self.damage),
            "scores": self.statistics(),
        }
