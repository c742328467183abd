"""A column of any Arrow type -> its values in another Arrow type, as Python objects, or as text."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from iqa_core.corpus.carried_types import PLAIN, Bounds, carried_type, has_bounds, is_list, settled


def converted(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """The column in another type. Raises ValueError where that does not hold a value."""
    try:
        if pa.types.is_string(wanted):
            return pa.chunked_array([_as_text(chunk) for chunk in column.chunks], wanted)
        return pa.chunked_array([_as(chunk, wanted) for chunk in column.chunks], wanted)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(str(error)) from error


def _as(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """One array, however it is encoded, in the wanted type."""
    if array.type == wanted and not _may_be_damaged(wanted):
        return array
    array = _unwrapped(array)
    kind = array.type
    if (is_list(kind) or pa.types.is_map(kind)) and pa.types.is_list(wanted):
        return _as_list(array, wanted)
    if pa.types.is_struct(kind) and pa.types.is_struct(wanted):
        return _as_struct(array, wanted)
    return array if kind == wanted else array.cast(wanted)


def _unwrapped(array: pa.Array) -> pa.Array:
    """The array's values in the type that `unwrapped` gives."""
    kind = array.type
    if isinstance(kind, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    if isinstance(array, pa.ExtensionArray):
        return _unwrapped(array.storage)
    if pa.types.is_run_end_encoded(kind):
        # Arrow's run_end_decode knows no runs of views and of extensions
        run = np.searchsorted(array.run_ends, np.arange(array.offset, array.offset + len(array)), side="right")
        return _unwrapped(array.values).take(pa.array(run))
    if pa.types.is_dictionary(kind):
        return _unwrapped(array.dictionary).take(array.indices)
    if kind in PLAIN and not pa.types.is_temporal(kind):
        array = array.cast(PLAIN[kind])
    array = _sound(array) if _may_be_damaged(array.type) and not kind.num_fields else array
    return array.cast(PLAIN[array.type]) if array.type in PLAIN else array


def _sound(array: pa.Array) -> pa.Array:
    """The array with values that their own type does not allow replaced, so that one of them costs no others.

    Text that is no UTF-8 becomes what `_text_of` gives; a time of 25 hours, or a decimal of too many digits, null.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([_sound_value(scalar) for scalar in array], array.type)
    return array


def _sound_value(scalar: pa.Scalar) -> Any:
    try:
        pa.array([scalar], scalar.type).validate(full=True)
    except pa.ArrowInvalid:
        return _text_of(scalar) if isinstance(scalar, pa.StringScalar) else None
    return scalar


def _may_be_damaged(kind: pa.DataType) -> bool:
    """Whether arrays of a type can hold values that it does not allow: text, times, decimals, at any depth."""
    types = pa.types
    is_such = types.is_string(kind) or types.is_time(kind) or types.is_date64(kind) or types.is_decimal(kind)
    return is_such or any(_may_be_damaged(kind.field(i).type) for i in range(kind.num_fields))


def _as_list(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Lists of the wanted type, built from offsets: pyarrow 26 miscasts slices of maps, and list views with nulls."""
    starts, lengths = _extents(array)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    if not edges[-1]:
        values = pa.array([], wanted.value_type)
    else:
        first, end = starts[lengths > 0].min(), (starts + lengths)[lengths > 0].max()
        values = _as(_values_in(array).slice(first, end - first), wanted.value_type)
        if not np.array_equal(starts - first, edges[:-1]):  # with gaps, or in another order
            values = values.take(pa.array(np.repeat(starts - first - edges[:-1], lengths) + np.arange(edges[-1])))
    return pa.ListArray.from_arrays(pa.array(edges, pa.int32()), values, type=wanted, mask=array.is_null())


def _values_in(array: pa.Array) -> pa.Array:
    """The values of all lists of an array in one array; for maps, structs of key and value."""
    if not pa.types.is_map(array.type):
        return array.values
    return pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])


def _extents(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First value and number of values of each list; a null has none."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        starts = (array.offset + np.arange(len(array))) * kind.list_size
        lengths = np.full(len(array), kind.list_size)
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        starts, lengths = (np.asarray(part, np.int64) for part in (array.offsets, array.sizes))
    else:
        offsets = np.asarray(array.offsets, np.int64)
        starts, lengths = offsets[:-1], np.diff(offsets)
    return starts, np.where(np.asarray(array.is_valid()), lengths, 0)


def _as_struct(array: pa.StructArray, wanted: pa.DataType) -> pa.Array:
    given = dict(zip(array.type.names, array.flatten(), strict=True))
    children = [
        _as(given[field.name], field.type) if field.name in given else pa.nulls(len(array), field.type)
        for field in wanted
    ]
    return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())


def _as_text(array: pa.Array) -> pa.Array:
    try:
        array = _as(array, settled(carried_type(array.type)))
    except ValueError:  # a union, say; or a year that milliseconds do not reach
        array = _unwrapped(array)
    if pa.types.is_string(array.type):
        return array
    return pa.array([None if value is None else text_of(value) for value in values_of(array)], pa.string())


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """Values as Python objects; one that Python lacks (the year 10,000, nanoseconds) as text, or None."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [value_of(scalar) for scalar in column]


def value_of(scalar: pa.Scalar) -> Any:
    """One value as a Python object; one that Python lacks as text, or None."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return _text_of(scalar)


def _text_of(scalar: pa.Scalar) -> str | None:
    """Text with bytes that are no UTF-8 as \\xNN; any other value as Arrow formats it, None where it cannot."""
    if isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    if isinstance(scalar, pa.StringScalar):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "backslashreplace")
    try:
        return scalar.cast(pa.string()).as_py()
    except (pa.ArrowException, ValueError):
        return None


def utf8(text: str) -> str:
    """The text with lone surrogates, which UTF-8 lacks, as \\uNNNN: a caption may have been cut in an emoji."""
    return text.encode("utf-8", "backslashreplace").decode()


def text_of(value: Any) -> str:
    """A value as text: bytes decoded as UTF-8, else in hexadecimal digits; other values as JSON."""
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal | uuid.UUID):
        return str(value)
    return utf8(json.dumps(value, ensure_ascii=False, default=text_of))


def bounds_of(arrays: Iterable[pa.Array]) -> Bounds:
    """Smallest and largest of 0 and all 64-bit integers and times of a column, in the units that are carried."""
    low = high = 0
    for array in arrays:
        for leaf in _leaves_of(array):
            per_unit = 1000 if pa.types.is_timestamp(leaf.type) and leaf.type.unit == "s" else 1
            found = pc.min_max(leaf if pa.types.is_integer(leaf.type) else leaf.cast(pa.int64())).as_py()
            low, high = min(low, per_unit * (found["min"] or 0)), max(high, per_unit * (found["max"] or 0))
    return low, high


def _leaves_of(array: pa.Array) -> Iterator[pa.Array]:
    """Arrays of the 64-bit integers and times in an array, at any depth."""
    array = _unwrapped(array)
    if is_list(array.type) or pa.types.is_map(array.type):
        yield from _leaves_of(_values_in(array))
    elif pa.types.is_struct(array.type):
        yield from (leaf for child in array.flatten() for leaf in _leaves_of(child))
    elif not array.type.num_fields and has_bounds(array.type):
        yield array
