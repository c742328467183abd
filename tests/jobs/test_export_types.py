"""Columns of every type and of odd names through every export, read back by the library that the docs name.

Tests iqa_core/selection/exports/card.py, iqa_core/selection/exports/features.py,
iqa_core/selection/exports/imagefolder.py, iqa_core/selection/exports/listing.py, iqa_core/selection/exports/parquet.py,
iqa_core/selection/exports/samples.py, iqa_core/selection/exports/values.py and
iqa_core/selection/exports/webdataset.py.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import json
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as paj
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.chunks import ReadOptions, chunk_name
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits
from iqa_core.selection.exports import imagefolder
from iqa_core.selection.exports.card import card
from iqa_core.selection.exports.samples import value_schema
from iqa_core.selection.exports.values import infinite
from iqa_core.storage.storage import Storage
from iqa_core.tables.duckdb_engine import engine, engine_type, file_list
from iqa_core.tables.ledger import Ledger
from jobs.command import parse
from jobs.selection.export_work import ExportWork, export_shard
from jobs.selection.exporting import ExportOutcome, shards
from jobs.selection.flow import opened, select
from jobs.selection.job import checked
from jobs.selection.settings import SelectSettings
from tests.corpora import tiny_png
from tests.jobs.selection.test_export_work import read_webdataset
from tests.selection.conftest import decisions
from tests.selection.score_tables import write_score_table

pytestmark = pytest.mark.slow


BIG = 2**53 + 1
ZONED = dt.datetime(2024, 2, 29, 12, 30, 15, 250_000, dt.UTC)
IDENTITY = uuid.UUID(int=2**127 + 5)
NOON = ZONED.replace(tzinfo=None)
WHOLE = NOON.replace(microsecond=0)
RECORD = {"images": 3, "dropped_by_reason": {}, "scores": [], "dimensions": [], "policy_digest": "0", "policy": {}}
HIDDEN_NAMES = {"weight": "input_weight", "kept": "input_kept"}

TYPES: dict[str, tuple[pa.DataType, Any, Any, Any]] = {
    # column: type, its value, in Parquet, in JSON (where these are others)
    "null": (pa.null(), None, None, None),
    "bool": (pa.bool_(), True, True, True),
    "int8": (pa.int8(), -8, -8, -8),
    "int64": (pa.int64(), BIG, BIG, BIG),
    "uint64": (pa.uint64(), 2**64 - 1, 2**64 - 1, 2**64 - 1),
    "half": (pa.float16(), np.float16(0.1), pytest.approx(0.1, rel=1e-3), 0.1),
    "float": (pa.float32(), 0.1, pytest.approx(0.1), 0.1),
    "double": (pa.float64(), 0.1, 0.1, 0.1),
    "nan": (pa.float64(), float("nan"), pytest.approx(float("nan"), nan_ok=True), None),
    "infinity": (pa.float32(), float("inf"), float("inf"), None),
    "decimal32": (pa.decimal32(5, 2), Decimal("4.60"), Decimal("4.60"), "4.60"),
    "decimal128": (pa.decimal128(38, 2), Decimal("4.60"), Decimal("4.60"), "4.60"),
    "decimal256": (pa.decimal256(50, 2), Decimal(f"{10**40}.25"), Decimal(f"{10**40}.25"), f"{10**40}.25"),
    "string": (pa.string(), 'a "quoted"\nküche', 'a "quoted"\nküche', 'a "quoted"\nküche'),
    "large_string": (pa.large_string(), "a", "a", "a"),
    "string_view": (pa.string_view(), "a", "a", "a"),
    "digits": (pa.string(), "007", "007", "007"),
    "binary": (pa.binary(), b"\xff\x00", b"\xff\x00", base64.b64encode(b"\xff\x00").decode()),
    "fixed_binary": (pa.binary(2), b"\xff\x00", b"\xff\x00", base64.b64encode(b"\xff\x00").decode()),
    "date32": (pa.date32(), NOON.date(), NOON.date(), "2024-02-29"),
    "date64": (pa.date64(), NOON.date(), NOON.date(), "2024-02-29"),
    "time32": (pa.time32("s"), dt.time(1, 2), dt.time(1, 2), "01:02:00"),
    "time64": (pa.time64("us"), NOON.time(), NOON.time(), "12:30:15.250000"),
    "timestamp_s": (pa.timestamp("s"), WHOLE, WHOLE, "2024-02-29 12:30:15.000"),
    "timestamp_us": (pa.timestamp("us"), NOON, NOON, "2024-02-29 12:30:15.250000"),
    "zoned": (pa.timestamp("ms", "Europe/Berlin"), ZONED, ZONED, "2024-02-29 12:30:15.250Z"),
    "duration": (pa.duration("s"), dt.timedelta(seconds=90), dt.timedelta(seconds=90), 90),
    "list": (pa.list_(pa.float32()), [0.1, None, float("nan")], None, [0.1, None, None]),
    "large_list": (pa.large_list(pa.int64()), [BIG], [BIG], [BIG]),
    "fixed_list": (pa.list_(pa.float32(), 2), [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]),
    "half_list": (pa.list_(pa.float16()), [1.5], [1.5], [1.5]),
    "struct": (
        pa.struct([("a", pa.int64()), ("b", pa.binary()), ("d", pa.list_(pa.date32()))]),
        {"a": 1, "b": b"\xff", "d": [NOON.date()]},
        {"a": 1, "b": b"\xff", "d": [NOON.date()]},
        {"a": 1, "b": base64.b64encode(b"\xff").decode(), "d": ["2024-02-29"]},
    ),
    "map": (pa.map_(pa.string(), pa.int64()), [("a", 1)], '[["a", 1]]', [["a", 1]]),
    "uuid": (pa.uuid(), IDENTITY, str(IDENTITY), str(IDENTITY)),
    "document": (pa.json_(), '{"a": 1}', '{"a": 1}', '{"a": 1}'),
}  # fmt: skip

NAMES = ("", 'quo"ted', "Prompt", "prompt", "a.b", "ключ 🙂", "image", "image_value", "input_image", "file_name",
         "cover_file_name", "label", "text", "__key__", "weight", "kept", "file_index", "file_row_number",
         "Reward")  # fmt: skip
"""Of columns that hold their own name."""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images: one with a value in every column, one with nulls, one more with values; the second is not kept."""
    root = tmp_path_factory.mktemp("types")
    rows = []
    for index in range(3):
        path = root / f"{index}.png"
        path.write_bytes(tiny_png(index))
        rows.append(
            {
                "key": path.name,
                "source": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "reward": [3.0, 1.0, 4.0][index],
            }
        )
    fields = [pa.field(name, kind) for name, (kind, *_) in TYPES.items()]
    carried = pa.schema([*fields, *(pa.field(name, pa.string()) for name in NAMES)])
    output = write_score_table(root / "scores", rows, carried)
    ledger = Ledger(Storage(), str(output))
    [(chunk, table)] = ledger.read_all([chunk_name(0, 0)])
    for name, (kind, value, *_) in TYPES.items():
        stored = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
        raw = value.bytes if isinstance(value, uuid.UUID) else value
        array = pa.array([raw, None, raw], stored)
        table = _with(table, name, kind.wrap_array(array) if stored is not kind else array)
    for name in NAMES:
        table = _with(table, name, pa.array([name, None, name]))
    ledger.commit(chunk, table, {})
    return output


