"""Exports as a user makes them, on a real Ray: whatever stops one, in the end it is that of an undisturbed run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.clock import wait_for
from tests.corpora import tiny_png, write_folder
from tests.jobs import running
from tests.s3_server import Bucket, storage_options
from tests.selection.conftest import record
from tests.selection.scored_corpora import ScoredCorpus, score, write_scored_corpus

FORMATS = ("webdataset", "imagefolder", "parquet", "list")
EVERY = tuple(argument for name in FORMATS for argument in ("--export", name))


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but those that are half written."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".tmp" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def shards_of(output: Path) -> int:
    """Those that are written, of all exports."""
    return len(list(output.glob("manifests/*/*.parquet")))


def select(corpus: ScoredCorpus, output: Path, *flags: object, address: str | None) -> tuple[int, str]:
    arguments = ("--scores", corpus.scores, "--output", output, "--where", "reward > 1", "--shard-images", 5)
    return running.run(*running.over(arguments, *flags), address=address, timeout_s=400, job="select_corpus")


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_an_export_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path, ray_address: str) -> None:
    corpus = write_scored_corpus(tmp_path, 60)
    code, output = select(corpus, tmp_path / "whole", *EVERY, address=ray_address)
    assert code == 0, output
    expected = files_of(tmp_path / "whole")
    assert {name.split("/")[0] for name in expected} == {
        *FORMATS,
        "decisions",
        "manifests",
        "report.html",
        "selection.json",
    }
    seed = random.randrange(10_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    flags = ("--scores", corpus.scores, "--output", tmp_path / "killed", "--where", "reward > 1", "--shard-images", 5)
    killed = 0
    for moment in range(3):
        process = running.start(*flags, *EVERY, address=ray_address, job="select_corpus")
        shards = shards_of(tmp_path / "killed") + rng.randrange(0, 8) * (moment > 0)
        wait_for(
            lambda p=process, few=shards: p.poll() is not None or shards_of(tmp_path / "killed") > few,
            timeout_s=240,
            every_s=0.01,
        )
        killed += process.poll() is None
        running.kill(process)
    assert killed
    code, output = select(corpus, tmp_path / "killed", *EVERY, address=ray_address)
    assert code == 0, output
    assert files_of(tmp_path / "killed") == expected


@pytest.mark.chaos
@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.timeout(600)
def test_an_export_to_an_object_store_is_killed_and_finished(tmp_path: Path, ray_address: str, s3: Bucket) -> None:
    corpus = write_scored_corpus(tmp_path, 30)
    exports = ("--export", "webdataset")
    assert select(corpus, tmp_path / "whole", *exports, "--no-report", address=ray_address)[0] == 0
    options = ("--storage-options", json.dumps(storage_options(s3.endpoint)))
    flags = ("--scores", corpus.scores, "--output", s3.uri("out"), "--where", "reward > 1", "--shard-images", 5)
    process = running.start(*flags, *exports, *options, "--no-report", address=ray_address, job="select_corpus")
    wait_for(
        lambda: process.poll() is not None or sum(key.endswith(".parquet") for key in s3.keys("out/manifests/")) > 1,
        timeout_s=240,
        every_s=0.02,
    )
    assert process.poll() is None, "there is something to kill"
    running.kill(process)
    code, output = running.run(
        *flags, *exports, *options, "--no-report", address=ray_address, timeout_s=400, job="select_corpus"
    )
    assert code == 0, output
    s3.fetch_tree("out", tmp_path / "fetched")
    assert files_of(tmp_path / "fetched") == files_of(tmp_path / "whole")


@pytest.mark.ray
def test_missing_originals_are_listed_and_exit_1_unless_allowed(tmp_path: Path, ray_address: str) -> None:
    corpus = write_scored_corpus(tmp_path)
    scored = (row for row in running.read_table(corpus.scores).to_pylist() if row["status"] == "scored")
    key = next(row["key"] for row in scored if row["key"].startswith("loose/"))
    victim = tmp_path / "corpus" / key
    data = victim.read_bytes()
    flags = ("--export", "webdataset")
    victim.unlink()
    everything = ("--where", "reward >= 1")
    code, output = select(corpus, tmp_path / "out", *flags, *everything, address=ray_address)
    assert code == 1, output
    assert "missing    1 original" in output
    assert f"{key}: missing, there is no such file" in output
    assert "unfinished 1 shard, which the same command tries again" in output
    lines = (tmp_path / "out" / "manifests" / "webdataset" / "missing.jsonl").read_text().splitlines()
    listed = [json.loads(line) for line in lines]
    assert [row["key"] for row in listed] == [key]
    assert not (tmp_path / "out" / "webdataset" / "README.md").exists()

    code, output = select(corpus, tmp_path / "out2", *flags, *everything, "--allow-missing", address=ray_address)
    assert code == 0, output
    assert "1 originals were moved" in (tmp_path / "out2" / "webdataset" / "README.md").read_text()

    victim.write_bytes(data)
    code, output = select(corpus, tmp_path / "out", *flags, *everything, address=ray_address)
    assert code == 0, output
    assert not (tmp_path / "out" / "manifests" / "webdataset" / "missing.jsonl").exists()
    assert (tmp_path / "out" / "webdataset" / "README.md").exists()


@pytest.mark.slow
def test_a_list_needs_no_ray_and_has_the_columns_that_simpletuner_reads(tmp_path: Path) -> None:
    corpus = write_scored_corpus(tmp_path)
    flags = ("--export", "list", "--caption-column", "caption")
    code, output = select(corpus, tmp_path / "out", *flags, address="127.0.0.1:1")
    assert code == 0, output
    table = pq.read_table(tmp_path / "out" / "list" / "selected.parquet")
    assert table.column_names[:4] == ["filename", "caption", "width", "height"]
    assert table.num_rows == record(tmp_path / "out")["kept"] > 0
    loose = [row for row in table.to_pylist() if row["filename"].startswith("loose/")]
    assert all((tmp_path / "corpus" / row["filename"]).read_bytes() == corpus.images[row["filename"]] for row in loose)
    lines = (tmp_path / "out" / "list" / "selected.txt").read_text().splitlines()
    assert len(lines) == table.num_rows
    assert str(tmp_path / "corpus" / loose[0]["filename"]) in lines
    assert any(line.startswith(f"{tmp_path}/corpus/a.tar\t") for line in lines)


@pytest.mark.slow
def test_an_export_of_other_decisions_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{index}.png": tiny_png(index) for index in range(4)})
    corpus = ScoredCorpus(score(tmp_path / "scores", tmp_path / "in"), {})
    assert select(corpus, tmp_path / "out", "--export", "list", address=None)[0] == 0
    code, output = select(corpus, tmp_path / "out", "--export", "list", "--caption-column", "format", address=None)
    assert code == 2
    assert "begun otherwise (--caption-column: absent there, format now)" in output
    write_folder(tmp_path / "in", {f"new{index}.png": tiny_png(index) for index in range(4, 9)})
    score(tmp_path / "scores", tmp_path / "in")
    code, output = select(corpus, tmp_path / "out", "--export", "list", address=None)
    assert code == 2
    assert "begun before more images were scored" in output


@pytest.mark.slow
def test_rows_that_were_scored_anew_change_nothing_under_an_export(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{index}.png": tiny_png(index) for index in range(4)})
    corpus = ScoredCorpus(score(tmp_path / "scores", tmp_path / "in"), {})
    assert select(corpus, tmp_path / "out", "--export", "list", address=None)[0] == 0
    before = files_of(tmp_path / "out")
    [chunk] = (tmp_path / "scores" / "scores").iterdir()
    rows = pq.read_table(chunk)
    again = rows.set_column(rows.schema.get_field_index("reward"), "reward", pa.array([5.0] * 4, pa.float32()))
    pq.write_table(again, chunk)
    code, output = select(corpus, tmp_path / "out", "--export", "list", address=None)
    assert code == 1, output
    assert "000000.parquet would be another now, since rows were scored anew" in output
    assert files_of(tmp_path / "out") == before
