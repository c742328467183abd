"""The whole job on an object store that throttles, fails, cuts and forgets: the table is that of a run without."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.records import Reason
from tests.corpora import write_list, write_mixed
from tests.faulty_proxy import Fault, FaultyProxy
from tests.jobs import running
from tests.s3_server import SECRET, Bucket, S3Server, storage_options

pytestmark = [pytest.mark.ray, pytest.mark.s3]

IMAGES = 150
MISSING = "elsewhere/picture-99999.png"
"""Named by the list, and nowhere to be found."""

FLAGS = ("--assessor.checkpoint", "fake:", "--num-actors", "1", "--chunk-images", "20", "--carry", "index:int64")


@dataclass(frozen=True, slots=True)
class Corpus:
    """The same images on the local disk and in a bucket, and the table of an undisturbed run on the disk."""

    bucket: Bucket
    table: dict[str, dict[str, Any]]
    """By key."""
    listed: list[str]
    """Keys of what the list names, without the missing one."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, ray_address: str) -> Corpus:
    root = tmp_path_factory.mktemp("mixed")
    mixed = write_mixed(root, IMAGES)
    listed = [key for key in mixed.images if key.startswith("elsewhere/")]
    write_list(root / "list.jsonl", [*listed, MISSING])
    out = tmp_path_factory.mktemp("reference") / "out"
    inputs = [argument for given in mixed.inputs for argument in ("--input", given)]
    code, output = running.run(*inputs, "--output", out, *FLAGS, address=ray_address)
    assert code == 0, output
    bucket = s3_server.new_bucket()
    bucket.put_tree(root)
    bucket.put("list.jsonl", _list_of([bucket.uri(key) for key in (*listed, MISSING)]))
    return Corpus(bucket, by_key(running.read_table(out)), listed)


def test_faults_cost_no_row_and_spoil_none(
    corpus: Corpus, s3_proxy: FaultyProxy, ray_address: str, tmp_path: Path
) -> None:
    loose = next(key for key in corpus.table if key.startswith("loose/"))
    denied = [corpus.listed[0], f"corpus/{loose}"]
    for key in denied:
        s3_proxy.refuse(f"/{key}$")
    code, output = score(corpus, "through-faults", s3_proxy, ray_address)
    assert code == 0, output
    counts = s3_proxy.fault_counts()
    assert all(counts[fault] > 0 for fault in Fault), f"every kind of fault has happened: {counts}"

    found = table_of(corpus, "through-faults", tmp_path)
    expected = {**corpus.table, **{key: forbidden(corpus.table[key]) for key in (loose, corpus.listed[0])}}
    assert_same_rows(found, expected)
    assert found[MISSING]["reason"] == Reason.MISSING
    for key in (*denied, MISSING):
        assert s3_proxy.requests(f"/{key}$")
        assert len(s3_proxy.answered(f"/{key}$")) <= 1, "an answer is an answer"
    assert len(s3_proxy.requests(r"^HEAD .*\.png$")) == 0, "the size is in the listing, or in the answer"

    record = json.loads(corpus.bucket.get("through-faults/run.json"))
    assert (record["complete"], record["images"], record["scored"]) == (True, IMAGES + 1, IMAGES - 2)
    assert record["rejected_by_reason"] == {"forbidden": 2, "missing": 1}
    assert SECRET not in output
    written = [corpus.bucket.get(key) for key in corpus.bucket.keys("through-faults/")]
    assert not any(SECRET.encode() in content for content in written)


def test_expired_credentials_and_outages_leave_a_run_that_goes_on(
    corpus: Corpus, s3_proxy: FaultyProxy, ray_address: str, tmp_path: Path
) -> None:
    outage = corpus.listed[: len(corpus.listed) // 2]
    for key in outage:
        s3_proxy.refuse(f"/{key}$")
    code, output = score(corpus, "resumed", s3_proxy, ray_address)
    assert code == 1, output
    assert f"{len(outage)} of {len(corpus.listed) + 1} images were forbidden or could not be fetched" in output
    record = json.loads(corpus.bucket.get("resumed/run.json"))
    assert record["complete"] is False
    (unfinished,) = record["unfinished"]
    assert f"{unfinished}: " in output
    assert f"resumed/scores/{unfinished}.parquet" not in corpus.bucket.keys("resumed/scores/")
    finished = {key: row for key, row in corpus.table.items() if key not in {*corpus.listed, MISSING}}
    assert_same_rows(table_of(corpus, "resumed", tmp_path / "outage"), finished)

    s3_proxy.relent()
    s3_proxy.refuse(r"GET .*\.png$", "ExpiredToken", 400, after=10)
    code, output = score(corpus, "resumed", s3_proxy, ray_address)
    assert code == 1, output
    assert "failed: " in output
    assert "credentials are refused (ExpiredToken); renew them and run the same command" in output
    assert s3_proxy.refusals()["ExpiredToken"] > 0
    assert_same_rows(table_of(corpus, "resumed", tmp_path / "expired"), finished)

    s3_proxy.relent()
    s3_proxy.clear()
    code, output = score(corpus, "resumed", s3_proxy, ray_address)
    assert code == 0, output
    assert_same_rows(table_of(corpus, "resumed", tmp_path / "end"), corpus.table)
    assert not s3_proxy.requests(r"GET .*/loose/.*\.png$"), "what is finished is not read again"


def score(corpus: Corpus, name: str, proxy: FaultyProxy, ray_address: str) -> tuple[int, str]:
    """The job on the bucket, through the proxy, into a prefix of the same bucket; no report, which reads pictures."""
    bucket = corpus.bucket
    inputs = ("--input", bucket.uri("corpus"), "--input", bucket.uri("list.jsonl"))
    options = ("--storage-options", json.dumps(storage_options(proxy.endpoint)))
    return running.run(*inputs, "--output", bucket.uri(name), *FLAGS, "--no-report", *options, address=ray_address)


def table_of(corpus: Corpus, name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Rows in the bucket by key; a URI of the bucket is taken for the key that it has on the disk."""
    corpus.bucket.fetch_tree(f"{name}/scores", folder / "scores")
    table = running.read_table(folder)
    prefix = f"{corpus.bucket.uri()}/"
    keys = pa.array([key.removeprefix(prefix) for key in table.column("key").to_pylist()])
    return by_key(table.set_column(table.schema.get_field_index("key"), "key", keys))


def by_key(table: pa.Table) -> dict[str, dict[str, Any]]:
    rows = {row["key"]: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows, "no key twice"
    return rows


def forbidden(row: dict[str, Any]) -> dict[str, Any]:
    """What becomes of a row whose image is denied: it keeps its name and what came along with it."""
    kept = {name: row[name] for name in ("key", "source", "index", "caption", "json", "txt", "seed")}
    reason = {"status": "rejected", "reason": "forbidden", "detail": "access is denied"}
    return {**dict.fromkeys(row), **kept, **reason}


def assert_same_rows(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """The same keys with the same values, wherever the source lies."""
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        other = found[key]
        assert other.keys() == row.keys()
        for name, value in row.items():
            if name == "source":
                continue
            if isinstance(value, float):
                np.testing.assert_allclose(other[name], value, atol=1e-6, err_msg=f"{key} {name}")
            else:
                assert other[name] == value, (key, name)


def _list_of(uris: list[str]) -> bytes:
    """The list as `write_list` writes it."""
    return "".join(json.dumps({"uri": uri, "seed": index}) + "\n" for index, uri in enumerate(uris)).encode()
