"""Columns of all inputs -> the carried columns of the score table: distinct names, and one schema for all chunks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa

from iqa_core.corpus.carried_types import Bounds, carried_type, holds, settled
from iqa_core.corpus.column_values import converted, text_of, utf8, values_of
from iqa_core.errors import CallerError

TYPE_NAMES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}
"""Type name in `--carry name:type` -> Arrow type."""

UNNAMED = "unnamed"
"""Name given to a column without one, such as the index that pandas writes into a CSV."""

RESERVED = frozenset("kept weight file_row_number file_index iqa_position iqa_passes iqa_rejected_elsewhere".split())
"""Names that selection needs: columns of its decisions, columns that DuckDB adds when it reads, columns of its view."""


def parse_carry(values: Sequence[str]) -> dict[str, str]:
    """Column name -> type name, from `name:type` flags.

    Raises CallerError on any other form, and on a name that is given two types.
    """
    parsed: dict[str, str] = {}
    for value in values:
        name, separator, type_name = value.rpartition(":")
        if not separator or not name or type_name not in TYPE_NAMES:
            raise CallerError(f"--carry {value}: give it as name:type, with one of the types {', '.join(TYPE_NAMES)}")
        if parsed.setdefault(name, type_name) != type_name:
            raise CallerError(f"--carry {name} is given twice, as {parsed[name]} and as {type_name}")
    return parsed


def repeated(names: Iterable[str]) -> list[str]:
    """Names that stand more than once among these, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def table_names(names: Sequence[str], own: Collection[str], reading: int) -> list[str]:
    """Names of input columns in the score table: `input_<name>` where the table itself has a column of that name.

    Case is ignored, and a column that is called `input_<name>` itself becomes `input_input_<name>`, since both may
    exist; reading 1 does neither. own: names of the table's own columns.
    """
    if reading == 1:
        return [f"input_{name}" if name in own else name for name in names]
    taken = RESERVED | {name.lower() for name in own}
    return [_table_name(name, taken) for name in names]


def _table_name(name: str, taken: Collection[str]) -> str:
    bare = name.lower()
    while bare.startswith("input_"):
        bare = bare.removeprefix("input_")
    return f"input_{name}" if bare in taken else name or UNNAMED


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A column of one source."""

    uri: str
    given: str
    """Its name in the source."""
    name: str
    """Its name in the score table."""
    type: pa.DataType
    bounds: Bounds | None
    """Smallest and largest of its integers or times, where they are known."""

    @property
    def carried(self) -> pa.DataType:
        """The type in which this column alone would be carried. Raises CallerError for one that cannot be carried."""
        try:
            return carried_type(self.type)
        except ValueError as error:
            raise CallerError(
                f"{self.uri}: column {self.given} cannot be carried, it is {error}; carry it as text "
                f"(--carry {self.given}:string), or take it out of the file"
            ) from error

    def check_held(self, wanted: pa.DataType) -> None:
        """Raises CallerError unless a type holds every value of the column exactly."""
        # times in seconds may overflow the milliseconds in which they are carried; text has no bounds
        bounds = None if pa.types.is_string(self.type) else self.bounds
        is_beyond = bounds is not None and not -(2**63) <= bounds[0] <= bounds[1] < 2**64
        if is_beyond or not holds(wanted, self.carried, self.bounds):
            raise CallerError(
                f"{self.uri}: column {self.given} is {self.type} there, and {wanted} does not hold all its values; "
                f"carry it as text (--carry {self.given}:string), give it one type in all inputs, or score this one "
                "into an output of its own"
            )


def settled_schema(columns: Sequence[InputColumn]) -> pa.Schema:
    """One schema, of carried types, that holds every value of these columns exactly.

    Raises CallerError, which names column and source, where there is none.
    """
    by_name: dict[str, list[InputColumn]] = defaultdict(list)
    for column in columns:
        by_name[column.name].append(column)
    _check_names(columns)
    return pa.schema([(name, settled(_together(found))) for name, found in by_name.items()])


def _check_names(columns: Sequence[InputColumn]) -> None:
    """Raises CallerError for names that SQL cannot tell apart or read: it ignores case, and a NUL ends a name."""
    known: dict[str, InputColumn] = {}
    for column in columns:
        if "\0" in column.given:
            raise CallerError(f"{column.uri}: column {column.given!r} has a name that no table can have; rename it")
        other = known.setdefault(column.name.lower(), column)
        if other.name != column.name:
            raise CallerError(
                f"{column.uri}: column {column.given} differs from {other.given} of {other.uri} in upper and lower "
                "case alone; rename one of them, or score the inputs into outputs of their own"
            )


def _together(columns: Sequence[InputColumn]) -> pa.DataType:
    """The type that holds the values of these columns of one name."""
    wanted = reduce(_wider, columns[1:], columns[0].carried)
    for column in columns:
        column.check_held(wanted)
    return wanted


def _wider(known: pa.DataType, column: InputColumn) -> pa.DataType:
    try:
        return carried_type(promoted(known, column.carried))
    except (ValueError, pa.ArrowTypeError) as error:
        raise CallerError(
            f"{column.uri}: column {column.given} is {column.type} there, {known} in the inputs before it; give it one "
            f"type, carry it as text (--carry {column.given}:string), or score this input into an output of its own"
        ) from error


def promoted(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """Arrow's common type of two. Raises ArrowInvalid or ArrowTypeError where there is none."""
    schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema without metadata; dictionary-encoded columns become their value type: each file has its own codes."""
    return pa.schema(
        [(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type) for field in schema]
    )


def conformed(table: pa.Table, schema: pa.Schema, num_rows: int, reading: int) -> pa.Table:
    """The table converted to exactly this schema; a column that it lacks is null.

    num_rows: rows of the table, which one without columns does not know.
    Raises ValueError, which names the column, for a value that its type does not hold; in reading 1 it becomes null.
    """
    arrays = {}
    for field in schema:
        if field.name not in table.column_names:
            arrays[field.name] = pa.chunked_array([pa.nulls(num_rows, field.type)])
            continue
        column = table.column(field.name)
        try:
            arrays[field.name] = converted(column, field.type)
        except ValueError as error:
            if reading > 1:
                raise ValueError(f"column {field.name} is no {field.type} there ({error})") from error
            values = [cast_value(value, field.type) for value in values_of(column)]
            arrays[field.name] = pa.chunked_array([pa.array(values, field.type)])
    return pa.table(arrays, schema=schema)


def cast_value(value: Any, wanted: pa.DataType) -> Any:
    """One value as the wanted type; None where it cannot be that type: a value is never guessed."""
    if value is None:
        return None
    try:
        if pa.types.is_string(wanted):
            return text_of(value)
        return pa.scalar(value).cast(wanted).as_py()
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError):
        return None


def storable(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Integers or texts as an array. An integer beyond its type is null: it comes from a file's header, not a score."""
    if pa.types.is_string(kind):
        return pa.array([None if value is None else utf8(value) for value in values], kind)
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, OverflowError):
        return pa.array([cast_value(value, kind) for value in values], kind)
