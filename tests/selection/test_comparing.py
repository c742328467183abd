"""What a condition keeps, against an evaluator of its own in three-valued logic; what is refused, and the way out."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection

from iqa_core.errors import CallerError
from iqa_core.selection.condition import checked
from iqa_core.selection.rows import POSITION, Given, combined, make_view
from iqa_core.storage.storage import Storage
from iqa_core.tables.duckdb_engine import engine
from iqa_core.tables.scores.score_table import open_score_table
from tests.selection.score_tables import write_score_table

Row = Mapping[str, Any]
Expression = tuple[str, Callable[[Row], Any]]
"""SQL, and what it is for a row: None is null."""

SCHEMA = pa.schema(
    {
        "aes": pa.float64(),
        "half": pa.float16(),
        "seed": pa.int64(),
        "big": pa.int64(),
        "rating": pa.string(),
        "is_good": pa.bool_(),
        "json": pa.string(),
        "odds": pa.list_(pa.float32()),
        "sizes": pa.struct([("wide", pa.float32())]),
    }
)
NUMBERS = (None, math.nan, math.inf, -math.inf, -1.0, 0.0, 0.5, 2.5, 4.0, 5.0)
TEXTS = (None, "", "a", "A", "ab", "nan", "5", "4.6", "küche")


def rows(count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Every kind of number and text in every column, at random."""
    return [
        {
            "reward": rng.choice(NUMBERS),
            "aes": rng.choice(NUMBERS),
            "half": None if (half := rng.choice(NUMBERS)) is None else np.float16(half),
            "seed": rng.choice([None, -3, 0, 1, 4, 5]),
            "big": rng.choice([None, 2**24, 2**24 + 1, 2**53, 2**53 + 1, 5]),
            "rating": rng.choice(TEXTS),
            "is_good": rng.choice([None, True, False]),
            "json": rng.choice([None, json.dumps({"n": rng.choice([None, 4.6, 5, "5"]), "t": rng.choice(TEXTS)})]),
            "odds": rng.choice([None, [], [rng.choice(NUMBERS), 0.5]]),
            "sizes": rng.choice([None, {"wide": rng.choice(NUMBERS)}]),
        }
        for _ in range(count)
    ]


def plain(value: Any) -> Any:
    """NaN is no number."""
    if value is None or isinstance(value, bool | int | str):
        return value
    return None if math.isnan(value) else float(value)


def cast(text: str | None) -> float | None:
    try:
        return None if text is None else plain(float(text))
    except ValueError:
        return None


def nulls(function: Callable[..., Any], *parts: Expression) -> Callable[[Row], Any]:
    """Null where one of the parts is."""

    def evaluated(row: Row) -> Any:
        values = [part(row) for _, part in parts]
        return None if None in values else plain(function(*values))

    return evaluated


def divided(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if not a else math.copysign(math.inf, a) * math.copysign(1, b)


def calculated(sign: str, a: float, b: float) -> float:
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: divided(a, b)}[sign]()


def extreme(choose: Callable[[list[float]], float], parts: tuple[Expression, ...]) -> Callable[[Row], Any]:
    """greatest and least pass over nulls."""
    return lambda row: choose(found) if (found := [v for _, part in parts if (v := part(row)) is not None]) else None


