"""Which types hold the values of which: whenever one says so, every value is there, and as it was.

Tests iqa_core/corpus/column_values.py.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from itertools import product
from typing import Any

import pyarrow as pa
import pytest

from iqa_core.corpus.carried_types import carried_type, holds, is_scorable, settled
from iqa_core.corpus.column_values import bounds_of, converted
from tests.arrow_types import all_types

NUMBERS = [0, 1, -1, 127, 2**24, 2**24 + 1, 2**31 - 1, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1]
TIMES = [0, -1, 10**9, 2**53, 2**62]

KINDS: list[pa.DataType] = [
    *(getattr(pa, name)() for name in "int8 uint8 int32 uint32 int64 uint64 float32 float64".split()),
    pa.decimal128(20, 0),
    pa.decimal128(21, 2),
    pa.decimal128(38, 10),
    *(pa.timestamp(unit) for unit in ("ms", "us", "ns")),
    pa.timestamp("us", "UTC"),
    *(pa.duration(unit) for unit in ("s", "ns")),
    pa.time32("ms"),
    pa.time64("ns"),
    pa.date32(),
    pa.string(),
    pa.binary(),
    pa.bool_(),
]


def column_of(kind: pa.DataType) -> pa.Array:
    """All of the numbers that are values of the type, exactly."""
    values: list[Any] = []
    is_time = pa.types.is_temporal(kind)
    for number in TIMES if is_time else NUMBERS:
        try:
            array = pa.array([number], pa.int64()).cast(kind) if is_time else pa.array([number], kind)
            if is_time or array[0].as_py() == number:
                values.append(array[0])
        except (pa.ArrowException, OverflowError, TypeError):
            continue
    return pa.array([None, *values], kind)


def as_integers(array: pa.Array) -> list[Any]:
    """Values that can be compared whatever their type; of times the nanoseconds."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        per_unit = 10 ** {"s": 9, "ms": 6, "us": 3, "ns": 0}[kind.unit]
        numbers = array.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).to_pylist()
        return [None if number is None else number * per_unit for number in numbers]
    return array.to_pylist()


@pytest.mark.parametrize("known", [True, False])
def test_what_is_held_is_there_as_it_was(known: bool) -> None:
    """Of all pairs of types, with values at the edges of each."""
    pairs = 0
    for given, wanted in product(KINDS, KINDS):
        column = column_of(given)
        bounds = bounds_of([column]) if known else None
        if given != wanted and holds(wanted, given, bounds):
            found = converted(pa.chunked_array([column]), wanted).combine_chunks()
            text = pa.types.is_binary(wanted)
            assert as_integers(found) == ([None] if text else as_integers(column)), (given, wanted)
            pairs += 1
    assert pairs > 20


def test_bounds_decide_where_types_do_not() -> None:
    exact, beyond = (-(2**53), 2**53), (0, 2**53 + 1)
    assert holds(pa.float64(), pa.int64(), exact)
    assert not holds(pa.float64(), pa.int64(), beyond)
    assert not holds(pa.float64(), pa.int64(), None)
    assert holds(pa.list_(pa.float64()), pa.list_(pa.int64()), exact)
    assert not holds(pa.struct({"a": pa.float64()}), pa.struct({"a": pa.int64()}), beyond)
    assert holds(pa.timestamp("ns"), pa.timestamp("ms"), (0, 10**12))
    assert not holds(pa.timestamp("ns"), pa.timestamp("ms"), (0, 10**14)), "the year 5138"
    assert not holds(pa.timestamp("us", "UTC"), pa.timestamp("us"), (0, 1))


def test_bounds_are_found_at_any_depth() -> None:
    nested = pa.array([[{"a": 5, "b": [-7]}], None, [{"a": None, "b": None}]])
    assert bounds_of([nested, nested[1:]]) == (-7, 5)
    assert bounds_of([pa.array([2**64 - 1], pa.uint64())]) == (0, 2**64 - 1)
    assert bounds_of([pa.nulls(3, pa.int64())]) == (0, 0)
    assert bounds_of([pa.array([[2**60]], pa.list_(pa.timestamp("s")))]) == (0, 1000 * 2**60), "carried as milliseconds"
    assert bounds_of([pa.array([dt.timedelta(seconds=-3)], pa.duration("ms"))]) == (-3000, 0)


def test_null_is_settled_last_at_any_depth() -> None:
    kind = pa.struct({"a": pa.list_(pa.null())})
    assert settled(carried_type(kind)) == pa.struct({"a": pa.list_(pa.string())})


def test_text_that_is_no_utf_8_is_carried_with_its_bytes_in_digits() -> None:
    damaged = pa.array([b"a\xffb", None, b"sound"]).view(pa.string())
    nested = pa.ListArray.from_arrays([0, 2, 3], damaged)
    expected = ["a\\xffb", None, "sound"]
    large = pa.array([b"a\xffb", None, b"sound"], pa.large_binary()).view(pa.large_string())
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), damaged)
    for encoded in (large, coded, damaged.cast(pa.binary(), safe=False)):
        assert converted(pa.chunked_array([encoded]), pa.string()).to_pylist()[1:] == expected[1:]
    assert converted(pa.chunked_array([damaged]), pa.string()).to_pylist() == expected
    assert converted(pa.chunked_array([nested]), pa.list_(pa.string())).to_pylist() == [expected[:2], expected[2:]]


def test_what_does_not_fit_is_an_error() -> None:
    for value, wanted in [(2**53 + 1, pa.float64()), (1.5, pa.int64()), ("x", pa.int32()), (Decimal("1.5"), pa.int8())]:
        with pytest.raises(ValueError, match=r"out of|not in range|truncated|parse|data loss"):
            converted(pa.chunked_array([pa.array([value])]), wanted)


def test_a_column_of_an_older_plan_stays_in_the_type_that_it_was_planned_in() -> None:
    """Of every type that a table could be scored with before there was a closed list."""
    kept = 0
    for example in all_types():
        kind = example.column.type
        if is_scorable(kind) and example.carried is not None and "dictionary" not in str(kind):
            column = pa.chunked_array([example.column, example.column[1:]])
            assert converted(column, kind).equals(column), kind
            kept += 1
    assert kept > 100
