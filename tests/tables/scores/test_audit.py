"""Every way in which a table can be untrue is named, with the chunk and the image.

Tests iqa_core/tables/audit.py.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.chunks import Chunk, Content, Span, chunk_name
from iqa_core.corpus.plan.plan import Plan
from iqa_core.corpus.sources import Kind
from iqa_core.errors import CallerError
from iqa_core.storage.storage import Storage
from iqa_core.tables.audit import Audit, faults_of
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.audit import audit
from tests.corpora import tiny_png, write_mixed
from tests.corpus.corruptions import CORRUPTIONS, Finished
from tests.corpus.planned import WANTED
from tests.corpus.tars import link, write_tar
from tests.selection.scored_corpora import score

pytestmark = pytest.mark.slow


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Loose images, a tar, Parquet and a list of URIs."""
    return score(tmp_path / "scores", *write_mixed(tmp_path, 40).inputs)


def audited(output: Path) -> Audit:
    plan = Plan(Storage(), str(output))
    contract = plan.contract()
    assert contract is not None
    return audit(plan, contract)


def chunk_of(output: Path, kind: str) -> str:
    return next(
        chunk.name for chunk in Plan(Storage(), str(output)).chunks() if chunk.kind == kind and (chunk.images or 3) > 2
    )


def rewrite(output: Path, chunk: str, order: list[int]) -> list[str]:
    """Replace a chunk's rows by these of them; its keys."""
    ledger = Ledger(Storage(), str(output))
    rows = ledger.read(chunk)
    ledger.commit(chunk, rows.take(pa.array([i % rows.num_rows for i in order])), metadata_of(rows))
    keys: list[str] = rows.column("source" if rows.column("row")[0].as_py() is None else "row").to_pylist()
    return keys


def test_a_true_table(output: Path) -> None:
    found = audited(output)
    assert found.faults == []
    assert found.images == 40
    assert found.counts == {"scored": 36, "corrupt": 4}


def test_an_image_that_is_missing_and_one_that_is_there_twice(output: Path) -> None:
    chunk = chunk_of(output, "image")
    keys = rewrite(output, chunk, [0, 0, *range(2, 7)])
    assert [(fault.chunk, fault.what) for fault in audited(output).faults] == [
        (chunk, f"missing: {keys[1]}"),
        (chunk, f"twice: {keys[0]}"),
    ]


def test_rows_of_a_table(output: Path) -> None:
    chunk = chunk_of(output, "parquet")
    rows = rewrite(output, chunk, [0, 1, 1])
    whats = [fault.what for fault in audited(output).faults]
    assert any(what.startswith("missing: row") for what in whats) or len(rows) == 2
    assert f"twice: row {rows[1]}" in whats


def test_members_of_a_tar(output: Path) -> None:
    chunk = chunk_of(output, "webdataset")
    rewrite(output, chunk, [0, 1, 1])
    whats = [fault.what for fault in audited(output).faults if fault.chunk == chunk]
    assert "its keys are not those that it was read with" in whats


def test_a_tar_with_links_is_as_true_as_any(tmp_path: Path) -> None:
    images = [(f"{index}.png", tiny_png(index)) for index in range(4)]
    tar = write_tar(
        tmp_path / "a.tar", [*images, link("4.png", "0.png"), link("5.png", "0.png"), link("6.png", "3.png")]
    )
    found = audited(score(tmp_path / "scores", tar, chunk_images=3))
    assert (found.faults, found.images) == ([], 7)


def test_a_table_that_could_not_be_read_when_it_was_planned_has_as_many_rows_as_it_has() -> None:
    whole = Span("a.parquet", "a.parquet", 10**12, "e", 0, 10**12, None)
    rows = pa.table({"source": ["a.parquet"] * 3, "key": ["a", "b", "c"], "row": [0, 1, 2], "offset": [None] * 3})
    chunk, keys = Chunk("000000-000000", Kind.PARQUET, (whole,)), ("a", "b", "c")
    layout = Content(keys, pa.table({}), lambda _: iter(())).layout
    assert [*faults_of(chunk, rows, layout)] == []
    assert [*faults_of(chunk, rows.take([0, 2, 2]), layout)] == ["missing: row 1", "twice: row 2"]


def test_chunks_without_rows_and_rows_without_a_chunk(output: Path) -> None:
    ledger = Ledger(Storage(), str(output))
    ledger.commit("000007-000000", ledger.read(chunk_name(0, 0)), {})
    ledger.remove([chunk_name(0, 1)])
    assert [(fault.chunk, fault.what) for fault in audited(output).faults] == [
        (chunk_name(0, 1), "has no rows yet"),
        ("000007-000000", "is in no plan, but has rows"),
    ]


