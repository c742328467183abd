"""Input columns -> the carried columns of the score table: names that do not clash, one schema for all chunks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from iqa_core.errors import CallerError

TYPE_NAMES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
"""Types that `--carry name:type` knows."""


def parse_carry(values: Sequence[str]) -> dict[str, str]:
    """`name:type` flags -> name -> type name. Raises CallerError on any other form."""
    parsed = {}
    for value in values:
        name, separator, type_name = value.rpartition(":")
        if not separator or not name or type_name not in TYPE_NAMES:
            raise CallerError(f"--carry {value}: give it as name:type, with one of the types {', '.join(TYPE_NAMES)}")
        parsed[name] = type_name
    return parsed


def carried_name(name: str, taken: Iterable[str]) -> str:
    """The column's name in the score table: `input_<name>` where the table has a column of that name itself."""
    return f"input_{name}" if name in set(taken) else name


def unified(schemas: Sequence[tuple[str, pa.Schema]]) -> pa.Schema:
    """One schema for all sources, given as (uri, schema). Raises CallerError naming column and source on a conflict."""
    together = pa.schema([])
    for uri, schema in schemas:
        try:
            together = pa.unify_schemas([together, plain(schema)], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise CallerError(
                f"{uri}: a column has another type there than in the inputs before it ({error}); score it into an "
                "output of its own, or give the column one type"
            ) from error
    return together


def plain(schema: pa.Schema) -> pa.Schema:
    """Names and types alone; a column of codes has the type of what they stand for: each file has its own codes."""
    return pa.schema(
        [(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type) for field in schema]
    )


def conformed(table: pa.Table, schema: pa.Schema, num_rows: int) -> pa.Table:
    """The table in exactly this schema: a column it lacks is null, a value that does not fit its type is null.

    num_rows: stated, since a table without columns has none.
    """
    arrays = {}
    for field in schema:
        if field.name not in table.column_names:
            arrays[field.name] = pa.chunked_array([pa.nulls(num_rows, field.type)])
        else:
            arrays[field.name] = _cast(_sound(table.column(field.name)), field.type)
    return pa.table(arrays, schema=schema)


def _sound(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column, of which a value that its own type does not allow costs itself only: text that is no UTF-8 is written
    as _text_of does, any other value (a time of 25 hours, a decimal of too many digits) is null."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return pa.chunked_array([pa.array([_sound_value(scalar) for scalar in column], column.type)], column.type)
    return column


def _sound_value(scalar: pa.Scalar) -> Any:
    try:
        pa.array([scalar], scalar.type).validate(full=True)
    except pa.ArrowInvalid:
        return _text_of(scalar) if isinstance(_without_code(scalar), pa.StringScalar) else None
    return scalar


def _without_code(scalar: pa.Scalar) -> pa.Scalar:
    return scalar.value if isinstance(scalar, pa.DictionaryScalar) else scalar


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """Python's values. What Python has none for (a year 10,000, nanoseconds) is the value as text, or None."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [value_of(scalar) for scalar in column]


def value_of(scalar: pa.Scalar) -> Any:
    """The same for one value."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return _text_of(scalar)


def _text_of(scalar: pa.Scalar) -> str | None:
    """Text with bytes that are no UTF-8 written as \\xNN; any other value as Arrow writes it, None where it cannot."""
    scalar = _without_code(scalar)
    if isinstance(scalar, pa.StringScalar):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
    try:
        return scalar.cast(pa.string()).as_py()
    except (pa.ArrowException, ValueError):
        return None


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    if not pa.types.is_string(wanted) or pa.types.is_large_string(column.type):
        try:
            return column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass  # value by value, so that one that does not fit costs itself only
    return pa.chunked_array([pa.array([cast_value(value, wanted) for value in values_of(column)], wanted)])


def cast_value(value: Any, wanted: pa.DataType) -> Any:
    """One value as the wanted type, or None where it is not one: a field is never guessed."""
    if value is None:
        return None
    try:
        if pa.types.is_string(wanted):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            return text.encode().decode()  # raises on half an emoji, which no column holds
        return pa.scalar(value).cast(wanted).as_py()
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError):
        return None


def storable(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Integers or texts as an array: an integer beyond its type is null, for it is a file's claim and never a score."""
    if pa.types.is_string(kind):
        return pa.array([None if value is None else utf8(value) for value in values], kind)
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, OverflowError):
        return pa.array([cast_value(value, kind) for value in values], kind)


def utf8(text: str) -> str:
    """The text, lone surrogates (half an emoji, which no UTF-8 has) written as \\uNNNN."""
    return text.encode("utf-8", "backslashreplace").decode()
