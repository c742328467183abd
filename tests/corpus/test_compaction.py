"""Score files are merged and taken apart: at every moment the table is the same, for everyone who asks the ledger."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.audit import audit
from iqa_core.corpus.compaction import Step, carry_out, steps, superfluous
from iqa_core.corpus.ledger import Ledger
from iqa_core.corpus.packs import chunk_name
from iqa_core.corpus.plan import Plan
from iqa_core.corpus.score_tables import open_score_table
from iqa_core.corpus.storage import Storage
from tests.corpora import tiny_png, write_folder
from tests.s3_server import Bucket, storage_options
from tests.selection.scored_corpora import score

CHUNKS = 11


class Killed(BaseException):
    """Nothing that is there to clean up may run."""


@dataclass(frozen=True, slots=True)
class WatchedStorage(Storage):
    """Calls back before each change that it makes to score files."""

    before_change: Callable[[str, str], None] = field(default=lambda verb, uri: None)

    def put(self, uri: str, data: bytes, scratch: str | None = None) -> None:
        self.before_change("put", uri)
        Storage.put(self, uri, data, scratch)

    def create(self, uri: str, data: bytes, scratch: str | None = None) -> bool:
        self.before_change("create", uri)
        return Storage.create(self, uri, data, scratch)

    def delete(self, uri: str) -> None:
        self.before_change("delete", uri)
        Storage.delete(self, uri)


@dataclass(frozen=True, slots=True)
class TornListing(Storage):
    """Lists these first."""

    listings: list[list[str]] = field(default_factory=list)

    def names(self, folder: str) -> list[str]:
        return self.listings.pop(0) if self.listings else Storage.names(self, folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compaction")
    write_folder(root / "in", {f"{index:02d}.png": tiny_png(index) for index in range(3 * CHUNKS - 1)})
    return root / "in"


@pytest.fixture
def output(corpus: Path, tmp_path: Path) -> Path:
    return score(tmp_path / "scores", corpus, chunk_images=3)


def compact(output: Path, per_file: int, storage: Storage | None = None) -> list[Step]:
    plan, ledger = Plan(Storage(), str(output)), Ledger(storage or Storage(), str(output))
    files = ledger.files()
    return list(carry_out(ledger, files, steps((chunk.name for chunk in plan.chunks()), files, per_file)))


def by_ledger(output: Path) -> pa.Table:
    table = open_score_table(Storage(), str(output))
    return pa.concat_tables([rows.replace_schema_metadata(None) for _, rows in table.ledger.read_all(table.chunks)])


def by_engine(output: Path, scratch: Path) -> pa.Table:
    """As the selection job opens it."""
    files = open_score_table(Storage(), str(output)).local_files(scratch)
    return pa.concat_tables([pq.read_table(file).replace_schema_metadata(None) for file in files])


def by_itself(output: Path) -> pa.Table:
    """The folder as anybody opens it."""
    files = sorted((output / "scores").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file).replace_schema_metadata(None) for file in files])


def names_in(output: Path) -> list[str]:
    return sorted(path.stem for path in (output / "scores").iterdir())


def faults(output: Path) -> list[str]:
    found = audit(Plan(Storage(), str(output)), Ledger(Storage(), str(output)))
    return [f"{fault.chunk} {fault.what}" for fault in found.faults]


def test_neighbours_become_packs_with_the_same_rows(output: Path) -> None:
    before = by_itself(output)
    assert [step.file for step in compact(output, 4)] == [
        "000000-000000-000003",
        "000000-000004-000007",
        "000000-000008-000010",
    ]
    assert names_in(output) == ["000000-000000-000003", "000000-000004-000007", "000000-000008-000010"]
    assert by_itself(output).equals(before)
    assert by_ledger(output).equals(before)
    assert faults(output) == []
    assert compact(output, 4) == [], "what is merged stays as it is"
    compact(output, 6)
    assert names_in(output) == ["000000-000000-000005", "000000-000006-000010"]
    compact(output, 2)
    assert names_in(output)[-2:] == ["000000-000008-000009", "000000-000010"]
    assert by_itself(output).equals(before)
    assert faults(output) == []


def test_gaps_are_left_until_they_are_filled(output: Path) -> None:
    before = by_itself(output)
    ledger = Ledger(Storage(), str(output))
    gap = ledger.read(chunk_name(0, 5))
    ledger.remove([chunk_name(0, 5)])
    compact(output, 8)
    assert names_in(output) == ["000000-000000-000004", "000000-000006-000007", "000000-000008-000010"]
    assert faults(output) == ["000000-000005 has no rows yet"]
    ledger.commit(chunk_name(0, 5), gap, {})
    compact(output, 8)
    assert names_in(output) == ["000000-000000-000007", "000000-000008-000010"]
    assert by_itself(output).equals(before)


def test_each_chunk_keeps_what_was_committed_beside_it(tmp_path: Path) -> None:
    ledger = Ledger(Storage(), str(tmp_path))
    names = [chunk_name(0, index) for index in range(3)]
    for index, name in enumerate(names):
        metadata = {"chunk": name, "fingerprint": "f", "layout": str(index), "damage": "x" if index == 1 else None}
        ledger.commit(name, pa.table({"key": pa.array([str(index)] * index, pa.string())}), metadata)
    tables = list(ledger.read_all(names))
    ledger.commit_pack("000000-000000-000002", [rows for _, rows in tables])
    for name in names:
        ledger.discard(name)
    for (name, before), (_, after) in zip(tables, ledger.read_all(names), strict=True):
        assert after.equals(before)
        assert ledger.metadata(after) == ledger.metadata(before)
        assert ledger.read(name, ["key"]).num_rows == before.num_rows
    about = pq.read_schema(tmp_path / "scores" / "000000-000000-000002.parquet").metadata
    assert json.loads(about[b"iqa"])["fingerprint"] == "f"
    ledger.take_apart([names[1]])
    assert names_in(tmp_path) == names
    assert [ledger.metadata(rows) for _, rows in ledger.read_all(names)] == [ledger.metadata(r) for _, r in tables]


@pytest.mark.slow
@pytest.mark.parametrize("per_file", [4, 1], ids=["merge", "split"])
def test_killed_before_any_change_nothing_is_lost_or_doubled(output: Path, tmp_path: Path, per_file: int) -> None:
    """Before the first change, before the second, and so on, each time going on where the last one was killed."""
    if per_file == 1:
        compact(output, 6)
    before = by_ledger(output)
    for kill_at in range(200):
        changes = 0

        def count(verb: str, uri: str, kill_at: int = kill_at) -> None:
            nonlocal changes
            changes += 1
            if changes > 1 + kill_at % 4:
                raise Killed

        try:
            compact(output, per_file, WatchedStorage(before_change=count))
        except Killed:
            assert by_ledger(output).equals(before)
            assert by_engine(output, tmp_path / str(kill_at)).equals(before)
            continue
        break
    assert kill_at >= 8, "so often was it killed"
    assert faults(output) == []
    assert by_itself(output).equals(before)
    files = Ledger(Storage(), str(output)).files()
    assert superfluous(files) == []
    assert len(files.packs) == (3 if per_file == 4 else 0)


def test_killed_while_taking_apart(output: Path) -> None:
    compact(output, 4)
    before = by_ledger(output)
    for kill_at in range(6):
        changes = 0

        def count(verb: str, uri: str, kill_at: int = kill_at) -> None:
            nonlocal changes
            changes += 1
            if changes > kill_at:
                raise Killed

        ledger = Ledger(WatchedStorage(before_change=count), str(output))
        with pytest.raises(Killed):
            ledger.take_apart([chunk_name(0, 2)])
        assert by_ledger(output).equals(before)
    Ledger(Storage(), str(output)).take_apart([chunk_name(0, 2)])
    assert by_itself(output).equals(before)


def test_a_file_that_is_replaced_while_it_is_merged_counts(output: Path) -> None:
    name = chunk_name(0, 1)
    ledger = Ledger(Storage(), str(output))
    rows = ledger.read(name)
    changed = rows.set_column(rows.schema.get_field_index("detail"), "detail", pa.array(["again"] * rows.num_rows))

    def replace(verb: str, uri: str) -> None:
        if verb == "put" and uri.endswith("000000-000000-000003.parquet"):
            ledger.commit(name, changed, {})

    compact(output, 4, WatchedStorage(before_change=replace))
    assert "000000-000001" in names_in(output)
    assert ledger.read(name).column("detail").to_pylist() == ["again"] * rows.num_rows
    compact(output, 4)
    assert "000000-000001" not in names_in(output)
    assert ledger.read(name).column("detail").to_pylist() == ["again"] * rows.num_rows
    assert faults(output) == []


@pytest.mark.slow
def test_who_reads_meanwhile_sees_the_same_table(output: Path) -> None:
    """Chunks are merged and taken apart again and again under a reader that lists and reads."""
    before = by_ledger(output)
    ledger = Ledger(Storage(), str(output))
    names = sorted(ledger.finished())
    done = threading.Event()
    found: list[Exception | bool] = []

    def watch() -> None:
        while not done.is_set():
            try:
                found.append(by_ledger(output).equals(before))
            except Exception as error:
                found.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for turn in range(100):
        compact(output, 3 + turn % 5)
        if turn % 3 == 0:
            ledger.take_apart(names)
        if turn > 4 and len(found) > 20:
            break
    done.set()
    watcher.join()
    assert len(found) > 20
    assert [one for one in found if one is not True] == []


def test_what_a_listing_missed_on_both_sides_is_found(output: Path) -> None:
    """A pack was put behind the listing's back, and its chunks' own files went before it came to them."""
    names = sorted(Ledger(Storage(), str(output)).finished())
    with Ledger(Storage(), str(output)).rearranging():
        compact(output, 4)
        torn = [f"{name}.parquet" for name in names[4:]]
        (output / "scores.rearranged").write_bytes(b"begun elsewhere")
        ledger = Ledger(TornListing(listings=[torn]), str(output))
        assert ledger.finished() == set(names)


@pytest.mark.s3
def test_on_an_object_store(s3: Bucket, output: Path) -> None:
    s3.put_tree(output)
    storage = Storage(storage_options(s3.endpoint))
    ledger = Ledger(storage, s3.uri())
    names = sorted(ledger.finished())
    files = ledger.files()
    assert [step.file for step in carry_out(ledger, files, steps(names, files, 8))] == [
        "000000-000000-000007",
        "000000-000008-000010",
    ]
    assert s3.keys("scores/") == ["scores/000000-000000-000007.parquet", "scores/000000-000008-000010.parquet"]
    table = open_score_table(storage, s3.uri())
    there = pa.concat_tables([rows.replace_schema_metadata(None) for _, rows in ledger.read_all(table.chunks)])
    assert there.equals(by_ledger(output))
    ledger.take_apart([names[9]])
    assert len(s3.keys("scores/")) == 4
    assert audit(Plan(storage, s3.uri()), ledger).faults == []