def _with(table: pa.Table, name: str, array: pa.Array) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, pa.field(name, array.type), array)


def exported(scores: Path, output: Path, format: str, *flags: str) -> pa.Schema:
    """Every shard of the export, without Ray; the columns of its rows."""
    where = flags or ("--where", "reward > 1")
    job = checked(parse(SelectSettings, ["--scores", str(scores), "--output", str(output), *where]))
    work = ExportWork(Storage(), str(output), format, ReadOptions(), ImageLimits(), None, False, 9)
    with opened(job, output / "scratch") as decided:
        for shard in shards(decided.kept(), 9):
            done = export_shard(shard.name, shard.rows, work)
            assert (done.failure, done.missing.num_rows) == (None, 0)
            assert infinite(shard.rows) == {"infinity": shard.rows.num_rows}, "what JSON cannot say is counted"
        return decided.kept_schema


def test_parquet_keeps_every_type(scores: Path, tmp_path: Path) -> None:
    import datasets

    exported(scores, tmp_path / "out", "parquet")
    loaded = datasets.load_dataset(str(tmp_path / "out" / "parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["image"] == datasets.Image()
    first, last = loaded[0], loaded[1]
    assert (first["key"], last["key"]) == ("0.png", "2.png")
    for name, (_, _, expected, _) in TYPES.items():
        found = first[name]
        if name == "list":
            assert found[:2] == [pytest.approx(0.1), None]
            assert np.isnan(found[2])
        else:
            assert found == expected, name
    renamed = {"image": "input_image_"} | HIDDEN_NAMES
    for name in NAMES:
        assert first[renamed.get(name, name)] == name


def test_imagefolder_keeps_every_value(scores: Path, tmp_path: Path) -> None:
    import datasets

    schema = exported(scores, tmp_path / "out", "imagefolder")
    folder = tmp_path / "out" / "imagefolder"
    (folder / "README.md").write_text(imagefolder.front_matter(value_schema(schema), "a"))
    [line, _] = (folder / "000000-000000" / "metadata.jsonl").read_text().splitlines()
    json.loads(line, parse_constant=lambda found: pytest.fail(f"{found} is no JSON"))
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    first = loaded[0]
    as_types = {"date32": NOON.date(), "date64": NOON.date(), "duration": dt.timedelta(seconds=90)}
    for name, (kind, _, _, expected) in TYPES.items():
        if pa.types.is_nested(kind):
            assert json.loads(first[name]) == expected, name
        elif name in {"half", "float"}:
            assert first[name] == pytest.approx(expected), name
        else:
            assert first[name] == as_types.get(name, str(expected) if name == "uint64" else expected), name
    renamed = {
        "image": "image_value_",
        "file_name": "file_name_value",
        "cover_file_name": "cover_file_name_value",
    } | HIDDEN_NAMES
    for name in NAMES:
        assert first[renamed.get(name, name)] == name
    assert (first["image"].size, loaded[1]["image"].size) == ((24, 24), (26, 24))


def test_two_folders_of_one_cache_are_two_data_sets(scores: Path, tmp_path: Path) -> None:
    """Their columns are the same, their decisions are not."""
    import datasets

    keys = []
    for digest, where in (("a", "reward = 3"), ("b", "reward = 4")):
        schema = exported(scores, tmp_path / digest, "imagefolder", "--where", where)
        folder = tmp_path / digest / "imagefolder"
        (folder / "README.md").write_text(imagefolder.front_matter(value_schema(schema), digest))
        keys.append(datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))["key"][:])
    assert keys == [["0.png"], ["2.png"]]


