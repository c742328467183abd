"""An Arrow type of an input column -> the plain type in which a score table carries its values.

An encoding (dictionary, run-end, view, large offsets, fixed size, extension) says how values are stored, not what they
are, and no two programs read the same encodings. So values are carried in the plain type.
"""

from __future__ import annotations

import pyarrow as pa

MAX_DIGITS = 38
"""Digits of a decimal128, the widest type that DuckDB computes with."""

EXACT_FLOATS = {pa.float32(): 2**24, pa.float64(): 2**53}
"""Float type -> largest integer up to which it holds every integer exactly."""

PLAIN = {
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.time32("s"): pa.time32("ms"),
}
"""Type without parameters -> the type in which its values are carried."""

Bounds = tuple[int, int]
"""Smallest and largest value of a column's integers, or of its times in the unit in which they are carried."""


def unwrapped(kind: pa.DataType) -> pa.DataType:
    """The type of the values, without dictionary, run ends, views, large offsets and extensions; one level deep."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if isinstance(kind, pa.UuidType) else unwrapped(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return unwrapped(kind.value_type)
    return PLAIN.get(kind, kind)


def carried_type(kind: pa.DataType) -> pa.DataType:
    """The type in which values of a type are carried. Null stays null: other inputs may give its type (see `settled`).

    Raises ValueError, whose text is the type, for one that no score table can carry.
    """
    kind = unwrapped(kind)
    if pa.types.is_map(kind):
        return pa.list_(carried_type(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if is_list(kind):
        return pa.list_(carried_type(kind.value_type))
    if pa.types.is_struct(kind):
        return _carried_struct(kind)
    if pa.types.is_union(kind) or pa.types.is_interval(kind):
        raise ValueError(str(kind))
    if pa.types.is_decimal(kind):
        is_plain = kind.precision <= MAX_DIGITS and 0 <= kind.scale <= kind.precision
        return pa.decimal128(kind.precision, kind.scale) if is_plain else pa.string()
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind) and kind.unit == "s":  # Parquet has no seconds
        return pa.timestamp("ms", kind.tz)
    return kind


def _carried_struct(kind: pa.StructType) -> pa.DataType:
    names = [field.name.lower() for field in kind]
    if not names or "" in names or len(set(names)) < len(names) or any("\0" in name for name in names):
        raise ValueError(f"{kind}, a struct without fields, or whose fields' names no engine tells apart")
    return pa.struct([(field.name, carried_type(field.type)) for field in kind])


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's five kinds of lists."""
    tests = pa.types
    return (
        tests.is_list(kind)
        or tests.is_large_list(kind)
        or tests.is_fixed_size_list(kind)
        or tests.is_list_view(kind)
        or tests.is_large_list_view(kind)
    )


def settled(kind: pa.DataType) -> pa.DataType:
    """A carried type with text in place of null: a column that has no value in any input is text."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(settled(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, settled(field.type)) for field in kind])
    return kind


def is_scorable(kind: pa.DataType) -> bool:
    """Whether a table with such a column can be scored: Arrow's `take` knows no views and run ends."""
    if kind in (pa.string_view(), pa.binary_view()) or pa.types.is_run_end_encoded(kind):
        return False
    return all(is_scorable(kind.field(i).type) for i in range(kind.num_fields))


def holds(wanted: pa.DataType, given: pa.DataType, bounds: Bounds | None) -> bool:
    """Whether a carried type holds every value of another one exactly.

    bounds: smallest and largest value of 64-bit integers and times, for which the type alone does not tell; None where
    they are not known.
    """
    if wanted == given or pa.types.is_null(given):
        return True
    if pa.types.is_list(wanted) and pa.types.is_list(given):
        return holds(wanted.value_type, given.value_type, bounds)
    if pa.types.is_struct(wanted) and pa.types.is_struct(given):
        fields = {field.name: field.type for field in wanted}
        return all(field.name in fields and holds(fields[field.name], field.type, bounds) for field in given)
    if pa.types.is_integer(given):
        least, most = _range_of_integers(wanted)
        low, high = bounds if bounds and given.bit_width == 64 else _range_of_integers(given)
        return least <= low and high <= most
    if pa.types.is_decimal(wanted) and pa.types.is_decimal(given):
        return wanted.scale >= given.scale and wanted.precision - wanted.scale >= given.precision - given.scale
    if pa.types.is_binary(wanted):
        return pa.types.is_string(given)
    if pa.types.is_float64(wanted):
        return pa.types.is_float32(given)
    return _holds_times(wanted, given, bounds)


def _range_of_integers(kind: pa.DataType) -> Bounds:
    """The integers that a type holds exactly; (1, 0) for a type that holds none."""
    if kind in EXACT_FLOATS:
        return -EXACT_FLOATS[kind], EXACT_FLOATS[kind]
    if pa.types.is_decimal(kind):
        most = 10 ** (kind.precision - kind.scale) - 1
        return -most, most
    if not pa.types.is_integer(kind):
        return 1, 0
    bits = kind.bit_width
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pa.types.is_signed_integer(kind) else (0, 2**bits - 1)


_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _holds_times(wanted: pa.DataType, given: pa.DataType, bounds: Bounds | None) -> bool:
    """Whether times fit into a finer or equal unit without overflow (nanoseconds hold the years 1678 to 2261)."""
    tests = (pa.types.is_timestamp, pa.types.is_duration, pa.types.is_time)
    if not any(test(wanted) and test(given) for test in tests):
        return False
    finer = _PER_SECOND[wanted.unit] // _PER_SECOND[given.unit]
    if not finer or (pa.types.is_timestamp(wanted) and wanted.tz != given.tz):
        return False
    return pa.types.is_time(wanted) or (bounds is not None and all(abs(bound) * finer < 2**63 for bound in bounds))


def has_bounds(kind: pa.DataType) -> bool:
    """Whether a type has 64-bit integers or times at any depth: which types hold them depends on their values."""
    kind = unwrapped(kind)
    if kind in (pa.int64(), pa.uint64()) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return True
    return any(has_bounds(kind.field(i).type) for i in range(kind.num_fields))