def test_what_lies_among_the_score_files(output: Path) -> None:
    for name in ("copy.parquet", "000000-000001", "aside/000000-000001.parquet", ".hidden", "_SUCCESS"):
        (output / "scores" / name).parent.mkdir(exist_ok=True)
        (output / "scores" / name).write_bytes(b"x")
    assert {fault.chunk for fault in audited(output).faults} == {
        "copy.parquet",
        "000000-000001",
        "aside/000000-000001.parquet",
    }


def test_nothing_is_scored_yet(output: Path) -> None:
    shutil.rmtree(output / "scores")
    assert {fault.what for fault in audited(output).faults} == {"has no rows yet"}


def test_keys_that_are_not_those_that_were_read(output: Path) -> None:
    ledger = Ledger(Storage(), str(output))
    chunk = chunk_of(output, "list")
    rows = ledger.read(chunk)
    ledger.commit(chunk, rows, {**metadata_of(rows), "layout": "0" * 16})
    assert [fault.what for fault in audited(output).faults] == ["its keys are not those that it was read with"]


def test_a_pack_beside_the_files_it_was_made_of(output: Path) -> None:
    ledger = Ledger(Storage(), str(output))
    names = [chunk_name(0, 0), chunk_name(0, 1)]
    ledger.commit_pack(names, [rows for _, rows in ledger.read_all(names)], 1)
    assert [(fault.chunk, fault.what) for fault in audited(output).faults] == [
        (name, f"also lies in {name}.parquet: compact_scores puts that right") for name in names
    ]


def test_a_score_file_that_is_damaged_is_a_fault_of_its_own(output: Path) -> None:
    names = [chunk.name for chunk in Plan(Storage(), str(output)).chunks()]
    images = Ledger(Storage(), str(output)).read(names[1]).num_rows
    file = output / "scores" / f"{names[1]}.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    found = audited(output)
    [fault] = found.faults
    assert fault.chunk == names[1]
    assert "it is no whole score file" in fault.what
    assert found.images == 40 - images


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An output of every kind of source, some of it tried again, some of it merged; and others to take files from."""
    root = tmp_path_factory.mktemp("finished")
    inputs = write_mixed(root / "one", 20).inputs
    found = Finished(root / "output", root / "other", root / "model", root / "older")
    score(found.output, *inputs)
    score(found.of_other_images, *write_mixed(root / "two", 20, seed=1).inputs)
    score(found.of_other_model, *inputs, wanted=replace(WANTED, fingerprint="f2"))
    ledger = Ledger(Storage(), str(found.output))
    again = chunk_name(0, 1)
    for _ in range(2):
        rows = ledger.read(again)
        known = metadata_of(rows)
        shutil.copytree(found.output / "scores", found.older / "scores", dirs_exist_ok=True)
        ledger.commit_again(again, rows, known, 1 + known.get("generation", 0), ledger.files())
    some = [chunk_name(0, index) for index in (2, 3, 4)]
    for moves in (1, 2):
        ledger.commit_pack(some, [rows for _, rows in ledger.read_all(some)], moves)
        shutil.copytree(found.output / "scores", found.older / "scores", dirs_exist_ok=True)
        ledger.settled([])
    assert audited(found.output).is_true
    return found


def as_it_is(output: Path) -> pa.Table:
    """The folder as anybody reads it."""
    files = sorted((output / "scores").rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(file).replace_schema_metadata(None) for file in files]).sort_by("source")


def corrupted(finished: Finished, true: pa.Table, folder: Path, seed: int) -> tuple[str, bool]:
    """Name of what was done, and whether it was found, where it made the table another one."""
    rng = Random(seed)
    corruption = CORRUPTIONS[seed % len(CORRUPTIONS)]
    shutil.copytree(finished.output, folder)
    corruption(rng, folder, finished)
    try:
        is_found = not audited(folder).is_true
    except CallerError as error:  # the contract cannot be read
        is_found = str(folder / "plan") in str(error)
    try:
        is_same = as_it_is(folder).equals(true)
    except (pa.ArrowException, OSError):
        is_same = False
    shutil.rmtree(folder)
    return corruption.__name__, is_found or is_same


def unfound(finished: Finished, tmp_path: Path, seeds: range) -> list[tuple[int, str]]:
    true = as_it_is(finished.output)
    done = ((seed, corrupted(finished, true, tmp_path / str(seed), seed)) for seed in seeds)
    return [(seed, name) for seed, (name, is_found) in done if not is_found]


def test_no_corruption_passes(finished: Finished, tmp_path: Path) -> None:
    assert unfound(finished, tmp_path, range(40)) == []


@pytest.mark.chaos
def test_none_of_many_corruptions_passes(finished: Finished, tmp_path: Path) -> None:
    assert unfound(finished, tmp_path, range(40, 540)) == []
