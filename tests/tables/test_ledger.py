"""A committed chunk is one whole file under its name; who looks meanwhile sees all of it or nothing."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.chunks import chunk_name
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.score_file import Damaged, metadata_of


def rows(count: int, mark: str = "") -> pa.Table:
    return pa.table({"key": [f"{i}{mark}" for i in range(count)], "layout": pa.array([1.5] * count, pa.float32())})


def test_a_chunk_is_committed_read_replaced_and_removed(tmp_path: Path) -> None:
    ledger = Ledger(Storage(), str(tmp_path))
    name = chunk_name(3, 14)
    assert name == "000003-000014"
    assert ledger.finished() == set()
    ledger.commit(name, rows(5), {"damage": None, "versions": ["a"]})
    assert ledger.finished() == {name}
    found = ledger.read(name)
    assert found.replace_schema_metadata(None).equals(rows(5))
    assert metadata_of(found) == {"damage": None, "versions": ["a"]}
    assert metadata_of(ledger.read(name, ["key"])) == {"damage": None, "versions": ["a"]}
    assert ledger.read(name, ["key"]).column_names == ["key"]
    ledger.commit(name, rows(5, "again"), {})
    assert ledger.read(name).column("key").to_pylist()[0] == "0again"
    ledger.remove([name])
    ledger.remove([name])
    assert ledger.finished() == set()


def test_other_files_are_no_chunks(tmp_path: Path) -> None:
    ledger = Ledger(Storage(), str(tmp_path))
    ledger.commit("000000-000000", rows(1), {})
    for name in (
        "notes.txt",
        "000000-000001.parquet.tmp",
        "x000000-000001.parquet",
        "1-2.parquet",
        ".000000-000002.parquet",
    ):
        (tmp_path / "scores" / name).write_bytes(b"x")
    (tmp_path / "scores" / "000000-000003.parquet").mkdir()
    assert ledger.finished() == {"000000-000000"}


def test_scores_are_one_parquet_data_set(tmp_path: Path) -> None:
    ledger = Ledger(Storage(), str(tmp_path))
    for index in range(3):
        ledger.commit(chunk_name(0, index), rows(4, str(index)), {"chunk": index})
    assert pq.read_table(tmp_path / "scores").num_rows == 12


def test_who_reads_during_commits_sees_whole_files_alone(tmp_path: Path) -> None:
    """Two writers replace the same chunks while a reader lists and opens everything that it sees."""
    ledger = Ledger(Storage(), str(tmp_path))
    names = [chunk_name(0, index) for index in range(4)]
    done = threading.Event()
    faults: list[Exception] = []
    seen = 0

    def write(mark: str) -> None:
        turn = 0
        while turn < 4 or (seen < 8 and not faults):
            ledger.commit(names[turn % 4], rows(2000, mark), {"mark": mark})
            turn += 1

    def watch() -> None:
        nonlocal seen
        try:
            while not done.is_set():
                for path in (tmp_path / "scores").glob("*"):
                    table = ledger.read(path.stem)
                    marks = {key.lstrip("0123456789") for key in table.column("key").to_pylist()}
                    assert table.num_rows == 2000
                    assert marks == {metadata_of(table)["mark"]}
                    seen += 1
        except Exception as error:
            faults.append(error)

    (tmp_path / "scores").mkdir()
    watcher = threading.Thread(target=watch)
    writers = [threading.Thread(target=write, args=(mark,)) for mark in ("a", "b")]
    for thread in (watcher, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    watcher.join()
    assert faults == []
    assert ledger.finished() == set(names)


def test_nothing_is_deleted_for_a_file_that_only_has_the_name_of_a_newer_one(tmp_path: Path) -> None:
    ledger = Ledger(Storage(), str(tmp_path))
    name = chunk_name(0, 0)
    ledger.commit(name, rows(5), {"chunk": name})
    scores = tmp_path / "scores"
    shutil.copy(scores / f"{name}.parquet", scores / f"{name}.3-01234567.parquet")
    with pytest.raises(Damaged, match="another file than its name says"):
        ledger.settled([])
    assert len(list(scores.iterdir())) == 2
    (scores / f"{name}.3-01234567.parquet").unlink()
    assert ledger.settled([]).files == {name}


def test_packs_from_before_there_were_generations(tmp_path: Path) -> None:
    """A chunk's own file counts over them, the widest over the others; what is made of them counts over all."""
    ledger = Ledger(Storage(), str(tmp_path))
    names = [chunk_name(0, index) for index in range(4)]
    for index, name in enumerate(names):
        ledger.commit(name, rows(3, str(index)), {"chunk": name})
    scores = tmp_path / "scores"
    for some in (names, names[:2]):
        pack = ledger.commit_pack(some, [table for _, table in ledger.read_all(some)], 1)
        (scores / f"{pack}.parquet").rename(scores / f"{pack.split('.')[0]}.parquet")
        before = ledger.files()
    for name in (names[0], names[2], names[3]):
        (scores / f"{name}.parquet").unlink()
    wide = "000000-000000-000003"
    assert [ledger.files().place(name) for name in names] == [wide, names[1], wide, wide]
    assert before.superfluous == ["000000-000000-000001", wide]
    there = ledger.take_apart(names[:1])
    kept = "000000-000002-000003"
    assert [there.place(name).split(".")[0] for name in names] == ["000000-000000-000000", names[1], kept, kept]
    keys = [table.column("key").to_pylist() for _, table in ledger.read_all(names, files=there)]
    assert keys == [[f"{i}{index}" for i in range(3)] for index in range(4)]
    assert "000000-000000-000001" in ledger.files().superfluous
    assert len(ledger.settled([]).files) == 3


def test_who_puts_a_chunk_again_deletes_only_what_is_older(tmp_path: Path) -> None:
    """Two drivers try it at once: one of their files counts, for everyone the same."""
    ledger = Ledger(Storage(), str(tmp_path))
    name = chunk_name(0, 0)
    ledger.commit(name, rows(2), {"chunk": name})
    before = ledger.files()
    for mark in "ab":
        ledger.commit_again(name, rows(2, mark), {"chunk": name}, 1, before)
    found = ledger.read(name).column("key").to_pylist()
    assert len(ledger.files().files) == 2
    assert len(ledger.settled([]).files) == 1
    assert ledger.read(name).column("key").to_pylist() == found
    assert metadata_of(ledger.read(name))["generation"] == 1
