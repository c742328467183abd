"""Score tables that are taken for one -> the columns that they have together, or why they do not go together."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from iqa_core.errors import CallerError
from iqa_core.selection.rows import Combined, Given, combined
from iqa_core.tables.scores.score_table import ScoreTable
from tests.corpus.planned import LOCAL, WANTED


def stacked(*carried: dict[str, pa.DataType]) -> Combined:
    """Tables /0, /1, … with these carried columns, one below the other."""
    tables = [
        ScoreTable(LOCAL, f"/{index}", replace(WANTED, carried=pa.schema(columns)), (), 0)
        for index, columns in enumerate(carried)
    ]
    return combined([Given("", table) for table in tables], "stack", None)


def test_a_column_of_several_tables_has_one_type() -> None:
    codes = pa.dictionary(pa.int8(), pa.string())
    found = stacked({"n": pa.int32(), "s": codes}, {"n": pa.int64(), "empty": pa.null()}, {"empty": pa.string()})
    assert found.carried == ("n", "s", "empty")
    assert [found.schema.field(name).type for name in found.carried] == [pa.int64(), pa.string(), pa.string()]


def test_columns_that_have_no_type_together_name_their_table() -> None:
    with pytest.raises(CallerError, match=r"stack: /1 has a column of another type .* output of its own"):
        stacked({"n": pa.int64()}, {"n": pa.string()})
