"""An output that was begun before plans said how they are read: it goes on by its rules, and is used as any other."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.__main__ import main
from jobs.command import parse
from jobs.compaction.flow import compact
from jobs.compaction.settings import CompactSettings
from tests.corpora import tiny_png
from tests.corpus.tars import tar_bytes
from tests.jobs import running
from tests.jobs.selection.test_export_work import read_webdataset
from tests.s3_server import Bucket, S3Server, storage_options

OLD = Path(__file__).parent.parent / "data" / "old_output"


@pytest.fixture
def pictures(s3_server: S3Server) -> Iterator[Bucket]:
    """The bucket that the old output was made from; another test has one of this name."""
    bucket = s3_server.named_bucket("pictures")
    bucket.clear()
    bucket.put_tree(OLD / "corpus")
    yield bucket
    bucket.clear()


def add_of_the_same_kinds(bucket: Bucket) -> None:
    """A table beside the folder that it describes, and a tar with a stem twice."""
    data = io.BytesIO()
    pq.write_table(pa.table({"url": [bucket.uri("web/later.png")], "key": ["000010000"], "caption": ["later"]}), data)
    members = [(f"{stem}.{end}", tiny_png(i) if end == "png" else b"%d" % i) for i, stem in enumerate("xyx")
               for end in ("png", "txt")]  # fmt: skip
    objects = {"00001.parquet": data.getvalue(), "00001/000010000.png": tiny_png(7), "later.tar": tar_bytes(members)}
    bucket.put_all({f"rooms/{name}": content for name, content in objects.items()} | {"web/later.png": tiny_png(8)})


def assert_holds(table: pa.Table, expected: list[dict[str, Any]]) -> None:
    """Rows with these values, and nothing else in these places."""
    rows = {(row["source"], row["key"], row["offset"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    for wanted in expected:
        found = rows[wanted["source"], wanted["key"], wanted.get("offset")]
        scores = {name: wanted.pop(name) for name in ("quality", "aesthetics", "reward") if name in wanted}
        assert {name: found[name] for name in wanted} == wanted
        np.testing.assert_allclose([found[name] for name in scores], list(scores.values()), atol=1e-6)


@pytest.mark.ray
@pytest.mark.s3
def test_it_is_resumed_verified_selected_from_exported_and_compacted(
    pictures: Bucket, tmp_path: Path, ray_address: str
) -> None:
    scores, chosen = tmp_path / "scores", tmp_path / "chosen"
    shutil.copytree(OLD / "output", scores)
    contract = (scores / "plan" / "000000.json").read_bytes()
    add_of_the_same_kinds(pictures)
    options = ("--storage-options", json.dumps(storage_options(pictures.endpoint)))
    flags = ("--assessor.checkpoint", "fake:", "--rubric", "q-align", "--chunk-images", "4", "--carry", "seed:int64")
    inputs = [word for given in ("rooms", "list.jsonl") for word in ("--input", pictures.uri(given))]
    code, said = running.run(*inputs, "--output", scores, *flags, *options, "--num-actors", "1", address=ray_address)
    assert code == 0, said
    table = running.read_table(scores)
    assert (scores / "plan" / "000000.json").read_bytes() == contract
    assert table.num_rows == 17 + 1 + 1 + 3
    assert_holds(table, [json.loads(line) for line in (OLD / "expected.jsonl").read_text().splitlines()])
    later = {row["offset"]: (row["key"], row["txt"]) for row in table.to_pylist() if "later.tar" in row["source"]}
    assert [later[offset] for offset in sorted(later)] == [("x.png", "2"), ("y.png", "1"), ("x.png", "2")]
    [described] = [row for row in table.to_pylist() if row["caption"] == "later"]
    assert described["source"] == pictures.uri("web/later.png"), "the table is an input of its own"

    assert main(["status", str(scores), "--verify", *options]) == 0
    kept = ("--scores", scores, "--output", chosen, "--where", "reward >= 1", "--export", "webdataset", "--no-report")
    code, said = running.run(*kept, *options, address=ray_address, job="select_corpus")
    assert code == 0, said
    exported = read_webdataset(chosen / "webdataset")
    assert sorted(json.loads(sample["scores.json"])["key"] for sample in exported) == sorted(
        row["key"] for row in table.to_pylist() if row["status"] == "scored"
    )
    assert compact(parse(CompactSettings, ["--scores", str(scores)])) == 0
    assert running.read_table(scores).equals(table)
    assert running.committed(scores) == 2, "a file for each segment of the plan"
    assert main(["status", str(scores), "--verify", *options]) == 0
