"""A committed chunk is one whole file under its name; who looks meanwhile sees all of it or nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.ledger import Ledger
from iqa_core.corpus.packs import chunk_name
from iqa_core.corpus.storage import Storage


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
    assert ledger.metadata(found) == {"damage": None, "versions": ["a"]}
    assert ledger.metadata(ledger.read(name, ["key"])) == {"damage": None, "versions": ["a"]}
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
                    assert marks == {ledger.metadata(table)["mark"]}
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
