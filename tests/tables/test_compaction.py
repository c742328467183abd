"""Score files are merged and taken apart: at every moment the table is the same, for everyone who asks the ledger.

Tests iqa_core/tables/scores/score_table.py.
"""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.chunks import chunk_name
from iqa_core.corpus.plan.plan import Plan
from iqa_core.storage.entries import Entry
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.tables.compaction import Merged, carry_out
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.packs import chunk_names_in
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.audit import audit
from iqa_core.tables.scores.score_table import open_score_table
from tests.corpora import tiny_png, write_folder
from tests.s3_server import Bucket, storage_options
from tests.selection.scored_corpora import score

pytestmark = pytest.mark.slow

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
    """Lists these first, while something is done."""

    listings: list[list[str]] = field(default_factory=list)
    meanwhile: Callable[[], object] = field(default=lambda: None)

    def names(self, folder: str) -> list[str]:
        if not self.listings:
            return Storage.names(self, folder)
        self.meanwhile()
        return self.listings.pop(0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compaction")
    write_folder(root / "in", {f"{index:02d}.png": tiny_png(index) for index in range(3 * CHUNKS - 1)})
    return root / "in"


@pytest.fixture
def output(corpus: Path, tmp_path: Path) -> Path:
    return score(tmp_path / "scores", corpus, chunk_images=3)


def compact(output: Path, per_file: int, storage: Storage | None = None) -> list[Merged]:
    storage = storage or Storage()
    return list(carry_out(Ledger(storage, str(output)), Plan(storage, str(output)), per_file))


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
    """Without generations and seals."""
    return sorted(path.name.split(".")[0] for path in (output / "scores").iterdir())


def faults(output: Path) -> list[str]:
    table = open_score_table(Storage(), str(output))
    found = audit(Plan(table.storage, table.uri), table.contract)
    return [f"{fault.chunk} {fault.what}" for fault in found.faults]


def test_neighbours_become_packs_with_the_same_rows(output: Path) -> None:
    before = by_itself(output)
    assert [merged.file.split(".")[0] for merged in compact(output, 4)] == [
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
    assert names_in(output)[-2:] == ["000000-000008-000009", "000000-000010-000010"]
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
    pack = ledger.commit_pack(names, [rows for _, rows in tables], 1)
    ledger.discard(names)
    for (name, before), (_, after) in zip(tables, ledger.read_all(names), strict=True):
        assert after.equals(before)
        assert metadata_of(after) == metadata_of(before)
        assert ledger.read(name, ["key"]).num_rows == before.num_rows
    about = pq.read_schema(tmp_path / "scores" / f"{pack}.parquet").metadata
    assert json.loads(about[b"iqa"])["fingerprint"] == "f"
    ledger.take_apart([names[1]])
    assert names_in(tmp_path) == [f"{name}-{name[-6:]}" for name in names]
    assert [metadata_of(rows) for _, rows in ledger.read_all(names)] == [metadata_of(r) for _, r in tables]


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
    assert kill_at >= 5, "so often was it killed"
    assert faults(output) == []
    assert by_itself(output).equals(before)
    files = Ledger(Storage(), str(output)).files()
    assert files.superfluous == []
    assert [len(chunk_names_in(file)) for file in sorted(files.files)] == ([4, 4, 3] if per_file == 4 else [1] * CHUNKS)


def test_killed_while_taking_apart(output: Path) -> None:
    compact(output, 4)
    before = by_ledger(output)
    killed = 0
    for kill_at in range(5):  # each goes on where the last one was killed
        changes = 0

        def count(verb: str, uri: str, kill_at: int = kill_at) -> None:
            nonlocal changes
            changes += 1
            if changes > kill_at:
                raise Killed

        ledger = Ledger(WatchedStorage(before_change=count), str(output))
        try:
            ledger.take_apart([chunk_name(0, 2)])
        except Killed:
            killed += 1
        assert by_ledger(output).equals(before)
    assert killed >= 3
    Ledger(Storage(), str(output)).take_apart([chunk_name(0, 2)])
    Ledger(Storage(), str(output)).settled([])
    assert by_itself(output).equals(before)


def try_again(output: Path, chunks: Sequence[str], mark: int, storage: Storage) -> None:
    """As a run does it under --retry-rejected; what comes of it is known by its width."""
    ledger = Ledger(storage, str(output))
    files = ledger.take_apart(chunks)
    for chunk in chunks:
        rows = ledger.read(chunk, files=files)
        known = metadata_of(rows)
        ledger.commit_again(chunk, marked(rows, mark), known, 1 + known.get("generation", 0), files)


def test_a_chunk_that_is_tried_again_lies_in_a_file_of_a_higher_generation(output: Path) -> None:
    name = chunk_name(0, 1)
    before = by_itself(output)
    try_again(output, [name], 77, Storage())
    [file] = (output / "scores").glob("000000-000001*")
    assert file.name.startswith("000000-000001.1-")
    assert by_itself(output).num_rows == before.num_rows
    compact(output, 4)
    assert marks(output)[name] == {77}
    try_again(output, [name], 78, Storage())
    assert names_in(output)[:3] == ["000000-000000-000000", "000000-000001", "000000-000002-000003"]
    assert [path.name[:16] for path in (output / "scores").glob("000000-000001*")] == ["000000-000001.2-"]
    assert marks(output)[name] == {78}
    assert faults(output) == []
    assert by_itself(output).num_rows == before.num_rows


def test_what_a_stopped_driver_puts_at_last_does_not_count(output: Path) -> None:
    """It had read the chunk before another one committed it, and that was tried again, and merged."""
    name = chunk_name(0, 1)
    ledger = Ledger(Storage(), str(output))
    first = ledger.read(name)
    try_again(output, [name], 77, Storage())
    compact(output, 4)
    ledger.commit(name, first, metadata_of(first))
    assert marks(output)[name] == {77}
    assert faults(output) == [f"{name} also lies in {name}.parquet: compact_scores puts that right"]
    compact(output, 4)
    assert marks(output)[name] == {77}
    assert faults(output) == []


def marked(rows: pa.Table, mark: int) -> pa.Table:
    place = rows.schema.get_field_index("width")
    return rows.set_column(place, rows.schema.field(place), pa.array([mark] * rows.num_rows, pa.int32()))


def marks(output: Path) -> dict[str, set[int]]:
    """Chunk -> widths in its rows."""
    table = open_score_table(Storage(), str(output))
    return {chunk: set(rows.column("width").to_pylist()) for chunk, rows in table.ledger.read_all(table.chunks)}


@dataclass(frozen=True, slots=True)
class StoppedStorage(Storage):
    """Does something else at one of its calls, before it goes on."""

    stop_at: int = 0
    meanwhile: Callable[[], None] = field(default=lambda: None)
    calls: Iterator[int] = field(default_factory=itertools.count)

    def _call(self) -> None:
        if next(self.calls) == self.stop_at:
            self.meanwhile()

    def read(self, uri: str, begin: int = 0, end: int | None = None, max_bytes: int | None = None) -> bytes:
        self._call()
        return Storage.read(self, uri, begin, end, max_bytes)

    def put(self, uri: str, data: bytes, scratch: str | None = None) -> None:
        self._call()
        Storage.put(self, uri, data, scratch)

    def delete(self, uri: str) -> None:
        self._call()
        Storage.delete(self, uri)

    def names(self, folder: str) -> list[str]:
        self._call()
        return Storage.names(self, folder)

    def stat(self, uri: str) -> Entry | None:
        self._call()
        return Storage.stat(self, uri)


FEW = [chunk_name(0, index) for index in range(5)]

Act = Callable[[Path, Path, Storage], None]
"""A change to an output, given the folder of its corpus, the output, and a storage."""


def tries_again(corpus: Path, output: Path, storage: Storage) -> None:
    with suppress(Missing):  # its sources have changed: a run stops there, and the same command goes on
        try_again(output, FEW[1:3], 77, storage)


def scores_anew(corpus: Path, output: Path, storage: Storage) -> None:
    """An image of the second chunk was replaced."""
    write_folder(corpus, {"03.png": tiny_png(99, size=32)})
    score(output, corpus, chunk_images=3, on_changed="rescore")


def merges(corpus: Path, output: Path, storage: Storage) -> None:
    compact(output, 5, storage)


def merges_less(corpus: Path, output: Path, storage: Storage) -> None:
    compact(output, 2, storage)


STOPPED: dict[str, Act] = {"merge": merges, "split": merges_less, "again": tries_again}
MEANWHILE: dict[str, Act] = {"again": tries_again, "anew": scores_anew, "merge": merges, "split": merges_less}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few")
    write_folder(root / "in", {f"{index:02d}.png": tiny_png(index) for index in range(15)})
    score(root / "scores", root / "in", chunk_images=3)
    return root


def stopped_everywhere(few: Path, root: Path, stopped: str, meanwhile: str, every: int) -> int:
    """The first act is stopped at each of its calls, the other done whole, and the first goes on; calls it was stopped
    at."""
    for stop_at in itertools.count(0, every):
        folder = root / str(stop_at)
        shutil.copytree(few, folder)
        corpus, output = few / "in", folder / "scores"
        if stopped == "split":
            compact(output, 5)
        if meanwhile == "anew":  # sources are planned by their paths
            corpus = folder / "in"
            shutil.rmtree(output)
            score(output, corpus, chunk_images=3)
            if stopped == "split":
                compact(output, 5)
        storage = StoppedStorage(stop_at=stop_at, meanwhile=lambda: MEANWHILE[meanwhile](corpus, output, Storage()))  # noqa: B023
        STOPPED[stopped](corpus, output, storage)
        if next(storage.calls) <= stop_at:
            return stop_at
        widths = marks(output)
        newest = {chunk for chunk in FEW[1:3] if chunk in widths}
        if "again" in (stopped, meanwhile) and "anew" not in (stopped, meanwhile):
            assert {chunk for chunk, found in widths.items() if found == {77}} == newest, (stop_at, widths)
        compact(output, 4)
        assert marks(output) == widths
        assert faults(output) == [], stop_at
        assert by_itself(output).sort_by("key").equals(by_ledger(output).sort_by("key"))
        assert by_itself(output).num_rows == 15
        shutil.rmtree(folder)
    raise AssertionError


PAIRS = [(a, b) for a in STOPPED for b in MEANWHILE if not (a == b == "again")]


@pytest.mark.parametrize(("stopped", "meanwhile", "every"), [("merge", "again", 13), ("again", "merge", 5)])
def test_stopped_at_some_calls_while_another_runs(
    few: Path, tmp_path: Path, stopped: str, meanwhile: str, every: int
) -> None:
    assert stopped_everywhere(few, tmp_path, stopped, meanwhile, every) >= 10


@pytest.mark.chaos
@pytest.mark.parametrize(("stopped", "meanwhile"), PAIRS)
def test_stopped_at_every_call_while_another_runs(few: Path, tmp_path: Path, stopped: str, meanwhile: str) -> None:
    assert stopped_everywhere(few, tmp_path, stopped, meanwhile, every=1) > 10


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
    for turn in itertools.count():
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
    torn = [f"{name}.parquet" for name in names[4:]]
    ledger = Ledger(TornListing(listings=[torn], meanwhile=lambda: compact(output, 4)), str(output))
    assert ledger.finished() == set(names)


@pytest.mark.s3
def test_on_an_object_store(s3: Bucket, output: Path) -> None:
    s3.put_tree(output)
    storage = Storage(storage_options(s3.endpoint))
    ledger = Ledger(storage, s3.uri())
    names = sorted(ledger.finished())
    assert [merged.file.split(".")[0] for merged in carry_out(ledger, Plan(storage, s3.uri()), 8)] == [
        "000000-000000-000007",
        "000000-000008-000010",
    ]
    assert [key.split(".")[0] for key in s3.keys("scores/")] == [
        "scores/000000-000000-000007",
        "scores/000000-000008-000010",
    ]
    table = open_score_table(storage, s3.uri())
    there = pa.concat_tables([rows.replace_schema_metadata(None) for _, rows in ledger.read_all(table.chunks)])
    assert there.equals(by_ledger(output))
    ledger.take_apart([names[9]])
    assert len(s3.keys("scores/")) == 4
    assert audit(Plan(storage, s3.uri()), table.contract).faults == []