@pytest.mark.parametrize(
    "text",
    ["2024-01-01", "2024-01-01 12:30", "2024-01-01T12:30:15Z", "2024-01-01 12:30:15+02:00", "0001-01-01",
     "2024-01-01T12", "2024", "2024-01", "20240101", "12:30:15", "2024-01-01 12:30:15.000", "2024-01-01 of May", "",
     "4.6"],
)  # fmt: skip
def test_text_that_is_read_as_dates_is_named(text: str) -> None:
    """As the JSON reader that `datasets` has takes it."""
    found = paj.read_json(io.BytesIO(json.dumps({"created": text}).encode()))
    is_time = pa.types.is_timestamp(found.schema.field("created").type)
    assert imagefolder.taken_for_times(pa.table({"created": [text, None], "n": [1, 2]})) == ["created"] * is_time
    assert imagefolder.taken_for_times(pa.table({"created": [text, "x"]})) == [], "one other text saves them all"


def test_what_an_export_alters_is_said_by_column() -> None:
    outcome = ExportOutcome(infinite=Counter({"aes": 3}), read_as_times={"created"})
    assert outcome.altered == [
        "3 infinite numbers of aes: null, since JSON has none",
        "text of created: datasets reads it as dates and times",
    ]
    assert "- 3 infinite numbers of aes" in card("imagefolder", RECORD, 2, 0, outcome.altered)
    assert "It is empty" in card("imagefolder", RECORD, 0, 0)


