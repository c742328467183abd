"""Positions of kept rows -> their carried columns as they lie in the score files: any type, any name, every digit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from iqa_core.errors import RunError
from iqa_core.selection.rows import FILE_BITS, ROW_BITS


@dataclass(slots=True)
class CarriedColumns:
    """Columns of the rows at given positions; one score file is held at a time."""

    files: Sequence[Sequence[Path]]
    """Score files of each table, in the order in which the view was made of them."""
    schema: pa.Schema
    """Columns that are asked for; one that a table lacks is null."""
    _held: tuple[int, pa.Table] | None = field(default=None, init=False)

    def at(self, positions: NDArray[np.int64]) -> pa.Table:
        """The columns of the rows at these positions, which ascend; one row each, in order."""
        if not len(self.schema):
            return pa.table({})
        parts = [self.schema.empty_table(), *(self._parts(positions) if len(positions) else ())]
        return pa.concat_tables(parts).combine_chunks()

    def _parts(self, positions: NDArray[np.int64]) -> Iterator[pa.Table]:
        places = positions >> ROW_BITS
        rows = positions & ((1 << ROW_BITS) - 1)
        begins = np.flatnonzero(np.diff(places, prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(places)], strict=True):
            yield self._file(int(places[begin])).take(pa.array(rows[begin:end]))

    def _file(self, place: int) -> pa.Table:
        if self._held is None or self._held[0] != place:
            path = self.files[place >> FILE_BITS][place & ((1 << FILE_BITS) - 1)]
            try:
                self._held = (place, _read(path, self.schema))
            except OSError as error:
                raise RunError(f"{path}: it can no longer be read ({error}); run the same command again") from error
        return self._held[1]


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    file = pq.ParquetFile(path)
    there = [name for name in schema.names if name in file.schema_arrow.names]
    found = file.read(columns=there)
    columns = [
        _as(found.column(kind.name), kind, path) if kind.name in there else pa.nulls(found.num_rows, kind.type)
        for kind in schema
    ]
    return pa.table(columns, schema=schema)


def _as(column: pa.ChunkedArray, wanted: pa.Field, path: Path) -> pa.ChunkedArray:
    """The column in the type that its table gives it.

    Parquet has no days in milliseconds and no times in seconds, and stacked tables have one type for all. Raises
    RunError where that type does not hold a value.
    """
    try:
        return column if column.type == wanted.type else column.cast(wanted.type)
    except pa.ArrowInvalid as error:
        raise RunError(
            f"{path}: column {wanted.name} is {column.type} there, and {wanted.type} where tables are stacked, which "
            f"does not hold all its values ({error}); select from each table into an output of its own"
        ) from error
