"""Columns of any type -> their values as JSON has them, and what JSON cannot keep of them.

Numbers are numbers, texts are texts, lists and structs are what they are. A date, a time, a decimal and a UUID are
their text, bytes are base64, a duration is a whole number of its unit, a map a list of pairs. JSON has no NaN, which
means no number and becomes null, and no infinity, which becomes null as well and is counted.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_a


def json_values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """One value per row that `json.dumps` takes."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if kind == pa.uuid() or is_a.is_interval(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return json_values(column.storage)
    if is_a.is_dictionary(kind):
        return json_values(column.dictionary_decode())
    if is_a.is_floating(kind):
        return _numbers(column)
    if is_a.is_temporal(kind):
        return _times(column)
    if is_a.is_decimal(kind):
        return [None if value is None else f"{value:f}" for value in column.to_pylist()]
    if is_a.is_binary(kind) or is_a.is_large_binary(kind) or is_a.is_fixed_size_binary(kind):
        return [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]
    if is_a.is_struct(kind):
        return _structs(column)
    if is_a.is_map(kind):
        return [item and [list(pair.values()) for pair in item] for item in _lists(column)]
    return _lists(column) if is_a.is_nested(kind) and not is_a.is_union(kind) else column.to_pylist()


def json_rows(values: pa.Table) -> list[dict[str, Any]]:
    """A mapping of column to value for each row."""
    columns = [json_values(column) for column in values.columns]
    return [dict(zip(values.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def json_texts(column: pa.ChunkedArray) -> list[str | None]:
    """The text of each value's JSON; text and null stay what they are."""
    return [value if value is None or isinstance(value, str) else to_json(value) for value in json_values(column)]


def to_json(value: Any) -> str:
    """JSON text of a value; text outside of ASCII stays readable."""
    return json.dumps(value, ensure_ascii=False, default=str)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text, in any of Arrow's layouts."""
    return bool(is_a.is_string(kind) or is_a.is_large_string(kind) or is_a.is_string_view(kind))


def infinite(values: pa.Table) -> Counter[str]:
    """Column -> its infinite numbers, in lists and structs as well."""
    counts = {name: _infinite(values.column(place)) for place, name in enumerate(values.column_names)}
    return Counter({name: count for name, count in counts.items() if count})


def _infinite(column: pa.ChunkedArray | pa.Array) -> int:
    kind = column.type
    if is_a.is_floating(kind):
        wide = column.cast(pa.float32()) if is_a.is_float16(kind) else column
        return pc.sum(pc.is_inf(wide)).as_py() or 0
    if is_a.is_struct(kind):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return sum(_infinite(part) for chunk in chunks for part in chunk.flatten())
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        return _infinite(pc.list_flatten(column))
    return 0


def _numbers(column: pa.Array) -> list[float | None]:
    """Floats; those of 16 or 32 bits in the shortest digits that tell them apart."""
    is_there = np.isfinite(column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))
    digits: Sequence[Any] = column.to_pylist()
    if is_a.is_float32(column.type) or is_a.is_float16(column.type):
        narrow = np.float32 if is_a.is_float32(column.type) else np.float16
        digits = [float(str(narrow(value))) if there else None for value, there in zip(digits, is_there, strict=True)]
    return [value if there else None for value, there in zip(digits, is_there, strict=True)]


def _times(column: pa.Array) -> list[Any]:
    """Dates and times as ISO text, down to their unit and at least to milliseconds; those with a zone in UTC."""
    kind = column.type
    if is_a.is_duration(kind):
        whole: list[Any] = column.cast(pa.int64()).to_pylist()
        return whole
    if is_a.is_date64(kind):
        column = column.cast(pa.date32())
    elif is_a.is_timestamp(kind):
        # with milliseconds, since `datasets` takes a text without them for a time of its own
        column = column.cast(pa.timestamp("ms" if kind.unit == "s" else kind.unit, "UTC" if kind.tz else None))
    texts: list[Any] = column.cast(pa.string()).to_pylist()
    return texts


def _structs(column: pa.Array) -> list[dict[str, Any] | None]:
    names = [field.name for field in column.type]
    parts = [json_values(column.field(place)) for place in range(len(names))]
    rows = zip(*parts, strict=True) if parts else [()] * len(column)
    return [
        dict(zip(names, row, strict=True)) if there else None
        for row, there in zip(rows, column.is_valid().to_pylist(), strict=True)
    ]


def _lists(column: pa.Array) -> list[list[Any] | None]:
    return [json_values(item.values) if item.is_valid else None for item in column]