def test_webdataset_keeps_every_value(scores: Path, tmp_path: Path) -> None:
    exported(scores, tmp_path / "out", "webdataset")
    samples = read_webdataset(tmp_path / "out" / "webdataset")
    assert [sample["__key__"] for sample in samples] == ["000000-000000-000000", "000000-000000-000001"]
    found = json.loads(samples[0]["scores.json"], parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert {name: found[name] for name in TYPES} == {name: expected for name, (_, _, _, expected) in TYPES.items()}
    assert {found[HIDDEN_NAMES.get(name, name)] for name in NAMES} == set(NAMES)


def test_the_engine_reads_what_engine_type_says(scores: Path) -> None:
    [file] = (scores / "scores").glob("*.parquet")
    with engine([file.parent]) as connection:
        described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({file_list([file])})").fetchall()
    read = {name: kind for name, kind, *_ in described if name in TYPES}
    said = {name: engine_type(kind) for name, (kind, *_) in TYPES.items()}
    assert {name: kind for name, kind in said.items() if kind is None} == dict.fromkeys(
        ["decimal256", "duration", "map"]
    )
    readable = {name: kind.replace('"', "") for name, kind in said.items() if kind}
    assert {name: read[name] for name in readable} | {"null": "INTEGER"} == readable


def test_a_column_of_another_type_costs_a_selection_nothing(scores: Path, tmp_path: Path) -> None:
    exported(scores, tmp_path / "a", "parquet", "--where", "prompt = 'prompt' AND \"file_row_number\" > 'a'")
    kept = pq.read_table(tmp_path / "a" / "parquet" / "000000-000000.parquet")
    assert kept.column("key").to_pylist() == ["0.png", "2.png"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--where", "decimal256 > 3"), "decimal256 is decimal256(50, 2), which a condition cannot read"),
        (("--where", "reward > 3 OR duration IS NULL"), "duration is duration[s], which a condition cannot read"),
        (("--where", "map IS NULL"), "map is map<string, int64>, which a condition cannot read"),
        (("--where", "PROMPT = 'a'"), 'column "PROMPT" differs from Prompt, prompt in case alone'),
        (("--balance", "map"), "--balance map: it is map<string, int64>"),
        (("--best-of", "1", "--per", "duration"), "--per duration: it is duration[s]"),
        (("--quantile", "decimal256=0.5"), "--quantile decimal256: it is decimal256(50, 2)"),
        (("--quantile", "string=0.5"), "--quantile string: it is string; only numbers have quantiles"),
    ],
)
def test_a_column_that_is_asked_about_is_refused_by_name(
    scores: Path, tmp_path: Path, flags: tuple[str, ...], why: str
) -> None:
    with pytest.raises(CallerError) as caught:
        checked(parse(SelectSettings, ["--scores", str(scores), "--output", str(tmp_path / "out"), *flags]))
    assert why in str(caught.value)


@pytest.mark.parametrize("name", ["", 'quo"ted', "binary", "date64", "nan", "half", "uuid", "list", "null"])
def test_groups_and_balance_take_columns_of_any_name_and_type(scores: Path, tmp_path: Path, name: str) -> None:
    """Values of rows 0 and 2 are equal, row 1 has none; NaN is none either."""
    flags = ["--output", str(tmp_path / "out"), "--no-report", "--best-of", "1", "--per", name, "--balance", name]
    assert select(parse(SelectSettings, ["--scores", str(scores), *flags])) == 0
    found = decisions(tmp_path / "out").to_pylist()
    one_group = name in {"nan", "null"}
    assert [row["reason"] for row in found] == ["5:best_of", "5:best_of" if one_group else None, None]
