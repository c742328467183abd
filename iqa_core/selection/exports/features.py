"""Arrow columns -> the same columns as Parquet keeps them and Hugging Face `datasets` describes them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.types as is_a

from iqa_core.selection.exports.values import json_texts

_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16"}
"""Arrow types that `datasets` calls otherwise."""

IMAGE = {"_type": "Image"}

_KEPT = (
    *(is_a.is_null, is_a.is_boolean, is_a.is_integer, is_a.is_floating, is_a.is_date32, is_a.is_time64),
    *(is_a.is_duration, is_a.is_decimal128, is_a.is_decimal256),
    *(is_a.is_string, is_a.is_large_string, is_a.is_binary, is_a.is_large_binary),
)
"""Types without parts that come back from Parquet as they were, and that `datasets` has a name for."""


def portable(kind: pa.DataType) -> pa.DataType | None:
    """The type under which `datasets` reads the same values back from Parquet; None where there is none."""
    if any(is_kept(kind) for is_kept in _KEPT):
        return kind
    if is_a.is_date64(kind):
        return pa.date32()
    if is_a.is_time32(kind):
        return pa.time32("ms")
    if is_a.is_timestamp(kind):
        return pa.timestamp("ms" if kind.unit == "s" else kind.unit, kind.tz)
    if is_a.is_decimal32(kind) or is_a.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if is_a.is_fixed_size_binary(kind):
        return pa.binary()
    if is_a.is_struct(kind):
        parts = [(field.name, portable(field.type)) for field in kind]
        return pa.struct(parts) if parts and all(part is not None for _, part in parts) else None
    if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind):
        part = portable(kind.value_type)
        return None if part is None else pa.list_(part)
    return None


def portable_table(values: pa.Table) -> pa.Table:
    """The values with each column in its portable type; where it has none, as the text of their JSON."""
    columns = []
    for column in values.columns:
        kind = portable(column.type)
        columns.append(column.cast(kind) if kind is not None else pa.chunked_array([json_texts(column)], pa.string()))
    return pa.table(columns, values.column_names)


def feature_of(kind: pa.DataType) -> Any:
    """Feature of a portable type as `datasets` writes it: a `Value`, a list or a mapping of features."""
    if is_a.is_struct(kind):
        return {field.name: feature_of(field.type) for field in kind}
    if is_a.is_list(kind):
        return {"feature": feature_of(kind.value_type), "_type": "List"}
    return {"dtype": dtype_of(kind), "_type": "Value"}


def dtype_of(kind: pa.DataType) -> str:
    """Name of a portable type that is neither list nor struct."""
    if is_a.is_date32(kind):
        return "date32"
    return _NAMES.get(str(kind), str(kind))


def schema_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """Metadata of a Parquet file that make `load_dataset` decode its column `image`."""
    features = {field.name: IMAGE if field.name == "image" else feature_of(field.type) for field in schema}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
