"""Shards of an export, each read back by the library that it is for: the images are the originals, byte by byte."""

from __future__ import annotations

import gc
import io
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.records import ImageLimits
from iqa_core.selection.exports import imagefolder
from iqa_core.selection.exports.samples import value_schema
from iqa_core.storage.storage import Storage
from jobs.command import parse
from jobs.selection.export_work import ExportWork, export_shard
from jobs.selection.exporting import labelled, shards
from jobs.selection.flow import opened
from jobs.selection.job import FORMATS, checked
from jobs.selection.settings import SelectSettings
from tests.selection.scored_corpora import ScoredCorpus, write_scored_corpus

pytestmark = pytest.mark.slow


SHARD_IMAGES = 6


@pytest.fixture
def corpus(tmp_path: Path) -> ScoredCorpus:
    return write_scored_corpus(tmp_path)


def exported(corpus: ScoredCorpus, output: Path, format: str, *flags: str, allow_missing: bool = False) -> pa.Table:
    """Every shard of the export, without Ray; the rows of what is kept."""
    arguments = ["--scores", str(corpus.scores), "--output", str(output), "--where", "reward > 1", *flags]
    job = checked(parse(SelectSettings, arguments))
    caption = job.settings.caption_column
    work = ExportWork(
        Storage(), str(output), format, ReadOptions(), ImageLimits(), caption, allow_missing, SHARD_IMAGES
    )
    rows: list[pa.Table] = []
    with opened(job, output / "scratch") as decided:
        for shard in shards(decided.kept(), SHARD_IMAGES):
            done = export_shard(shard.name, shard.rows, work)
            assert done.failure is None, done.failure
            rows.append(shard.rows)
    assert rows
    return pa.concat_tables(rows)


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def read_webdataset(folder: Path) -> list[dict[str, Any]]:
    """All samples, by the library's own loader, which leaves the closing of its files to the garbage collector."""
    import webdataset

    tars = sorted(map(str, folder.glob("*.tar")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        found = list(webdataset.WebDataset(tars, shardshuffle=False))
        gc.collect()
    return found


@pytest.mark.slow
def test_webdataset_reads_back_the_original_bytes_with_sidecars_and_scores(
    corpus: ScoredCorpus, tmp_path: Path
) -> None:
    rows = exported(corpus, tmp_path / "out", "webdataset").to_pylist()
    assert len(list((tmp_path / "out" / "webdataset").glob("*.tar"))) == -(-len(rows) // SHARD_IMAGES)
    found = read_webdataset(tmp_path / "out" / "webdataset")
    assert len(found) == len(rows)
    for sample, row in zip(found, rows, strict=True):
        scores = json.loads(sample["scores.json"])
        assert sample["png"] == corpus.images[row["key"]]
        assert (scores["key"], scores["source"], scores["sha256"]) == (row["key"], row["source"], row["sha256"])
        assert (scores["reward"], scores["weight"]) == (row["reward"], 1)
        assert scores["layout"] == pytest.approx(row["layout"])
        assert scores["layout"] == round(scores["layout"], 1), "the digits of a float32, not of the double next to it"
        assert ("json" in sample) == (row["json"] is not None)
        if "json" in sample:
            assert sample["json"] == row["json"].encode(), "the sidecar as it was"
    assert any("json" in sample for sample in found)


@pytest.mark.slow
def test_a_caption_column_becomes_the_text_of_a_sample(corpus: ScoredCorpus, tmp_path: Path) -> None:
    flags = ("--export", "webdataset", "--caption-column", "caption")
    rows = exported(corpus, tmp_path / "out", "webdataset", *flags).to_pylist()
    found = read_webdataset(tmp_path / "out" / "webdataset")
    texts = [sample.get("txt", b"").decode() or None for sample in found]
    assert texts == [row["caption"] for row in rows]
    assert any(texts)


@pytest.mark.slow
def test_imagefolder_reads_back_with_its_metadata(corpus: ScoredCorpus, tmp_path: Path) -> None:
    import datasets

    table = exported(corpus, tmp_path / "out", "imagefolder")
    rows = table.to_pylist()
    folder = tmp_path / "out" / "imagefolder"
    by_key = {row["key"]: row for row in rows}
    (folder / "README.md").write_text(imagefolder.front_matter(value_schema(table.schema), "0"))
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == len(rows)
    for item in loaded.cast_column("image", datasets.Image(decode=False)):
        data = Path(item["image"]["path"]).read_bytes()
        row = by_key.pop(item["key"])
        assert data == corpus.images[row["key"]]
        assert (item["reward"], item["sha256"], item["json"]) == (row["reward"], row["sha256"], row["json"])
    first = loaded[0]
    assert first["image"].convert("RGB").tobytes() == pixels(corpus.images[first["key"]])


@pytest.mark.slow
def test_parquet_reads_back_as_images(corpus: ScoredCorpus, tmp_path: Path) -> None:
    import datasets

    rows = exported(corpus, tmp_path / "out", "parquet").to_pylist()
    files = sorted(map(str, (tmp_path / "out" / "parquet").glob("*.parquet")))
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["image"] == datasets.Image()
    assert loaded["key"][:] == [row["key"] for row in rows]
    for item, row in zip(loaded, rows, strict=True):
        assert item["image"].convert("RGB").tobytes() == pixels(corpus.images[row["key"]])
    raw = pa.concat_tables([pq.read_table(file) for file in files])
    assert [cell["bytes"] for cell in raw["image"].to_pylist()] == [corpus.images[row["key"]] for row in rows]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", ["webdataset", "imagefolder", "parquet"])
def test_the_same_shards_give_the_same_files(corpus: ScoredCorpus, tmp_path: Path, format: str) -> None:
    for name in ("a", "b"):
        exported(corpus, tmp_path / name, format)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def spoiled(root: Path, kept: list[str]) -> dict[str, str]:
    """Moves, changes or replaces originals; key -> what is to be said of it."""
    loose = [key for key in kept if key.startswith("loose/")]
    (root / "corpus" / loose[1]).unlink()
    (root / "corpus" / loose[-1]).write_bytes(b"something else")
    shutil.copy(root / "corpus" / "a.tar", root / "corpus" / "z.tar")
    (root / "corpus" / "table.parquet").unlink()
    return {
        loose[1]: "there is no such file",
        loose[-1]: "its bytes are no longer those that were scored",
    }


def test_originals_that_are_gone_or_changed_are_listed_and_their_shards_wait(
    corpus: ScoredCorpus, tmp_path: Path
) -> None:
    kept = exported(corpus, tmp_path / "before", "webdataset").column("key").to_pylist()
    said = spoiled(tmp_path, kept)
    exported(corpus, tmp_path / "allowed", "webdataset", allow_missing=True)
    manifests = sorted((tmp_path / "allowed" / "manifests" / "webdataset").glob("*.parquet"))
    rows = pa.concat_tables([pq.read_table(file) for file in manifests]).to_pylist()
    assert [row["key"] for row in rows] == kept, "every kept image is accounted for"
    missing = {row["key"]: row["detail"] for row in rows if row["reason"] is not None}
    assert missing | said == missing
    assert {row["key"] for row in rows if row["stem"] is None} == set(missing)
    assert any(key.startswith("picture-") for key in missing), "of the replaced tar and the lost table as well"
    exported(corpus, tmp_path / "waiting", "webdataset")
    whole = {path.name for path in (tmp_path / "waiting" / "webdataset").glob("*.tar")}
    assert whole < {path.name for path in (tmp_path / "allowed" / "webdataset").glob("*.tar")}
    for name in whole:
        same = [(tmp_path / output / "webdataset" / name).read_bytes() for output in ("before", "waiting")]
        assert same[0] == same[1]


def test_shards_are_bounded_by_number_and_by_bytes() -> None:
    def block(lengths: list[int | None], side: int = 10) -> pa.Table:
        count = len(lengths)
        return pa.table(
            {
                "length": pa.array(lengths, pa.int64()),
                "width": pa.array([side] * count, pa.int32()),
                "height": pa.array([side] * count, pa.int32()),
            }
        )

    def sizes(found: Iterator[Any]) -> list[int]:
        return [shard.rows.num_rows for shard in found]

    assert sizes(shards([block([1] * 5), block([1] * 6)], 4)) == [4, 4, 3]
    assert sizes(shards([block([300 * 2**20] * 3)], 4)) == [1, 1, 1], "512 MiB at most"
    assert sizes(shards([block([None] * 3, side=10_000)], 9)) == [2, 1], "two bytes per pixel where nothing is known"
    assert sizes(shards([block([]), block([1])], 4)) == [1]
    assert sizes(shards([block([])], 4)) == []
    assert sizes(shards([block([2**40, 1])], 4)) == [1, 1], "one that is larger is a shard of its own"


def test_a_label_stands_apart_from_its_folder_however_long_it_is(corpus: ScoredCorpus, tmp_path: Path) -> None:
    flags = ["--scores", str(corpus.scores), "--output", str(tmp_path / "out"), "--top-k", "1"]
    job = checked(parse(SelectSettings, flags))
    assert [labelled(job.export_work(format)).split(" ")[0] for format in FORMATS] == list(FORMATS)
