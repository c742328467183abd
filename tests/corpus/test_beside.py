"""Tables among images: which of them describe the files beside them, and what becomes of their columns.

Tests iqa_core/corpus/readers/loose.py and iqa_core/corpus/readers/metadata.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.readers import webdataset
from iqa_core.errors import CallerError
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from tests.corpus.planned import OPTIONS, Image, Output
from tests.corpus.tars import tar_bytes, write_tar
from tests.s3_server import Bucket, storage_options


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def write_table(path: Path, /, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [list(columns), *([value or "" for value in row.values()] for row in rows)]
        path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))


def captions(images: list[Image], column: str = "caption") -> dict[str, Any]:
    found = {image.key: image.carried.get(column) for image in images}
    assert len(found) == len(images)
    return found


def downloaded(count: int, there: int) -> dict[str, list[Any]]:
    """A table as img2dataset writes it, of which the first downloads succeeded."""
    return {
        "url": [f"http://127.0.0.1:9/{i}.jpg" for i in range(count)],
        "caption": [f"image {i}" for i in range(count)],
        "key": [f"{i:09d}" for i in range(count)],
        "status": ["success" if i < there else "failed_to_download" for i in range(count)],
        "width": [64 if i < there else None for i in range(count)],
    }


@pytest.mark.parametrize("count", [4, 30])
@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_what_img2dataset_writes_has_one_row_per_image(kind: str, count: int, tmp_path: Path) -> None:
    write_table(tmp_path / "in" / "00000.parquet", **downloaded(count, 3))
    names = [f"{i:09d}.jpg" for i in range(3)]
    if kind == "tar":
        members = [(f"{name[:-4]}.{ending}", name.encode()) for name in names for ending in ("jpg", "txt")]
        write_tar(tmp_path / "in" / "00000.tar", members)
    else:
        touch(tmp_path / "in" / "00000", *names, "000000000.txt", "000000000.json")
    output = Output(tmp_path / "out")
    found = output.extend(tmp_path / "in").listing
    images = output.images()
    prefix = "" if kind == "tar" else "00000/"
    assert captions(images) == {prefix + name: f"image {i}" for i, name in enumerate(names)}
    assert captions(images, "url")[f"{prefix}{names[2]}"] == "http://127.0.0.1:9/2.jpg"
    assert captions(images, "input_status") == {prefix + name: "success" for name in names}
    assert captions(images, "input_width") == {prefix + name: 64 for name in names}
    assert (found.tables, found.rows_without_file) == (1, count - 3)
    assert not output.proposal(tmp_path / "in").chunks


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_imagefolder_has_the_columns_of_the_closest_table(ending: str, tmp_path: Path) -> None:
    touch(
        tmp_path / "in", *(f"train/{name}.png" for name in ("a", "b", "deep/c", "deep/er/d", "unnamed")), "train/x.txt"
    )
    write_table(
        tmp_path / "in" / "train" / f"metadata.{ending}",
        file_name=["a.png", "./b.png", "deep/c.png", "deep/er/d.png", "gone.png"],
        caption=["A", None, "C", "far", "nothing"],
    )
    write_table(tmp_path / "in" / "train" / "deep" / "er" / f"metadata.{ending}", file_name=["d.png"], caption=["near"])
    output = Output(tmp_path / "out", replace(OPTIONS, chunk_images=2))
    found = output.extend(tmp_path / "in").listing
    expected = {"train/a.png": "A", "train/b.png": None, "train/deep/c.png": "C", "train/deep/er/d.png": "near"}
    assert captions(output.images()) == expected | {"train/unnamed.png": None}
    assert captions(output.images(), "file_name")["train/deep/c.png"] == "deep/c.png"
    assert (found.tables, found.rows_without_file, found.ignored) == (2, 1, {"txt": 1})


def test_members_are_named_by_name_stem_or_number_and_a_clash_with_a_sidecar_is_renamed(tmp_path: Path) -> None:
    members = [("d/7.jpg", b"7"), ("d/7.txt", b"of the tar"), ("d/8.left.jpg", b"8"), ("d/7.jpg", b"again")]
    for index, (column, values) in enumerate(
        [("member_name", ["d/7.jpg", "d/8.left.jpg"]), ("image_id", ["d/7", "d/8"]), ("ID", ["d/8.left", "d/7"])]
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        write_tar(folder / "a-0.tar", members)
        write_table(folder / "a-0.parquet", **{column: values, "txt": [value[:3] for value in values]})
        output = Output(tmp_path / f"out{index}")
        output.extend(folder)
        images = output.images()
        assert captions(images, "input_txt") == {"d/7.jpg": "d/7", "d/8.left.jpg": "d/8", "d/7.jpg#2": None}
        assert captions(images, "txt")["d/7.jpg"] == "of the tar"


def test_integers_name_files_too(tmp_path: Path) -> None:
    touch(tmp_path / "in", "7.jpg", "8.jpg")
    write_table(tmp_path / "in" / "table.parquet", id=[8, 7], caption=["eight", "seven"])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    assert captions(output.images()) == {"7.jpg": "seven", "8.jpg": "eight"}


def test_a_table_that_describes_less_than_half_or_holds_images_is_what_it_was(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg")
    write_table(tmp_path / "in" / "metadata.csv", file_name=["a.jpg", "x.jpg", "y.jpg"], caption=["A", "X", "Y"])
    write_table(tmp_path / "in" / "annotations.csv", file_name=["a.jpg", "b.jpg"], truth=["1", "2"])
    write_table(tmp_path / "in" / "bytes.parquet", file_name=["a.jpg", "b.jpg"], image=[b"1", b"2"])
    write_table(tmp_path / "in" / "urls.parquet", path=["a.jpg", "../in/b.jpg", "c.jpg"], caption=["A", "B", "C"])
    output = Output(tmp_path / "out")
    found = output.extend(tmp_path / "in").listing
    assert sorted(image.key for image in output.images()) == [
        *("../in/b.jpg", "0", "1", "a.jpg", "a.jpg", "b.jpg", "c.jpg"),
    ]
    assert found.ignored == {"csv": 2}
    assert (found.tables, found.rows_without_file) == (0, 0)


def test_a_table_that_was_named_is_an_input(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg")
    write_table(tmp_path / "in" / "t.parquet", path=["a.jpg", "b.jpg"], caption=["A", "B"])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in", tmp_path / "in" / "t.parquet")
    assert [(image.key, image.carried["caption"]) for image in output.images()] == [
        *(("a.jpg", None), ("b.jpg", None), ("a.jpg", "A"), ("b.jpg", "B")),
    ]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_with_several_rows_per_file_is_refused_by_name(ending: str, tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg")
    write_table(tmp_path / "in" / f"metadata.{ending}", file_name=["a.jpg", "b.jpg", "b.jpg"], question=["1", "2", "3"])
    with pytest.raises(CallerError, match=r"1 of the files beside it have several rows each \(b\.jpg is one"):
        Output(tmp_path / "out").proposal(tmp_path / "in")


def test_in_reading_1_tables_are_inputs_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    write_table(tmp_path / "in" / "t.parquet", path=["a.jpg"], caption=["A"])
    output = Output(tmp_path / "out", replace(OPTIONS, reading=1))
    output.extend(tmp_path / "in")
    assert [(image.key, image.carried["caption"]) for image in output.images()] == [("a.jpg", None), ("a.jpg", "A")]


def test_a_list_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "metadata.csv").write_bytes(b"file_name\n\xe9.jpg\n")
    output = Output(tmp_path / "out")
    assert output.extend(tmp_path / "in").listing.ignored == {"csv that cannot be read": 1}


def test_a_list_that_was_named_takes_the_place_of_what_lies_in_its_folder(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    write_table(tmp_path / "in" / "metadata.csv", file_name=["a.jpg"], caption=["A"])
    output = Output(tmp_path / "out")
    assert not output.extend(tmp_path / "in", tmp_path / "in" / "metadata.csv").listing.ignored
    assert [(image.key, image.carried["caption"]) for image in output.images()] == [("a.jpg", "A")]


def test_columns_of_any_type_come_along(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg")
    table = pa.table(
        {
            "file_name": pa.array(["c.jpg", "a.jpg"], pa.string_view()),
            "codes": pa.array(["x", "y"]).dictionary_encode(),
            "boxes": [[{"x": 1}], None],
            "big": pa.array([2**63, 1], pa.uint64()),
        }
    )
    pq.write_table(table, tmp_path / "in" / "t.parquet")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    images = output.images()
    assert captions(images, "codes") == {"a.jpg": "y", "b.jpg": None, "c.jpg": "x"}
    assert captions(images, "boxes")["c.jpg"] == [{"x": 1}]
    assert captions(images, "big") == {"a.jpg": 1, "b.jpg": None, "c.jpg": 2**63}


# ---- what changes


def planned_folder(tmp_path: Path) -> tuple[Output, Path]:
    touch(tmp_path / "in", "a.jpg", "b.jpg", "sub/c.jpg")
    table = tmp_path / "in" / "metadata.jsonl"
    write_table(table, file_name=["a.jpg", "b.jpg"], caption=["A", "B"])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    return output, table


def test_a_table_that_changed_is_a_changed_source(tmp_path: Path) -> None:
    output, table = planned_folder(tmp_path)
    write_table(table, file_name=["a.jpg", "b.jpg"], caption=["other", "B"])
    with pytest.raises(
        CallerError, match=r"1 planned sources.*\n  no longer describes files as it did: .*metadata\.jsonl"
    ):
        output.proposal(tmp_path / "in")
    assert not output.extend(tmp_path / "in", on_changed="ignore").chunks
    assert captions(output.images())["a.jpg"] == "other", "what is not scored yet is read as it is now"
    output.extend(tmp_path / "in", on_changed="rescore")
    assert captions(output.images()) == {"a.jpg": "other", "b.jpg": "B", "sub/c.jpg": None}
    assert not output.proposal(tmp_path / "in").chunks


def test_a_table_that_vanished_leaves_its_chunk_unfinished(tmp_path: Path) -> None:
    output, table = planned_folder(tmp_path)
    table.unlink()
    with pytest.raises(CallerError, match="no longer describes files"):
        output.proposal(tmp_path / "in")
    with pytest.raises(Missing, match=r"metadata\.jsonl.*rescore"):
        output.images()
    output.extend(tmp_path / "in", on_changed="rescore")
    assert captions(output.images()) == {"a.jpg": None, "b.jpg": None, "sub/c.jpg": None}


def test_a_table_outside_of_this_runs_inputs_is_another_runs(tmp_path: Path) -> None:
    touch(tmp_path / "in", "sub/a.jpg")
    write_table(tmp_path / "in" / "metadata.csv", file_name=["sub/a.jpg"], caption=["A"])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    assert not output.proposal(tmp_path / "in" / "sub").chunks


def test_a_table_that_came_later_changes_nothing_that_is_planned(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    touch(tmp_path / "in", "b.jpg")
    write_table(tmp_path / "in" / "metadata.csv", file_name=["a.jpg", "b.jpg"], caption=["A", "B"])
    assert output.extend(tmp_path / "in").left_out == {"file_name", "caption"}
    assert captions(output.images()) == {"a.jpg": None, "b.jpg": None}


def test_a_table_that_was_an_input_and_now_describes_files_is_a_changed_source(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    write_table(tmp_path / "in" / "t.parquet", path=["a.jpg", "b.jpg", "c.jpg"], caption=["A", "B", "C"])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    touch(tmp_path / "in", "b.jpg")
    with pytest.raises(CallerError, match=r"now describes the files beside it: .*t\.parquet"):
        output.proposal(tmp_path / "in")
    output.extend(tmp_path / "in", on_changed="rescore")
    assert captions(output.images()) == {"a.jpg": None, "b.jpg": "B"}


# ---- large, and elsewhere


def test_only_the_wanted_rows_of_many_row_groups_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "in", *(f"{i:03d}.jpg" for i in range(40)))
    table = pa.table({"file_name": [f"{i:03d}.jpg" for i in range(60)], "n": list(range(60))})
    pq.write_table(table, tmp_path / "in" / "t.parquet", row_group_size=7)
    output = Output(tmp_path / "out", ReadOptions(chunk_images=9))
    output.extend(tmp_path / "in")
    assert captions(output.images(), "n") == {f"{i:03d}.jpg": i for i in range(40)}


def test_chunks_of_several_tables_have_the_columns_of_each(tmp_path: Path) -> None:
    tables: dict[str, dict[str, Any]] = {
        "a": {"n": [None], "is_good": [True]},
        "b": {"n": [1], "is_good": [None]},
        "c": {"n": [2.5], "is_good": [False]},
        "d": {"own": ["z"]},
    }
    for folder, columns in tables.items():
        touch(tmp_path / "in", f"{folder}/x.jpg")
        write_table(tmp_path / "in" / folder / "metadata.jsonl", file_name=["x.jpg"], **columns)
    for chunk_images in (1, 2, 9):
        output = Output(tmp_path / f"out{chunk_images}", ReadOptions(chunk_images=chunk_images))
        output.extend(tmp_path / "in")
        images = output.images()
        assert list(captions(images, "n").values()) == [None, 1.0, 2.5, None]
        assert list(captions(images, "is_good").values()) == [True, None, False, None]
        assert list(captions(images, "own").values()) == [None, None, None, "z"]


@pytest.mark.s3
def test_tables_beside_objects(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SAMPLE_BYTES", 2048)
    write_table(tmp_path / "t.parquet", **downloaded(6, 4))
    data = (tmp_path / "t.parquet").read_bytes()
    members = [(f"{i:09d}.jpg", b"x" * 900) for i in range(4)]
    s3.put_all({"in/00000.parquet": data, "in/00000.tar": tar_bytes(members), "in/00001.parquet": data})
    s3.put_all({f"in/00001/{i:09d}.jpg": b"y" for i in range(4)})
    output = Output(tmp_path / "out", storage=Storage(storage_options(s3.endpoint)))
    found = output.extend(s3.uri("in")).listing
    assert sorted(captions(output.images()).items()) == [
        *((f"{i:09d}.jpg", f"image {i}") for i in range(4)),
        *((f"00001/{i:09d}.jpg", f"image {i}") for i in range(4)),
    ]
    assert (found.tables, found.rows_without_file) == (2, 4)
