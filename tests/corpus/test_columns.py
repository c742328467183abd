"""Input columns -> carried columns: flags, names, one schema, values that fit or are null."""

from __future__ import annotations

import pyarrow as pa
import pytest

from iqa_core.corpus.columns import cast_value, conformed, parse_carry, unified
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
        (None, pa.int64(), None),
    ],
)
def test_a_field_is_never_guessed(value: object, wanted: pa.DataType, found: object) -> None:
    assert cast_value(value, wanted) == found
