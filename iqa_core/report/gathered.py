"""Blocks of scored rows -> what a report shows of them, in memory that does not grow with their number.

Histograms, moments, counts and a few rows at each end of each dimension; a block is forgotten when it has been added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from iqa_core.corpus.originals import LOCATOR
from iqa_core.levels import bin_counts
from iqa_core.questions import LEVELS, ColumnScale
from iqa_core.records import ScoreRange
from iqa_core.tables.scores.columns import SCORED, counts_of

BINS = 40
"""Of each histogram that is shown: on 1 to 5, ten from one level to the next."""

MAX_THUMBNAILS = 300

SHEET_IMAGES = 12
"""Images of one contact sheet at most."""

SHEETS = ("best", "worst", "borderline")

MAX_GROUPS = 24
"""A carried column with more values than this is no group."""

REJECT_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Shown:
    """One image of a contact sheet."""

    values: Mapping[str, Any]
    """key, the locator columns, the scores, and the texts."""
    rank: float
    """Sort key of the sheet; smaller is further in front."""


@dataclass(slots=True)
class Group:
    """Sums over the images of one value of a column."""

    images: int
    counts_K: NDArray[np.int64]
    """Images that have the score; in joined tables some have none."""
    totals_K: NDArray[np.float64]

    @property
    def means_K(self) -> NDArray[np.float64]:
        """Mean of each score, shape (K,); NaN where no image has it."""
        return np.divide(self.totals_K, self.counts_K, out=np.full(len(self.totals_K), np.nan), where=self.counts_K > 0)


@dataclass(slots=True)
class Lengths:
    """Characters of the texts of one column."""

    count: int = 0
    total: int = 0
    longest: int = 0

    def add(self, column: pa.ChunkedArray) -> None:
        """Count the texts of a block; a null is none."""
        lengths = pc.utf8_length(column.drop_null())
        self.count += len(lengths)
        self.total += pc.sum(lengths).as_py() or 0
        self.longest = max(self.longest, pc.max(lengths).as_py() or 0)


@dataclass(slots=True)
class Gathered:
    """Everything that a report shows of one table; fed block by block."""

    names: Sequence[str]
    """Dimensions, then the reward."""
    groups: Sequence[str] = ()
    """Carried columns that may be groups."""
    scales: Mapping[str, ColumnScale] = field(default_factory=dict)
    """Of the names whose scores are not five levels worth 1 to 5."""
    texts: Sequence[str] = ()
    """Columns of text that is shown under a picture."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejection code, or `scored` -> rows."""
    histograms: NDArray[np.int64] = field(init=False)
    """Images per bin, shape (2, K, bins): kept, then dropped; without a selection all are kept."""
    moments: NDArray[np.float64] = field(init=False)
    """Sums of products of (1, scores): (K + 1, K + 1)."""
    sheets: dict[tuple[str, str], list[Shown]] = field(default_factory=dict)
    """(name, sheet) -> images, the first in front."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rejection code -> a few of its rows."""
    by_group: dict[str, dict[Any, Group]] = field(default_factory=dict)
    lengths: dict[str, Lengths] = field(default_factory=dict)
    """Column of text -> how long its texts are."""

    def __post_init__(self) -> None:
        count = len(self.names)
        self.histograms = np.zeros((2, count, BINS), np.int64)
        self.moments = np.zeros((count + 1, count + 1))
        self.by_group = {name: {} for name in self.groups}
        self.lengths = {name: Lengths() for name in self.texts}

    @property
    def columns(self) -> list[str]:
        """What `add` needs of a score table."""
        return list(
            dict.fromkeys(["key", *LOCATOR, "status", "reason", "detail", *self.names, *self.groups, *self.texts])
        )

    @property
    def sheet_images(self) -> int:
        """Images per sheet, so that all sheets, and one of another run, have at most MAX_THUMBNAILS images."""
        return min(SHEET_IMAGES, (MAX_THUMBNAILS - SHEET_IMAGES) // (len(SHEETS) * len(self.names)))

    def add(self, rows: pa.Table, kept: NDArray[np.bool_] | None = None) -> None:
        """Take in a block with the columns `columns`. kept: which rows a selection keeps; None without a selection."""
        self.reasons.update(counts_of(rows))
        is_scored = pc.equal(rows.column("status"), SCORED)
        self._add_examples(rows.filter(pc.invert(is_scored)))
        if kept is not None:
            kept = kept[is_scored.combine_chunks().to_numpy(zero_copy_only=False)]
        scored = rows.filter(is_scored)
        if not scored.num_rows:
            return
        scores_NK = np.stack([scored.column(name).to_numpy() for name in self.names], axis=1).astype(np.float64)
        whole = np.isfinite(scores_NK).all(axis=1)  # in joined tables, some images have no score from the other
        ones = np.column_stack([np.ones(whole.sum()), scores_NK[whole]])
        self.moments += ones.T @ ones
        self._add_histograms(scores_NK, kept)
        for k, name in enumerate(self.names):
            self._add_sheets(name, scores_NK[:, k], scored, kept)
        for name, lengths in self.lengths.items():
            lengths.add(scored.column(name))
        for name in list(self.by_group):
            self._add_groups(name, scored.column(name), scores_NK)

    @property
    def scored(self) -> int:
        """Images with scores."""
        return self.reasons[SCORED]

    @property
    def images(self) -> int:
        """All images, the rejected ones among them."""
        return self.reasons.total()

    def range_of(self, name: str) -> ScoreRange:
        """Where the scores of a name lie."""
        return self.scales.get(name, LEVELS).range

    def means(self) -> NDArray[np.float64]:
        """Mean of each score, shape (K,); NaN where nothing is scored."""
        count = self.moments[0, 0]
        return self.moments[0, 1:] / count if count else np.full(len(self.names), np.nan)

    def correlations(self) -> NDArray[np.float64]:
        """Pearson's correlations, shape (K, K); NaN where one of the two does not vary."""
        count = self.moments[0, 0]
        if count < 2:
            return np.full((len(self.names),) * 2, np.nan)
        mean = self.moments[0, 1:] / count
        covariance = self.moments[1:, 1:] / count - np.outer(mean, mean)
        spread = np.sqrt(np.clip(np.diag(covariance), 0, None))
        spread[spread < 1e-6] = np.nan
        return np.clip(covariance / np.outer(spread, spread), -1, 1)

    def shown(self) -> list[Shown]:
        """Images of all sheets; one may be on several."""
        return [image for sheet in self.sheets.values() for image in sheet]

    def _add_histograms(self, scores_NK: NDArray[np.float64], kept: NDArray[np.bool_] | None) -> None:
        masks = [np.ones(len(scores_NK), bool)] if kept is None else [kept, ~kept]
        for side, mask in enumerate(masks):
            for k, name in enumerate(self.names):
                values, ends = scores_NK[mask, k], self.range_of(name)
                edges = np.linspace(ends.low, ends.high, BINS + 1)
                self.histograms[side, k] += bin_counts(values[np.isfinite(values)], edges)

    def _add_sheets(
        self, name: str, scores_N: NDArray[np.float64], rows: pa.Table, kept: NDArray[np.bool_] | None
    ) -> None:
        """Best, worst and borderline images; of a selection, the best and worst kept and the best dropped."""
        ends = self.range_of(name)
        goodness_N = scores_N if ends.best > ends.worst else -scores_N
        inside = np.isfinite(scores_N) & (True if kept is None else kept)
        border = np.abs(scores_N - ends.middle) if kept is None else -goodness_N
        outside = np.isfinite(scores_N) & (True if kept is None else ~kept)
        for sheet, ranks, mask in (
            ("best", -goodness_N, inside),
            ("worst", goodness_N, inside),
            ("borderline", border, outside),
        ):
            self._add_sheet((name, sheet), np.where(mask, ranks, np.inf), rows)

    def _add_sheet(self, which: tuple[str, str], ranks_N: NDArray[np.float64], rows: pa.Table) -> None:
        held = self.sheets.setdefault(which, [])
        count = self.sheet_images
        bound = held[-1].rank if len(held) == count else np.inf
        better = np.flatnonzero(ranks_N < bound)
        front = better[np.argsort(ranks_N[better], kind="stable")[:count]]
        if not len(front):
            return
        columns = ["key", *LOCATOR, *self.names, *self.texts]
        found = rows.select(columns).take(pa.array(front)).to_pylist()
        new = [Shown(values, float(ranks_N[i])) for values, i in zip(found, front, strict=True)]
        self.sheets[which] = sorted([*held, *new], key=lambda image: image.rank)[:count]

    def _add_examples(self, rejected: pa.Table) -> None:
        for code in pc.unique(rejected.column("reason")).to_pylist():
            held = self.examples.setdefault(code, [])
            if len(held) < REJECT_EXAMPLES:
                found = rejected.filter(pc.equal(rejected.column("reason"), code)).select(["key", "source", "detail"])
                held += found.slice(0, REJECT_EXAMPLES - len(held)).to_pylist()

    def _add_groups(self, name: str, column: pa.ChunkedArray, scores_NK: NDArray[np.float64]) -> None:
        """Add to the groups of a column; a column that turns out to have too many values is forgotten."""
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values = encoded.dictionary.to_pylist()
        held = self.by_group[name]
        if len({*held, *values}) > MAX_GROUPS:
            del self.by_group[name]
            return
        places = encoded.indices.to_numpy()
        for index, value in enumerate(values):
            scores = scores_NK[places == index]
            group = held.setdefault(value, Group(0, np.zeros(len(self.names), np.int64), np.zeros(len(self.names))))
            group.images += len(scores)
            is_there = np.isfinite(scores)
            group.counts_K += is_there.sum(axis=0)
            group.totals_K += np.where(is_there, scores, 0).sum(axis=0)


def group_columns(carried: pa.Schema) -> list[str]:
    """Carried columns that may be groups: texts, whole numbers and yes or no."""
    wanted = (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean)
    return [field.name for field in carried if any(is_wanted(field.type) for is_wanted in wanted)]
