"""A planned chunk -> its content in the plan's schema, or why its source cannot be read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.reading import open_chunk
from iqa_core.records import Reason
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from tests.corpus.planned import Output, images_of
from tests.corpus.tars import write_tar

CONTAINERS = ("a.tar", "a.parquet", "a.arrow", "a.csv")


def write_container(path: Path, count: int = 3) -> None:
    table = pa.table({"image": [bytes([i]) for i in range(count)]})
    if path.suffix == ".tar":
        write_tar(path, [(f"{i}.jpg", bytes([i])) for i in range(count)])
    elif path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text("uri\n" + "".join(f"{i}.jpg\n" for i in range(count)))


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_that_is_gone_or_locked_says_so(
    name: str, tmp_path: Path, as_nobody: Callable[[Path], AbstractContextManager[None]]
) -> None:
    path = tmp_path / name
    write_container(path)
    output = Output(tmp_path / "out")
    output.extend(path)
    (chunk,) = output.plan.chunks()
    path.chmod(0)
    with as_nobody(tmp_path), pytest.raises(Forbidden, match=name):
        output.open(chunk)
    path.unlink()
    with pytest.raises(Missing, match=name):
        output.open(chunk)


def test_a_container_that_is_a_link_to_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.tar", "a.parquet"):
        (tmp_path / "in" / name).symlink_to("nowhere")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    for chunk in output.plan.chunks():
        with pytest.raises(Missing, match="link to nothing"):
            output.open(chunk)
    assert not output.proposal(tmp_path / "in").chunks


@pytest.mark.parametrize("name", CONTAINERS[:3])
def test_a_container_that_shrank_under_its_reader_is_a_failure(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_container(path, 3)
    output = Output(tmp_path / "out")
    output.extend(path)
    (chunk,) = output.plan.chunks()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FetchFailed, match=name):
        output.open(chunk)


def test_loose_images_are_read_alone_or_all_together(
    tmp_path: Path, as_nobody: Callable[[Path], AbstractContextManager[None]]
) -> None:
    (tmp_path / "in").mkdir()
    for index in range(6):
        (tmp_path / "in" / f"{index}.jpg").write_bytes(bytes([index]))
    output = Output(tmp_path / "out", ReadOptions(chunk_images=10))
    output.extend(tmp_path / "in")
    (content,) = output.contents().values()
    (tmp_path / "in" / "2.jpg").unlink()
    (tmp_path / "in" / "3.jpg").write_bytes(b"longer than it was")
    (tmp_path / "in" / "4.jpg").chmod(0)
    with as_nobody(tmp_path):
        images = list(images_of(content))
    reasons = [None, None, Reason.MISSING, None, Reason.FORBIDDEN, None]
    assert [image.reason for image in images] == reasons
    assert images[3].data == b"longer than it was", "as it is now"
    assert [image.key for image in images_of(content, [1, 5])] == ["1.jpg", "5.jpg"]
    assert {(image.offset, image.length, image.row) for image in images} == {(None, None, None)}


def test_columns_have_the_plans_names_and_types(tmp_path: Path) -> None:
    """The plan says int64, this file has int32 and none of the second column; `reward` is the table's own."""
    table = pa.table({"image": [b"1"], "n": pa.array([5], pa.int32()), "reward": ["x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "a.parquet")
    (chunk,) = output.plan.chunks()
    carried = pa.schema({"absent": pa.list_(pa.int8()), "input_reward": pa.string(), "n": pa.int64()})
    content = open_chunk(chunk, replace(output.read_plan(), carried=carried))
    assert content.carried.schema.equals(carried)
    assert content.carried.to_pylist() == [{"absent": None, "input_reward": "x", "n": 5}]


def test_a_tar_that_was_replaced_by_one_of_the_same_size_is_not_taken_for_the_planned_one(tmp_path: Path) -> None:
    def tar_of(count: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for index in range(count):
                info = tarfile.TarInfo(f"{index}.png")
                info.size = 100
                tar.addfile(info, io.BytesIO(bytes(100)))
        return buffer.getvalue().ljust(20480, b"\0")

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tar_of(12))
    output = Output(tmp_path / "out", ReadOptions(chunk_images=20))
    output.extend(tmp_path / "in")
    (tmp_path / "in" / "a.tar").write_bytes(tar_of(5))
    with pytest.raises(FetchFailed, match="12 images were planned there, 5 are found"):
        output.contents()
