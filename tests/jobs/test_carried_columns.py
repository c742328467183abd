"""Columns of every type, through planning and the worker's loop (no Ray) -> the score table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.corpus.carried_types import carried_type
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import apply
from iqa_core.errors import CallerError
from iqa_core.tables.sink import Sink
from jobs.assessing.proposing import proposed
from jobs.assessing.work import AssessBatches, ChunkTask, ReadChunks, from_assessed_row
from jobs.scoring.job import ScoringJob, checked
from jobs.scoring.settings import ScoreSettings
from tests.arrow_types import Example, all_types, refused_types
from tests.corpora import tiny_png

pytestmark = pytest.mark.slow


EXAMPLES: Mapping[str, Example] = {f"c{index}": example for index, example in enumerate(all_types())}
CARRIED = {name: example for name, example in EXAMPLES.items() if example.carried is not None}


def planned(tmp_path: Path, *inputs: Path, **flags: Any) -> tuple[ScoringJob, Contract]:
    settings = ScoreSettings(
        input=[str(path) for path in inputs],
        output=str(tmp_path / "out"),
        assessor=AssessorConfig(checkpoint="fake:"),
        **flags,
    )
    job = checked(settings)
    proposal = proposed(job)
    assert apply(job.plan, proposal)
    return job, proposal.contract


def scored(job: ScoringJob, contract: Contract) -> pa.Table:
    """The score table, as its files have it."""
    work = job.work(contract, threads=1)
    read, assess, sink = ReadChunks(work), AssessBatches(lambda: work), Sink()
    for chunk in job.plan.chunks():
        for name, rows in _complete(chunk, read, assess, sink):
            job.ledger.commit(name, rows, {})
    return pa.concat_tables(rows for _, rows in job.ledger.read_all(sorted(job.ledger.finished())))


def _complete(chunk: Chunk, read: ReadChunks, assess: AssessBatches, sink: Sink) -> Iterator[tuple[str, pa.Table]]:
    for ready in read(ChunkTask.of(chunk)):
        done = assess(ready)
        batch = from_assessed_row({name: done.column(name)[0] for name in done.column_names})
        assert not hasattr(batch, "message"), batch
        if (complete := sink.add(batch)) is not None:
            yield batch.origin.chunk, complete.rows()


def write_arrow(path: Path, columns: Mapping[str, pa.Array]) -> Path:
    table = pa.table({"image": [tiny_png(0), tiny_png(1), tiny_png(2)], **columns})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return path


def test_every_type_of_arrow_is_carried_with_its_values(tmp_path: Path) -> None:
    given = {name: example.column for name, example in CARRIED.items()}
    job, contract = planned(tmp_path, write_arrow(tmp_path / "a.arrow", given), chunk_images=2, image_column="image")
    found = scored(job, contract)
    assert found.num_rows == 3
    wrong = [
        example.name
        for name, example in CARRIED.items()
        if not found.column(name).combine_chunks().equals(example.carried)
    ]
    assert wrong == []


def _parquet_of(columns: Mapping[str, pa.Array]) -> bytes | None:
    """A file of them; None where Parquet has no such type."""
    sink = io.BytesIO()
    try:
        pq.write_table(pa.table(dict(columns)), sink)
    except (pa.ArrowException, OSError):
        return None
    return sink.getvalue()


def test_what_parquet_can_hold_is_carried_from_it_the_same(tmp_path: Path) -> None:
    given = {
        name: example.column
        for name, example in CARRIED.items()
        if not example.column.type.num_fields and _parquet_of({"x": example.column})
    }
    assert len(given) > 45
    data = _parquet_of({"image": pa.array([tiny_png(0), tiny_png(1), tiny_png(2)]), **given})
    assert data is not None
    (tmp_path / "a.parquet").write_bytes(data)
    found = scored(*planned(tmp_path, tmp_path / "a.parquet", image_column="image"))
    wrong = [name for name in given if not found.column(name).combine_chunks().equals(CARRIED[name].carried)]
    assert [EXAMPLES[name].name for name in wrong] == []


@pytest.mark.parametrize("example", list(refused_types()), ids=lambda example: example.name)
def test_a_type_that_cannot_be_carried_is_refused_by_name_before_the_start(example: Example, tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "a.arrow", {"odd": example.column})
    with pytest.raises(CallerError, match=r"(?s)a\.arrow: column odd cannot be carried.*--carry odd:string"):
        planned(tmp_path, path)
    assert not (tmp_path / "out").exists()


def test_so_is_every_type_that_holds_one() -> None:
    held = [example.column.type for example in EXAMPLES.values() if example.carried is None]
    assert len(held) > 100
    for kind in held:
        with pytest.raises(ValueError, match=r"union|interval|struct"):
            carried_type(kind)


def test_any_column_is_carried_as_text_where_that_is_asked_for(tmp_path: Path) -> None:
    columns = {
        "union": pa.UnionArray.from_sparse(
            pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
        ),
        "seed": pa.array([2**63, None, 7], pa.uint64()),
        "boxes": pa.array([[{"x": 1}], None, []]),
        "hash": pa.array([b"\xff\x00", b"abc", None]),
        "day": pa.array([0, 1, None], pa.date32()),
    }
    path = write_arrow(tmp_path / "a.arrow", columns)
    found = scored(*planned(tmp_path, path, carry=[f"{name}:string" for name in columns], image_column="image"))
    assert found.select(list(columns)).to_pydict() == {
        "union": ["1", "b", "3"],
        "seed": [str(2**63), None, "7"],
        "boxes": ['[{"x": 1}]', None, "[]"],
        "hash": ["ff00", "abc", None],
        "day": ["1970-01-01", "1970-01-02", None],
    }
