"""All of Arrow's types, plain and wrapped in each other: a column of each, and what a score table carries of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

DAY, LATER = dt.datetime.fromisoformat("2026-01-02T03:04:05"), dt.datetime.fromisoformat("1960-01-01")
SPAN = dt.timedelta(days=3, seconds=4)
CLOCK = dt.time(3, 4, 5)
UUID = bytes(range(16))


@dataclass(frozen=True, slots=True)
class Example:
    """A column of three values, of which the second is null."""

    name: str
    column: pa.Array
    carried: pa.Array | None
    """What it is in the score table; None where it is refused."""


def _of(kind: pa.DataType, first: Any, second: Any, carried: pa.DataType | None = None, *texts: str) -> Example:
    storage = pa.array([first, None, second], kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind)
    column = pa.ExtensionArray.from_storage(kind, storage) if storage.type != kind else storage
    values = [texts[0], None, texts[1]] if texts else [first, None, second]
    return Example(str(kind), column, pa.array(values, carried or kind))


def plain_types() -> Iterator[Example]:
    """Types that hold no others."""
    yield _of(pa.bool_(), True, False)
    for bits in (8, 16, 32, 64):
        yield _of(getattr(pa, f"int{bits}")(), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        yield _of(getattr(pa, f"uint{bits}")(), 0, 2**bits - 1)
    yield _of(pa.float16(), 0.5, float("inf"), pa.float32())
    yield _of(pa.float32(), 0.1, -0.0)
    yield _of(pa.float64(), 0.1, 1e300)
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.json_(), pa.opaque(pa.string_view(), "a", "b")):
        yield _of(kind, '"ä"', "", pa.string())
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)):
        yield _of(kind, b"\xff\x00", b"ab", pa.binary())
    yield _of(
        pa.uuid(),
        UUID,
        UUID[::-1],
        pa.string(),
        *(
            "00010203-0405-0607-0809-0a0b0c0d0e0f",
            "0f0e0d0c-0b0a-0908-0706-050403020100",
        ),
    )
    yield _of(pa.bool8(), 0, 1, pa.int8())
    for kind in (pa.decimal32(9, 2), pa.decimal64(18, 2), pa.decimal128(38, 2), pa.decimal256(38, 2)):
        yield _of(kind, Decimal("-1.50"), Decimal("9999999.99"), pa.decimal128(kind.precision, 2))
    yield _of(pa.decimal256(76, 2), Decimal("1" * 74 + ".25"), Decimal("-1.50"), pa.string(), "1" * 74 + ".25", "-1.50")
    yield _of(pa.decimal128(5, -2), Decimal("100"), Decimal("200"), pa.string(), "1E+2", "2E+2")
    yield _of(pa.date32(), DAY.date(), LATER.date())
    yield _of(pa.date64(), DAY.date(), LATER.date(), pa.date32())
    for unit in ("s", "ms", "us", "ns"):
        kept = "ms" if unit == "s" else unit
        for zone in (None, "Europe/Paris") if unit == "s" else (None,):
            yield _of(pa.timestamp(unit, zone), DAY, LATER, pa.timestamp(kept, zone))
        yield _of(pa.duration(unit), SPAN, -SPAN)
        time = pa.time32 if unit in ("s", "ms") else pa.time64
        yield _of(time(unit), CLOCK, dt.time(0), time(kept))
    yield Example("null", pa.nulls(3), pa.nulls(3, pa.string()))


SECOND = pa.array([False, True, False])
"""Which of three is null."""


def _list(make: Callable[[pa.DataType], pa.DataType]) -> Callable[[Example], Example]:
    def wrapped(inner: Example) -> Example:
        kind = make(inner.column.type)
        lists = type(pa.array([], make(pa.int8())))
        if pa.types.is_fixed_size_list(kind):
            return Example(str(kind), lists.from_arrays(inner.column, type=kind), _lists(inner, [[0], [1], [2]]))
        if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
            column = lists.from_arrays([2, 0, 0], [1, 0, 2], inner.column, type=kind, mask=SECOND)
            return Example(str(kind), column, _lists(inner, [[2], None, [0, 1]]))
        column = lists.from_arrays([0, 2, 2, 3], inner.column, type=kind, mask=SECOND)
        return Example(str(kind), column, _lists(inner, [[0, 1], None, [2]]))

    return wrapped


def _lists(inner: Example, places: list[list[int] | None]) -> pa.Array | None:
    if inner.carried is None:
        return None
    taken = [place for some in places for place in some or []]
    edges = [0]
    for some in places:
        edges.append(edges[-1] + len(some or []))
    values = inner.carried.take(pa.array(taken))
    return pa.ListArray.from_arrays(edges, values, mask=pa.array([some is None for some in places]))


def _struct(inner: Example) -> Example:
    mask = pa.array([False, False, True])
    column = pa.StructArray.from_arrays([inner.column, pa.array([1, 2, 3])], ["a", "b"], mask=mask)
    if inner.carried is None:
        return Example(str(column.type), column, None)
    carried = pa.StructArray.from_arrays([inner.carried, pa.array([1, 2, 3])], ["a", "b"], mask=mask)
    return Example(str(column.type), column, carried)


def _map(inner: Example) -> Example:
    keys = pa.array(["x", "y", "z"])
    column = pa.MapArray.from_arrays([0, 2, 2, 3], keys, inner.column)
    if inner.carried is None:
        return Example(str(column.type), column, None)
    pairs = pa.StructArray.from_arrays([keys, inner.carried], ["key", "value"])
    return Example(str(column.type), column, pa.ListArray.from_arrays([0, 2, 2, 3], pairs))


def _dictionary(inner: Example) -> Example:
    places = pa.array([2, None, 0], pa.int8())
    column = pa.DictionaryArray.from_arrays(places, inner.column)
    return Example(str(column.type), column, None if inner.carried is None else inner.carried.take(places))


def _run_ends(inner: Example) -> Example:
    column = pa.RunEndEncodedArray.from_arrays([1, 2, 3], inner.column)
    return Example(str(column.type), column, inner.carried)


def _extension(inner: Example) -> Example:
    if isinstance(inner.column.type, pa.BaseExtensionType):
        raise TypeError("Arrow ends the process at an extension of an extension")
    kind = pa.opaque(inner.column.type, "a", "b")
    return Example(str(kind), pa.ExtensionArray.from_storage(kind, inner.column), inner.carried)


FOR_ALL: tuple[Callable[[Example], Example], ...] = (_list(pa.list_), _struct, _dictionary, _run_ends)

FOR_TYPICAL: tuple[Callable[[Example], Example], ...] = (
    *map(_list, (pa.large_list, pa.list_view, pa.large_list_view, lambda kind: pa.list_(kind, 1))),
    _map,
    _extension,
)

TYPICAL = frozenset("int64 halffloat string_view fixed_size_binary[2] timestamp[s] null union".split())

NESTED_AGAIN = frozenset({"string_view", "union"})


def refused_types() -> Iterator[Example]:
    """Types that no score table carries."""
    union = pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])], ["n", "t"]
    )
    yield Example("union", union, None)
    dense = pa.UnionArray.from_dense(
        pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["a"])]
    )
    yield Example("dense union", dense, None)
    yield Example("interval", pa.array([pa.MonthDayNano([1, 2, 3]), None, None]), None)
    yield Example("struct without fields", pa.array([{}, None, {}], pa.struct([])), None)
    for names in (["a", "a"], ["a", "A"], ["", "b"], ["a\0", "b"]):
        column = pa.StructArray.from_arrays([pa.array([1, 2, 3])] * 2, names)
        yield Example(f"struct with the fields {names}", column, None)


def all_types() -> Iterator[Example]:
    """Each plain type, each in the wrappers that can hold it, and wrappers in wrappers."""
    plain = [*plain_types(), *refused_types()]
    yield from plain
    for example in plain:
        wrappers = (*FOR_ALL, *FOR_TYPICAL) if example.name in TYPICAL else FOR_ALL
        for wrapped in filter(None, (_tried(wrapper, example) for wrapper in wrappers)):
            yield wrapped
            if example.name in NESTED_AGAIN:  # not in codes and runs: Arrow cannot say that they are sound
                outer = (_list(pa.list_), _struct, *FOR_TYPICAL[:-1])
                yield from filter(None, (_tried(wrapper, wrapped) for wrapper in outer))


def _tried(wrapper: Callable[[Example], Example], example: Example) -> Example | None:
    """None where Arrow has no such type, or cannot write it."""
    try:
        wrapped = wrapper(example)
        wrapped.column.validate(full=True)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, pa.schema([("x", wrapped.column.type)])) as writer:
            writer.write_batch(pa.record_batch([wrapped.column], names=["x"]))
        pa.ipc.open_stream(sink.getvalue()).read_all()
    except (pa.ArrowException, OSError, TypeError, NotImplementedError):
        return None
    return wrapped
