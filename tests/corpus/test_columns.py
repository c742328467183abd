"""Input columns -> carried columns: flags, names, one schema, values that fit or are null."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from iqa_core.corpus.carried_types import Bounds
from iqa_core.corpus.column_values import values_of
from iqa_core.corpus.columns import (
    RESERVED,
    InputColumn,
    cast_value,
    conformed,
    parse_carry,
    plain,
    settled_schema,
    storable,
    table_names,
)
from iqa_core.errors import CallerError
from iqa_core.selection.rows import OWN
from iqa_core.tables.scores.columns import own_columns


def test_carry_flags() -> None:
    assert parse_carry(["seed:int64", "a:b:string"]) == {"seed": "int64", "a:b": "string"}


@pytest.mark.parametrize("value", ["seed", "seed:", ":int64", "seed:integer", "seed:int64 "])
def test_another_form_of_flag_is_the_callers_mistake(value: str) -> None:
    with pytest.raises(CallerError, match="--carry"):
        parse_carry([value])


def test_a_plain_schema_has_names_and_types_alone() -> None:
    number = pa.field("n", pa.int32(), nullable=False, metadata={"a": "b"})
    codes = pa.field("s", pa.dictionary(pa.int8(), pa.string()))
    found = plain(pa.schema([number, codes], metadata={"pandas": "{}"}))
    assert found.equals(pa.schema({"n": pa.int32(), "s": pa.string()}), check_metadata=True)


def column(name: str, kind: pa.DataType, bounds: Bounds | None = None, uri: str = "a") -> InputColumn:
    return InputColumn(uri, name, name, kind, bounds)


@pytest.mark.parametrize(
    ("first", "second", "bounds", "wanted"),
    [
        (pa.int64(), pa.float64(), (0, 2**53), pa.float64()),
        (pa.int64(), pa.float64(), (0, 2**53 + 1), None),
        (pa.int64(), pa.float64(), None, None),
        (pa.int32(), pa.float64(), None, pa.float64()),
        (pa.int16(), pa.float16(), None, pa.float32()),
        (pa.uint64(), pa.int64(), (0, 2**63 - 1), pa.int64()),
        (pa.uint64(), pa.int64(), (0, 2**63), None),
        (pa.bool_(), pa.int64(), (0, 1), None),
        (pa.decimal128(9, 2), pa.decimal256(12, 4), None, pa.decimal128(12, 4)),
        (pa.decimal128(38, 0), pa.decimal128(38, 10), None, None),
        (pa.decimal128(9, 2), pa.float64(), None, None),
        (pa.int64(), pa.decimal128(38, 2), None, pa.decimal128(38, 2)),
        (pa.timestamp("s"), pa.timestamp("ns"), (0, 10**12), pa.timestamp("ns")),
        (pa.timestamp("s"), pa.timestamp("ns"), (0, 10**14), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), (0, 1), None),
        (pa.timestamp("s"), pa.timestamp("s"), (0, 1000 * 2**60), None),
        (pa.string(), pa.dictionary(pa.int8(), pa.string_view()), None, pa.string()),
        (pa.string(), pa.int64(), (0, 1), None),
        (pa.list_(pa.int64()), pa.large_list(pa.float64()), (0, 9), pa.list_(pa.float64())),
        (
            pa.struct({"a": pa.int64()}),
            pa.struct({"b": pa.bool_()}),
            (0, 9),
            pa.struct({"a": pa.int64(), "b": pa.bool_()}),
        ),
        (pa.null(), pa.list_(pa.null()), None, pa.list_(pa.string())),
        (pa.null(), pa.null(), None, pa.string()),
    ],
)
def test_two_types_are_one_where_it_holds_all_values(
    first: pa.DataType, second: pa.DataType, bounds: Bounds | None, wanted: pa.DataType | None
) -> None:
    columns = [column("n", first, bounds, "a"), column("n", second, bounds, "b")]
    for ordered in (columns, columns[::-1]):
        if wanted is None:
            with pytest.raises(CallerError, match=r"[ab]: column n .*--carry n:string"):
                settled_schema(ordered)
        else:
            found = settled_schema(ordered).field("n").type
            assert found == wanted or (pa.types.is_struct(wanted) and set(found) == set(wanted))


def test_names_that_the_table_has_are_changed_in_any_case_and_no_two_become_one() -> None:
    own = own_columns(["layout"])
    names = ["key", "WIDTH", "input_key", "Input_Input_Width", "Layout_STD", "reward", "kept", "", "input", "a b", "é"]
    found = table_names(names, own, reading=2)
    assert found == [
        "input_key",
        "input_WIDTH",
        "input_input_key",
        "input_Input_Input_Width",
        "input_Layout_STD",
        "input_reward",
        "input_kept",
        "unnamed",
        "input",
        "a b",
        "é",
    ]
    assert len(set(found)) == len(names)
    assert not {name.lower() for name in found} & {*own, *RESERVED}
    assert table_names(names[:3], own, reading=1) == ["input_key", "WIDTH", "input_key"]


def test_names_of_the_engines_view_are_reserved() -> None:
    assert OWN <= RESERVED


@pytest.mark.parametrize(
    ("names", "said"), [(["a", "A"], "A differs from a"), (["ä", "Ä"], "Ä differs"), (["a\0b"], "rename it")]
)
def test_names_that_no_engine_tells_apart_are_refused_in_one_input_and_across_two(names: list[str], said: str) -> None:
    for uris in (["a"] * 2, ["a", "b"]):
        columns = [column(name, pa.int8(), uri=uri) for name, uri in zip(names, uris, strict=False)]
        with pytest.raises(CallerError, match=said):
            settled_schema(columns)


def test_a_value_that_has_no_place_in_its_type_is_an_error_that_names_the_column() -> None:
    table = pa.table({"n": ["1", "x", None, "3"]})
    schema = pa.schema({"n": pa.int64(), "absent": pa.bool_()})
    with pytest.raises(ValueError, match="column n is no int64"):
        conformed(table, schema, 4, reading=2)
    assert conformed(table.slice(2), schema, 2, reading=2).to_pydict() == {"n": [None, 3], "absent": [None] * 2}
    assert conformed(table, schema, 4, reading=1).to_pydict() == {"n": [1, None, None, 3], "absent": [None] * 4}
    assert conformed(pa.table({}), schema, 2, reading=2).num_rows == 2


@pytest.mark.parametrize(
    ("value", "wanted", "found"),
    [
        (5, pa.string(), "5"),
        (True, pa.string(), "true"),
        ({"ä": [1]}, pa.string(), '{"ä": [1]}'),
        ("x", pa.string(), "x"),
        ("7", pa.int64(), 7),
        (1.0, pa.int64(), 1),
        (1.5, pa.int64(), None),
        (2**31, pa.int32(), None),
        (2**80, pa.int64(), None),
        ("nan?", pa.float64(), None),
        ([1], pa.int64(), None),
        ({"a": 1}, pa.float64(), None),
        ("\ud800", pa.string(), "\\ud800"),
        ({"half": "\ud800"}, pa.string(), '{"half": "\\ud800"}'),
        (None, pa.int64(), None),
    ],
)
def test_a_field_is_never_guessed(value: object, wanted: pa.DataType, found: object) -> None:
    assert cast_value(value, wanted) == found


def text_that_is_none(*values: bytes) -> pa.Array:
    """Strings as a writer that does not check leaves them."""
    return pa.array(values, pa.binary()).view(pa.string())


BROKEN = text_that_is_none(b"sound", b"caf\xe9")
ODD = {
    "text": BROKEN,
    "code": pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), BROKEN),
    "list": pa.ListArray.from_arrays([0, 1, 2], BROKEN),
    "year": pa.array([0, 2**60], pa.timestamp("s")),
    "day": pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32()),
    "nano": pa.array([1, None], pa.time64("ns")),
    "hour": pa.array([0, 25 * 3600], pa.int32()).view(pa.time32("s")),
    "noon": pa.array([0, 43_200_000], pa.int64()).view(pa.date64()),
    "digits": pa.array([Decimal("1.5"), Decimal("1234.5")], pa.decimal128(38, 1)).view(pa.decimal128(2, 1)),
}
"""Values that Arrow holds and Python, or a reader of the table, does not."""


def test_a_value_that_python_has_not_costs_itself_alone() -> None:
    table = pa.table(ODD)
    kept = conformed(table, plain(table.schema), 2, reading=2)
    kept.validate(full=True)
    assert kept.column("text").to_pylist() == ["sound", "caf\\xe9"]
    assert kept.column("code").to_pylist() == ["caf\\xe9", "sound"]
    assert kept.column("list").to_pylist() == [["sound"], ["caf\\xe9"]]
    assert kept.column("year").cast(pa.int64()).to_pylist() == [0, 2**60], "as it was"
    assert values_of(table.column("code")) == ["caf\\xe9", "sound"]
    for name in ("hour", "noon", "digits"):
        assert [scalar.is_valid for scalar in kept.column(name)] == [True, False]
    texts = conformed(table, pa.schema([(name, pa.string()) for name in ODD]), 2, reading=2).to_pydict()
    assert texts["year"] == ["1970-01-01 00:00:00", f"<value out of range: {2**60}>"]
    assert texts["list"] == ['["sound"]', '["caf\\\\xe9"]']
    assert [values[0] is not None for values in texts.values()] == [True] * len(ODD)


def test_integers_and_texts_of_a_file_are_held_or_null() -> None:
    assert storable([1, None, -(2**63), 2**63, 10**30], pa.int64()).to_pylist() == [1, None, -(2**63), None, None]
    assert storable([2**31 - 1, 2**31], pa.int32()).to_pylist() == [2**31 - 1, None]
    assert storable(["ä", None, "\ud83d"], pa.string()).to_pylist() == ["ä", None, "\\ud83d"]
