"""Rows by their positions -> their carried columns, as the score files of one or several tables have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import RunError
from iqa_core.selection.carried import CarriedColumns
from iqa_core.selection.rows import FILE_BITS, ROW_BITS

SECOND = 1 << (FILE_BITS + ROW_BITS)
"""Position of the first row of the second table."""


def stacked(folder: Path, seeds: list[int], kind: pa.DataType) -> CarriedColumns:
    """Two tables, of which the second has fractions where the first has integers."""
    for name, column in (("first", pa.array(seeds, pa.int64())), ("second", pa.array([0.5]))):
        pq.write_table(pa.table({"seed": column}), folder / f"{name}.parquet")
    return CarriedColumns([[folder / "first.parquet"], [folder / "second.parquet"]], pa.schema([("seed", kind)]))


def test_stacked_tables_have_one_type_for_all(tmp_path: Path) -> None:
    found = stacked(tmp_path, [7, 8], pa.float64()).at(np.array([1, SECOND]))
    assert found.column("seed").to_pylist() == [8.0, 0.5]


def test_a_value_that_the_common_type_does_not_hold_is_named_and_not_rounded(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"first\.parquet: column seed is int64 there, and double .* output of its own"):
        stacked(tmp_path, [2**53 + 1], pa.float64()).at(np.array([0]))
