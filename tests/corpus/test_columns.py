"""Input columns -> carried columns: flags, names, one schema, values that fit or are null."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from iqa_core.corpus.columns import cast_value, conformed, parse_carry, plain, storable, unified, values_of
from iqa_core.errors import CallerError


def test_carry_flags() -> None:
    assert parse_carry(["seed:int64", "a:b:string"]) == {"seed": "int64", "a:b": "string"}


@pytest.mark.parametrize("value", ["seed", "seed:", ":int64", "seed:integer", "seed:int64 "])
def test_another_form_of_flag_is_the_callers_mistake(value: str) -> None:
    with pytest.raises(CallerError, match="--carry"):
        parse_carry([value])


def test_one_schema_for_all() -> None:
    first = pa.schema([pa.field("n", pa.int32(), nullable=False, metadata={"a": "b"})], metadata={"pandas": "{}"})
    second = pa.schema({"n": pa.int64(), "empty": pa.null(), "s": pa.dictionary(pa.int8(), pa.string())})
    third = pa.schema({"empty": pa.string(), "s": pa.large_string()})
    together = unified([("a", first), ("b", second), ("c", third)])
    assert together.equals(
        pa.schema({"n": pa.int64(), "empty": pa.string(), "s": pa.large_string()}), check_metadata=True
    )


def test_a_value_that_does_not_fit_costs_itself_alone() -> None:
    table = pa.table({"n": ["1", "x", None, "3"]})
    schema = pa.schema({"n": pa.int64(), "absent": pa.bool_()})
    assert conformed(table, schema, 4).to_pydict() == {"n": [1, None, None, 3], "absent": [None] * 4}
    assert conformed(pa.table({}), schema, 2).num_rows == 2


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
        ("\ud800", pa.string(), None),
        ({"half": "\ud800"}, pa.string(), None),
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
    kept = conformed(table, plain(table.schema), 2)
    kept.validate(full=True)
    assert kept.column("text").to_pylist() == ["sound", "caf\\xe9"]
    assert kept.column("code").to_pylist() == ["caf\\xe9", "sound"]
    assert kept.column("list").to_pylist() == [["sound"], None]
    assert kept.column("year").cast(pa.int64()).to_pylist() == [0, 2**60], "as it was"
    assert values_of(table.column("code")) == ["caf\\xe9", "sound"]
    for name in ("hour", "noon", "digits"):
        assert [scalar.is_valid for scalar in kept.column(name)] == [True, False]
    texts = conformed(table, pa.schema([(name, pa.string()) for name in ODD]), 2).to_pydict()
    assert texts["year"] == ['"1970-01-01 00:00:00"', f"<value out of range: {2**60}>"]
    assert texts["list"] == ['["sound"]', None]
    assert [values[0] is not None for values in texts.values()] == [True] * len(ODD)


def test_integers_and_texts_of_a_file_are_held_or_null() -> None:
    assert storable([1, None, -(2**63), 2**63, 10**30], pa.int64()).to_pylist() == [1, None, -(2**63), None, None]
    assert storable([2**31 - 1, 2**31], pa.int32()).to_pylist() == [2**31 - 1, None]
    assert storable(["ä", None, "\ud83d"], pa.string()).to_pylist() == ["ä", None, "\\ud83d"]
