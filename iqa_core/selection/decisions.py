"""The view `scores` and what each rule left -> the decision table: one row per image, in the order of the score table.

Rules rank narrow rows: positions and rewards. Here whole rows are read once, in order, and matched with the positions
that are left. Nothing is sorted, and one block of rows and of each rule's positions is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from iqa_core.errors import RunError
from iqa_core.records import Reason
from iqa_core.selection.policy import reason
from iqa_core.selection.rows import PASSES, POSITION
from iqa_core.selection.rules import Survivors
from iqa_core.tables.duckdb_engine import quoted
from iqa_core.tables.scores.columns import SCORED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BLOCK_ROWS = 65_536
"""Smallest block of rows: with 1,024, as in a score file, the calls cost more than the rows."""

ELSEWHERE = "elsewhere"
"""The rejection code of an image that the first of joined tables scored and another rejected."""


def decision_schema(score_names: Sequence[str]) -> pa.Schema:
    """Columns of the decision table; in memory, reasons are codes."""
    fields = [
        ("key", pa.string()),
        ("source", pa.string()),
        ("kept", pa.bool_()),
        ("reason", pa.dictionary(pa.int32(), pa.string())),
        ("weight", pa.float64()),
    ]
    return pa.schema([*fields, *((name, pa.float32()) for name in score_names)])


@dataclass(frozen=True, slots=True)
class Weighting:
    """How a reward becomes a sampling weight."""

    temperature: float | None
    best: float
    """The highest reward that is kept: it weighs 1."""

    def weights(self, rewards: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """exp((reward - best) / temperature) of what is kept, or 1 without a temperature; 0 of what is not.

        An image without a reward (NaN) weighs 0: it stands behind all others.
        """
        if self.temperature is None:
            return kept.astype(np.float64)
        is_ranked = kept & ~np.isnan(rewards)
        behind = np.zeros(len(rewards))  # 0 for the best as well, since an infinite reward less itself would be NaN
        np.subtract(rewards.astype(np.float64), self.best, out=behind, where=is_ranked & (rewards != self.best))
        return np.where(is_ranked, np.exp(behind / self.temperature), 0.0)


def weighting(connection: DuckDBPyConnection, survivors: Sequence[Survivors], temperature: float | None) -> Weighting:
    """How images will be weighted; looks up the best reward that is kept where a temperature is given."""
    if temperature is None:
        return Weighting(None, 0.0)
    left = survivors[-1].table if survivors else "scores"
    condition = "" if survivors else f" WHERE status = '{SCORED}' AND {PASSES}"
    [(best,)] = connection.execute(f"SELECT max(reward) FROM {left}{condition}").fetchall()
    return Weighting(temperature, 0.0 if best is None else float(best))


def decided(
    connection: DuckDBPyConnection,
    survivors: Sequence[Survivors],
    weights: Weighting,
    score_names: Sequence[str],
    behind: Mapping[str, str] | None = None,
) -> Iterator[pa.Table]:
    """Blocks of the decision table. behind: further columns of the view, name there -> name in the block.

    Raises RunError when rows come in another order than in their files, or have a rejection code that is not known.
    """
    behind = behind or {}
    wanted = dict.fromkeys(["key", "source", *score_names, *behind, "status", "reason", PASSES, POSITION])
    columns = ", ".join(
        'reason AS "iqa_reason"' if name == "reason" else quoted(name) for name in wanted if name != "status"
    )
    query = f"SELECT {columns}, status AS iqa_status FROM scores"
    schema = decision_schema(score_names)
    positions = [_Positions(connection, item.table) for item in survivors]
    reasons = _Reasons(survivors)
    last = -1
    for block in _blocks(connection, query):
        place = block.column(POSITION).to_numpy()
        if place[0] <= last or np.any(np.diff(place) <= 0):
            raise RunError("the engine handed the score rows over in another order than they lie in their files")
        last = int(place[-1])
        kept, why = reasons.decide(block, [found.among(place) for found in positions])
        rewards = block.column("reward").fill_null(np.nan).to_numpy()
        own = {"kept": pa.array(kept), "reason": why, "weight": pa.array(weights.weights(rewards, kept))}
        arrays = {
            name: own[name] if name in own else block.column(name).cast(schema.field(name).type)
            for name in schema.names
        }
        yield pa.table({**arrays, **{name: block.column(there) for there, name in behind.items()}})


def _blocks(connection: DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    """Rows of a query as they come, at least BLOCK_ROWS at a time, each column in one piece; never an empty block."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    reader = connection.cursor().sql(query).to_arrow_reader(BLOCK_ROWS)
    for batch in reader:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= BLOCK_ROWS:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()


class _Reasons:
    """Every reason that a selection can give; its code is its index in `words`."""

    def __init__(self, survivors: Sequence[Survivors]) -> None:
        rejected = [*(str(code) for code in Reason), ELSEWHERE]
        words = [
            *(reason("rejected", code) for code in rejected),
            reason("where"),
            *(item.reason for item in survivors),
        ]
        self.words = pa.array(words, pa.string())
        self._rejected = pa.array(rejected, pa.string())
        self._where = len(rejected)

    def decide(self, block: pa.Table, left: Sequence[NDArray[np.bool_]]) -> tuple[NDArray[np.bool_], pa.Array]:
        """Which rows are kept, and for the others the first rule in order that dropped them (null where kept).

        left: by rule, which rows it left.
        """
        codes = np.full(block.num_rows, -1, np.int32)
        for step in reversed(range(len(left))):  # the first rule is written last, so its reason stays
            codes[~left[step]] = self._where + 1 + step
        passes = block.column(PASSES).chunk(0).to_numpy(zero_copy_only=False)
        codes[~passes] = self._where
        is_scored = pc.equal(block.column("iqa_status"), SCORED).chunk(0).to_numpy(zero_copy_only=False)
        unscored = np.flatnonzero(~is_scored)
        if len(unscored):
            codes[unscored] = self._rejections(block.column("iqa_reason").take(pa.array(unscored)))
        kept = codes < 0
        return kept, pa.DictionaryArray.from_arrays(pa.array(codes, mask=kept), self.words)

    def _rejections(self, found: pa.ChunkedArray) -> NDArray[np.int32]:
        """Codes of rejected rows; null is a row that only a joined table rejects."""
        codes = pc.index_in(found.fill_null(ELSEWHERE), self._rejected)
        if codes.null_count:
            unknown = found.filter(pc.is_null(codes))[0]
            raise RunError(f"the score table has the rejection code {unknown}, which this version does not know")
        places: NDArray[np.int32] = codes.to_numpy()
        return places


class _Positions:
    """The positions of a table in the engine, ascending, a block at a time."""

    def __init__(self, connection: DuckDBPyConnection, table: str) -> None:
        query = f"SELECT {POSITION} FROM {table} ORDER BY {POSITION}"
        self._blocks = _blocks(connection, query)
        self._held: NDArray[np.int64] = np.empty(0, np.int64)
        self._is_over = False

    def among(self, place: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these ascending positions are in the table; each is asked for once, in order."""
        while not self._is_over and (not len(self._held) or self._held[-1] < place[-1]):
            block = next(self._blocks, None)
            if block is None:
                self._is_over = True
            else:
                self._held = np.concatenate([self._held, block.column(0).to_numpy()])
        index = np.searchsorted(self._held, place)
        found = np.zeros(len(place), bool)
        inside = index < len(self._held)
        found[inside] = self._held[index[inside]] == place[inside]
        self._held = self._held[np.searchsorted(self._held, place[-1], side="right") :]
        return found