class Conditions:
    """Expressions drawn by chance, each with its meaning."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def number(self, depth: int) -> Expression:
        rng = self._rng
        if not depth or rng.random() < 0.3:
            return self._number_leaf()
        a, b = self.number(depth - 1), self.number(depth - 1)
        kind = rng.randrange(6)
        if kind == 0:
            sign = rng.choice("+-*/")
            return f"({a[0]} {sign} {b[0]})", nulls(lambda x, y: calculated(sign, float(x), float(y)), a, b)
        if kind == 1:
            return f"coalesce({a[0]}, {b[0]})", lambda row: b[1](row) if (found := a[1](row)) is None else found
        if kind == 2:
            name, choose = rng.choice([("greatest", max), ("least", min)])
            return f"{name}({a[0]}, {b[0]})", extreme(choose, (a, b))
        if kind == 3:
            return f"abs({a[0]})", nulls(abs, a)
        if kind == 4:
            return f"nullif({a[0]}, {b[0]})", lambda row: None if a[1](row) == b[1](row) else a[1](row)
        test = self.test(depth - 1)
        return f"CASE WHEN {test[0]} THEN {a[0]} ELSE {b[0]} END", lambda row: a[1](row) if test[1](row) else b[1](row)

    def _number_leaf(self) -> Expression:
        rng = self._rng
        kind = rng.randrange(9)
        if kind < 2:
            literal = rng.choice(["0", "0.5", "-1", "2.5", "4", "5e0"])
            return literal, lambda row: float(literal)
        if kind < 6:
            name = rng.choice(["reward", "aes", "half", "seed"])
            return name, lambda row: plain(row[name])
        if kind == 6:
            text = self.text(0)
            return f"TRY_CAST({text[0]} AS DOUBLE)", lambda row: cast(text[1](row))
        if kind == 7:
            return "odds[1]", lambda row: plain(row["odds"][0]) if row["odds"] else None
        return "sizes.wide", lambda row: plain(row["sizes"]["wide"]) if row["sizes"] else None

    def text(self, depth: int) -> Expression:
        kind = self._rng.randrange(5 if depth else 3)
        if kind == 0:
            return "rating", lambda row: row["rating"]
        if kind == 1:
            key = self._rng.choice("nt")
            return f"(json->>'$.{key}')", lambda row: self._field(row["json"], key)
        if kind == 2:
            literal = str(self._rng.choice(TEXTS[1:]))
            return f"'{literal}'", lambda row: literal
        a, b = self.text(depth - 1), self.text(depth - 1)
        if kind == 3:
            return f"lower({a[0]})", nulls(str.lower, a)
        return f"coalesce({a[0]}, {b[0]})", lambda row: b[1](row) if (found := a[1](row)) is None else found

    @staticmethod
    def _field(document: str | None, key: str) -> str | None:
        value = None if document is None else json.loads(document)[key]
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def test(self, depth: int) -> Expression:
        rng = self._rng
        kind = rng.randrange(9)
        if kind == 0 or not depth:
            return "is_good", lambda row: row["is_good"]
        if kind < 3:
            a, b = self.test(depth - 1), self.test(depth - 1)
            return rng.choice([self._not(a), self._both(a, b), self._either(a, b)])
        a, b, c = (self.number(depth - 1) for _ in range(3))
        if kind < 5 and rng.random() < 0.5:
            a, b, c = (self.text(depth - 1) for _ in range(3))
        if kind == 8 and rng.random() < 0.3:
            limit = rng.choice([2**24, 2**24 + 1, 2**53, 2**53 + 1])
            return f"big >= {limit}", nulls(lambda x: x >= limit, ("big", lambda row: row["big"]))
        return rng.choice([self._compared, self._distinct, self._between, self._among])(a, b, c)

    def _not(self, a: Expression) -> Expression:
        return f"(NOT {a[0]})", nulls(lambda x: not x, a)

    def _both(self, a: Expression, b: Expression) -> Expression:
        def both(row: Row) -> bool | None:
            found = (a[1](row), b[1](row))
            return False if False in found else None if None in found else True

        return f"({a[0]} AND {b[0]})", both

    def _either(self, a: Expression, b: Expression) -> Expression:
        def either(row: Row) -> bool | None:
            found = (a[1](row), b[1](row))
            return True if True in found else None if None in found else False

        return f"({a[0]} OR {b[0]})", either

    def _compared(self, a: Expression, b: Expression, c: Expression) -> Expression:
        sign = self._rng.choice(["=", "<>", "!=", "<", "<=", ">", ">="])
        wanted = {"=": {0}, "<>": {-1, 1}, "!=": {-1, 1}, "<": {-1}, "<=": {-1, 0}, ">": {1}, ">=": {0, 1}}[sign]
        return f"({a[0]} {sign} {b[0]})", nulls(lambda x, y: (x > y) - (x < y) in wanted, a, b)

    def _distinct(self, a: Expression, b: Expression, c: Expression) -> Expression:
        if self._rng.random() < 0.5:
            return f"({a[0]} IS NULL)", lambda row: a[1](row) is None
        return f"({a[0]} IS DISTINCT FROM {b[0]})", lambda row: a[1](row) != b[1](row)

    def _between(self, a: Expression, b: Expression, c: Expression) -> Expression:
        low = nulls(lambda x, y: x >= y, a, b)
        return f"({a[0]} BETWEEN {b[0]} AND {c[0]})", self._both(("", low), ("", nulls(lambda x, y: x <= y, a, c)))[1]

    def _among(self, a: Expression, b: Expression, c: Expression) -> Expression:
        found = self._either(*(("", nulls(lambda x, y: x == y, a, other)) for other in (b, c)))[1]
        return self._not((f"({a[0]} IN ({b[0]}, {c[0]}))", found))


def compared(folder: Path, seed: int, count: int, depth: int) -> int:
    """How many conditions were run over 40 rows of every value."""
    rng = random.Random(seed)
    given = rows(40, rng)
    table = open_score_table(Storage(), str(write_score_table(folder / f"scores{seed}", given, SCHEMA, 50)))
    held = combined([Given("", table)], None, None)
    ran = 0
    with engine([folder / f"scores{seed}" / "scores"]) as connection:
        make_view(connection, held, [table.local_files(folder)], None, None, SCHEMA.names)
        for _ in range(count):
            text, meaning = Conditions(rng).test(depth)
            condition = checked(connection, text, held.schema, held.engine_name)
            found = connection.execute(f"SELECT {condition.as_item('x')} FROM fused ORDER BY {POSITION}").fetchall()
            wrong = [(row, value) for row, (value,) in zip(given, found, strict=True) if value != meaning(row)]
            assert not wrong, f"seed {seed}: {text}: {wrong[0]}, not {meaning(wrong[0][0])}"
            ran += 1
    return ran


def test_conditions_keep_what_they_say(tmp_path: Path) -> None:
    assert compared(tmp_path, 1, 25, 3) == 25


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(2, 5))
def test_many_conditions_keep_what_they_say(tmp_path: Path, seed: int) -> None:
    assert compared(tmp_path, seed, 200, 4) == 200


@pytest.fixture(scope="module")
def running() -> Iterator[DuckDBPyConnection]:
    with engine() as connection:
        yield connection


TYPES = SCHEMA.append(pa.field("reward", pa.float32()))
for name, kind in {
    "day": pa.date32(),
    "moment": pa.timestamp("us"),
    "zoned": pa.timestamp("us", "UTC"),
    "hour": pa.time64("us"),
    "raw": pa.binary(),
    "tags": pa.list_(pa.string()),
    "name": pa.uuid(),
    "price": pa.decimal128(10, 2),
    "document": pa.json_(),
}.items():
    TYPES = TYPES.append(pa.field(name, kind))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rating = 5", "write TRY_CAST(rating AS DOUBLE), or carry it as one: --carry rating:float64"),
        ("5 <> rating", "rating is text"),
        ("rating != 5", "rating is text, and 5 is a number"),
        ("rating < 5", "rating is text, and 5 is a number"),
        ("rating IN (4, 5)", "rating is text, and 4 is a number"),
        ("rating NOT IN ('4', 5)", "rating is text, and 5 is a number"),
        ("rating BETWEEN 4 AND 5", "rating is text, and 4 is a number"),
        ("reward BETWEEN 4 AND '5'", "'5' is text: they cannot be compared; write 5 without quotes"),
        ("rating IS DISTINCT FROM 5", "rating is text, and 5 is a number"),
        ("rating IS NOT DISTINCT FROM 5", "rating is text, and 5 is a number"),
        ("CASE rating WHEN 5 THEN true ELSE false END", "rating is text, and 5 is a number"),
        ("CASE WHEN is_good THEN rating ELSE 5 END = '5'", "rating is text, and 5 is a number"),
        ("coalesce(rating, 5) = '5'", "rating is text, and 5 is a number"),
        ("nullif(rating, 5) IS NULL", "rating is text, and 5 is a number"),
        ("greatest(rating, 5) = '5'", "rating is text, and 5 is a number"),
        ("reward > '3'", "write 3 without quotes"),
        ("reward > 'much'", "reward is a number, and 'much' is text: they cannot be compared; that is none"),
        ("reward + '1' > 3", "+ is for numbers, '1' is text"),
        ("abs(rating) > 3", "abs is for numbers, rating is text; write TRY_CAST(rating AS DOUBLE)"),
        ("sqrt(is_good) > 1", "sqrt is for numbers, is_good is yes or no"),
        ("json->>'$.seed' = 5", "write TRY_CAST((\"json\" ->> '$.seed') AS DOUBLE)"),
        ("(json->'$.seed') = 5", "-> gives JSON, which cannot be compared; take the text of a field with ->>"),
        ("document = '{}'", "document is JSON, which cannot be compared as a whole"),
        ("json->'$.seed' = 5", "-> gives JSON"),
        ("seed LIKE '5%'", "~~ is for text, seed is a number"),
        ("rating ILIKE 5", "~~* is for text, 5 is a number"),
        ("is_good = 1", "write is_good or NOT is_good alone"),
        ("NOT rating", "rating is text, not a condition"),
        ("seed AND is_good", "seed is a number, not a condition"),
        ("CASE WHEN seed THEN is_good END", "seed is a number, not a condition"),
        ("reward = NULL", "write reward IS NULL, or IS NOT NULL"),
        ("seed NOT IN (1, NULL)", "write seed IS NULL, or IS NOT NULL"),
        ("isnan(aes)", "write IS NULL or IS NOT NULL in place of isnan"),
        ("list_contains(tags, 5)", "an element of tags is text, and 5 is a number"),
        ("contains(odds, 'x')", "an element of odds is a number, and 'x' is text"),
        ("tags < tags", "compare one of its elements, as tags[1]"),
        ("tags[1] = 5", "tags[1] is text, and 5 is a number"),
        ("odds['1'] > 3", "odds[…] takes a number, '1' is text"),
        ("sizes = sizes", "which cannot be compared as a whole; compare its fields"),
        ("day > 5", "day is a date, and 5 is a number"),
        ("day > 'yesterday'", "'yesterday' is no DATE"),
        ("day > '2024-01-01 10:00'", "'2024-01-01 10:00' is no DATE"),
        ("day > rating", "day is a date, and rating is text"),
        ("moment > zoned", "moment is a date, and zoned is a date with a zone"),
        ("hour > 'noon'", "'noon' is no TIME"),
        ("name = 'x'", "'x' is no UUID"),
        ("raw = 5", "raw is bytes, and 5 is a number"),
        ("CAST(rating AS DOUBLE[]) = odds", "a cast to DOUBLE[] is not allowed in it"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_with_the_way_out(running: DuckDBPyConnection, text: str, why: str) -> None:
    with pytest.raises(CallerError, match="--where") as caught:
        checked(running, text, TYPES)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "TRY_CAST(rating AS DOUBLE) = 5",
        "TRY_CAST(json->>'$.seed' AS DOUBLE) = 5",
        "rating IN ('4', '5')",
        "day >= '2024-01-01' AND day - 7 < moment",
        "zoned > '2024-01-01 10:00'",
        "hour BETWEEN '10:00' AND '12:00'",
        "name = '00000000-0000-0000-0000-000000000001'",
        "raw = 'abc' AND raw <> '\\xFF'",
        "list_contains(tags, 'x') AND tags[1] = 'a' AND tags = tags",
        "price = 4.60 AND price > reward",
        "is_good = true AND is_good",
        "reward IS NOT DISTINCT FROM NULL",
    ],
)
def test_like_is_compared_with_like(running: DuckDBPyConnection, text: str) -> None:
    assert checked(running, text, TYPES).text == text
