"""Locator columns lead back to the bytes that were scored, in few reads; what cannot be had says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.originals import CHANGED, Locator, locators, originals
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.storage import Storage
from tests.corpora import tiny_png, write_folder, write_parquet, write_tar
from tests.corpus.planned import read
from tests.counting_storage import Counting
from tests.jobs import running
from tests.s3_server import Bucket, storage_options
from tests.selection.scored_corpora import score, write_scored_corpus


def fetched(wanted: list[Locator], storage: Storage | None = None) -> list[bytes | Rejection]:
    return list(originals(storage or Storage(), wanted, ReadOptions(), ImageLimits()))


def test_every_kind_of_source_gives_its_original_bytes_in_any_order(tmp_path: Path) -> None:
    corpus = write_scored_corpus(tmp_path)
    table = running.read_table(corpus.scores)
    keys = table.column("key").to_pylist()
    for order in (range(len(keys)), range(len(keys) - 1, -1, -1)):
        rows = table.take(list(order))
        assert fetched(locators(rows)) == [corpus.images[keys[i]] for i in order]


def test_neighbours_in_a_tar_are_one_read(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", {f"{index}.png": tiny_png(index) for index in range(20)})
    table = running.read_table(score(tmp_path / "scores", tmp_path / "in"))
    wanted = locators(table.sort_by("offset"))
    storage = Counting()
    assert all(isinstance(data, bytes) for data in fetched(wanted, storage))
    assert len(storage.sizes) == 1


def test_few_of_many_members_cost_few_bytes(tmp_path: Path) -> None:
    images = {f"{index:02d}.png": tiny_png(index, size=96) for index in range(40)}
    write_tar(tmp_path / "in" / "a.tar", images)
    wanted = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in")).sort_by("offset"))
    some = [place for index, place in enumerate(wanted) if index % 8 in (0, 1, 4)]
    storage = Counting()
    found = fetched(some, storage)
    assert all(isinstance(data, bytes) for data in found)
    size = sum(place.length or 0 for place in some)
    assert size / len(some) > 20_000, "else headers alone are more than what is allowed"
    assert sum(storage.sizes) <= 1.3 * size
    assert len(storage.sizes) == 10  # of 0 and 1 one, for they are neighbours


def test_a_row_group_is_read_once_however_its_rows_are_spread(tmp_path: Path) -> None:
    images = {f"{index:03d}.png": tiny_png(index) for index in range(400)}
    write_parquet(tmp_path / "in" / "t.parquet", images, rows_per_group=200)
    wanted = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in", chunk_images=400)))
    by_row = {place.row: place for place in wanted}
    storage = Counting()
    assert all(isinstance(data, bytes) for data in fetched([by_row[row] for row in (0, 70, 140, 199)], storage))
    size = (tmp_path / "in" / "t.parquet").stat().st_size
    assert 0.4 * size < sum(storage.sizes) < 0.8 * size


def test_ascending_rows_are_read_a_row_group_at_a_time(tmp_path: Path) -> None:
    images = {f"{index:03d}.png": tiny_png(index) for index in range(400)}
    write_parquet(tmp_path / "in" / "t.parquet", images, rows_per_group=200)
    wanted = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in", chunk_images=400)))
    storage = Counting()
    found = originals(storage, sorted(wanted, key=lambda place: place.row or 0), ReadOptions(), ImageLimits())
    size = (tmp_path / "in" / "t.parquet").stat().st_size
    assert next(found) == images["000.png"]
    assert 0.4 * size < sum(storage.sizes) < 0.8 * size
    assert list(found) == list(images.values())[1:]


def test_a_member_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    images = {"0.png": tiny_png(0), "1.png": tiny_png(1, size=256), "2.png": tiny_png(2)}
    write_tar(tmp_path / "in" / "a.tar", images)
    wanted = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in")))
    storage, limits = Counting(), ImageLimits(max_bytes=20_000)
    large = len(images["1.png"])
    refused = Rejection(Reason.TOO_LARGE, f"{large} bytes are more than the limit of 20000")
    found = list(originals(storage, wanted, ReadOptions(), limits))
    assert found == [images["0.png"], refused, images["2.png"]]
    assert sum(storage.sizes) < 20_000 < large
    assert list(originals(storage, wanted[1:2], ReadOptions(), limits)) == [refused]


@pytest.mark.s3
def test_one_large_read_is_under_way_at_a_time(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iqa_core.corpus.originals.READ_BYTES", 1)
    images = {f"{index}.png": tiny_png(index) for index in range(6)}
    write_tar(tmp_path / "in" / "a.tar", images)
    s3.put("a.tar", (tmp_path / "in" / "a.tar").read_bytes())
    placed = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in")))
    wanted = [replace(place, source=s3.uri("a.tar")) for place in placed]
    storage = Counting(storage_options(s3.endpoint))
    found = originals(storage, wanted, ReadOptions(), ImageLimits())
    for count, data in enumerate(images.values(), start=1):
        assert next(found) == data
        assert len(storage.sizes) == count


def test_rows_of_a_table_that_lie_far_apart_are_not_read_through(tmp_path: Path) -> None:
    images = {f"{index:03d}.png": tiny_png(index) for index in range(200)}
    write_parquet(tmp_path / "in" / "t.parquet", images)
    wanted = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in", chunk_images=300)))
    by_row = {place.row: place for place in wanted}
    assert fetched([by_row[3], by_row[190], by_row[4]]) == [images[f"{row:03d}.png"] for row in (3, 190, 4)]


def test_what_is_gone_or_changed_is_said_of_that_image_alone(tmp_path: Path) -> None:
    corpus = write_scored_corpus(tmp_path)
    wanted = locators(running.read_table(corpus.scores))
    loose = [place for place in wanted if "/loose/" in place.source]
    Path(loose[0].source).unlink()
    Path(loose[1].source).write_bytes(b"other")
    first, second, *others = fetched(loose)
    assert first == Rejection(Reason.MISSING, "there is no such file")
    assert second == Rejection(Reason.MISSING, CHANGED)
    assert all(isinstance(data, bytes) for data in others)
    (tmp_path / "corpus" / "a.tar").write_bytes((tmp_path / "corpus" / "a.tar").read_bytes()[:2000])
    lost = fetched([place for place in wanted if place.source.endswith("a.tar")])
    assert any(isinstance(data, Rejection) for data in lost)
    (tmp_path / "corpus" / "table.parquet").write_bytes(b"no table")
    cells = fetched([place for place in wanted if place.row is not None])
    assert {data.reason for data in cells if isinstance(data, Rejection)} == {Reason.FETCH_FAILED}
    assert not any(isinstance(data, bytes) for data in cells)


def test_a_row_without_bytes_is_found_where_its_path_leads(tmp_path: Path) -> None:
    write_folder(tmp_path / "files", {"0.png": tiny_png(0)})
    (tmp_path / "in").mkdir()
    cells = [{"bytes": None, "path": "../files/0.png"}, {"bytes": tiny_png(1), "path": "1.png"}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "in" / "t.parquet")
    wanted = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in")))
    assert set(fetched(wanted)) == {tiny_png(0), tiny_png(1)}


@pytest.mark.parametrize("format", ["parquet", pytest.param("arrow", marks=pytest.mark.slow)])
def test_the_reader_that_scored_a_table_finds_its_cells_again(tmp_path: Path, format: str) -> None:
    images = {f"{index:03d}.png": tiny_png(index) for index in range(9)}
    if format == "parquet":
        write_parquet(tmp_path / "in" / "t.parquet", images, rows_per_group=4)
    else:
        import datasets

        rows = {"image": [{"bytes": data, "path": name} for name, data in images.items()]}
        features = datasets.Features({"image": datasets.Image()})
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "in")
    found = read(tmp_path / "planned", tmp_path / "in")
    wanted = locators(running.read_table(score(tmp_path / "scores", tmp_path / "in", chunk_images=4)))
    assert fetched(wanted) == [image.data for image in found]
