"""Rows of a grounding table -> what a report shows of one dimension, in memory that does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iqa_core.corpus.originals import LOCATOR
from iqa_core.records import ScoreRange
from iqa_core.tables.regions.columns import Status

COLUMNS = ["key", *LOCATOR, "width", "height", "score", "status", "cell_scores"]
"""Columns of the table that `add` needs, beside `dimension`."""


@dataclass(slots=True)
class LocalScores:
    """Counts of one dimension, and its worst images; fed block by block."""

    name: str
    range: ScoreRange
    cells: int
    """Along each side of an image."""
    sheet_images: int
    """Worst images that are kept."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Status -> images."""
    worst: NDArray[np.int64] = field(init=False)
    """How often each cell is the worst of its image, (rows, columns)."""
    sheet: list[Mapping[str, Any]] = field(default_factory=list)
    """Rows of the worst images by the score of the whole, the worst in front."""
    _totals: NDArray[np.float64] = field(init=False)
    _num_scored: int = 0

    def __post_init__(self) -> None:
        self.worst = np.zeros((self.cells, self.cells), np.int64)
        self._totals = np.zeros((self.cells, self.cells))

    def add(self, rows: pa.Table) -> None:
        """Take in rows of this dimension, with COLUMNS."""
        statuses = rows.column("status").to_pylist()
        self.statuses.update(statuses)
        cells = rows.column("cell_scores").to_pylist()
        scored = [i for i, scores in enumerate(cells) if scores]
        if not scored:
            return
        cells_NC = np.asarray([cells[i] for i in scored])
        self._totals += cells_NC.sum(axis=0).reshape(self._totals.shape)
        self._num_scored += len(scored)
        is_located = np.array([statuses[i] == Status.LOCATED for i in scored])
        places = self.worst_of(cells_NC)[is_located]
        self.worst += np.bincount(places, minlength=self.cells**2).reshape(self.worst.shape)
        found = rows.select(COLUMNS).take(pa.array(scored)).to_pylist()
        self.sheet = sorted([*self.sheet, *found], key=lambda row: self.range.rating(row["score"]))[: self.sheet_images]

    def worst_of(self, cells_NC: NDArray[np.floating]) -> NDArray[np.int64]:
        """Number of the worst cell of each image, the first of several, (N,)."""
        is_more_better = self.range.best > self.range.worst
        return (cells_NC if is_more_better else -cells_NC).argmin(axis=1)

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean score of each cell, (rows, columns); NaN where no image has cells."""
        return self._totals / self._num_scored if self._num_scored else np.full_like(self._totals, np.nan)
