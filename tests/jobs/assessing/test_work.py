"""Images whose headers lie, a whole chunk of them -> a row each: the worker's loop from source to score table.

Tests iqa_core/assessor/isolation.py, jobs/on_ray/transport.py and jobs/scoring/work.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import describe, load
from iqa_core.corpus.batches import BatchBounds
from iqa_core.corpus.chunks import Chunk, ReadOptions
from iqa_core.corpus.reading import ReadPlan
from iqa_core.errors import DONE, FAILED
from iqa_core.fusion import FusionWeights
from iqa_core.records import ImageLimits, Reason
from iqa_core.storage.storage import Storage
from iqa_core.tables.heartbeats import SCORING, Pulse
from iqa_core.tables.scores.columns import own_columns, table_schema
from iqa_core.tables.sink import Sink
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.work import Work, assessed_batch, from_ready_row, read_chunk, to_ready_row
from jobs.command import parse
from jobs.on_ray.transport import ChunkFailure
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings
from jobs.scoring.work import Scoring
from tests.corpora import write_list
from tests.corpus.planned import Output
from tests.jobs.by_hand import begun
from tests.mutations import mutated, seeds

pytestmark = pytest.mark.slow


CONFIG = AssessorConfig(checkpoint="fake:")
LIMITS = ImageLimits(max_pixels=4096)
"""Seven times the seeds' pixels: a header that claims more would take its time to be decoded."""

SPEC = describe(CONFIG, None, LIMITS)
DIMENSIONS = SPEC.rubric.names
CARRIED = pa.schema([("caption", pa.string())])
SCHEMA = table_schema(DIMENSIONS, False, CARRIED)
WORK = Work(
    spec=SPEC,
    config=CONFIG,
    read_plan=ReadPlan(Storage(), ReadOptions(chunk_images=1000), LIMITS, CARRIED, own_columns(DIMENSIONS)),
    bounds=BatchBounds(CONFIG.batch_tokens),
    decode_timeout_s=600,
    asking=Scoring(SPEC.rubric, FusionWeights.equal(DIMENSIONS)),
)
ASSESSOR = load(SPEC, CONFIG)


def planned_chunks(images: Sequence[bytes], folder: Path) -> Iterator[Chunk]:
    """Of a Parquet file that holds them."""
    folder.mkdir(exist_ok=True)
    path = folder / "a.parquet"
    captions = [f"picture {index}" for index in range(len(images))]
    pq.write_table(pa.table({"image": pa.array(images, pa.binary()), "caption": captions}), path)
    output = Output(folder / f"out{time.monotonic_ns()}", WORK.read_plan.options)
    output.extend(path)
    return output.plan.chunks()


def scored(chunk: Chunk) -> pa.Table | str:
    """The chunk's rows as the driver commits them, or why it is lost; no process, no Ray."""
    sink = Sink()
    complete = None
    for read in read_chunk(chunk, WORK):
        if isinstance(read, ChunkFailure):
            return read.message
        batch = from_ready_row(to_ready_row(read))
        complete = sink.add(assessed_batch(batch, assess_each(ASSESSOR, batch.images), WORK, "{}"))
    assert complete is not None, "some of its images did not come back"
    return complete.rows().select(SCHEMA.names).cast(SCHEMA)


def check_each_has_its_row(images: Sequence[bytes], folder: Path) -> None:
    rows = []
    for chunk in planned_chunks(images, folder):
        found = scored(chunk)
        if isinstance(found, str):
            alone = [image for image in images if isinstance(scored(next(planned_chunks([image], folder))), str)]
            raise AssertionError(f"a chunk is lost ({found}) to {alone or 'no single image'}")
        rows.append(found)
    table = pa.concat_tables(rows)
    table.validate(full=True)
    assert table.num_rows == len(images)
    for row, image in zip(table.to_pylist(), images, strict=True):
        if row["status"] == "scored":
            assert 1 <= row["frames"] <= len(image)
            assert min(row["width"], row["height"]) >= LIMITS.min_side
            assert all(1 <= row[name] <= 5 for name in (*DIMENSIONS, "reward"))
        else:
            assert row["reason"] in set(Reason) - {Reason.ASSESSOR_FAILED}
            assert row["detail"]
            assert row["reward"] is None


def test_every_image_with_a_changed_header_has_its_row(tmp_path: Path) -> None:
    check_each_has_its_row(list(islice(mutated(16), 2000)), tmp_path)


@pytest.mark.chaos
def test_so_have_a_hundred_thousand(tmp_path: Path) -> None:
    """As many as five minutes hold; in a time box (IQA_CHAOS_SECONDS), as many as half of it does."""
    end = time.monotonic() + min(300.0, float(os.environ.get("IQA_CHAOS_SECONDS", "600")) / 2)
    images = mutated(17)
    done = 0
    while done < 100_000 and time.monotonic() < end:
        check_each_has_its_row(list(islice(images, 1000)), tmp_path)
        done += 1000
    print(f"{done} images")


@pytest.mark.parametrize(("absent", "code"), [(1, DONE), (2, FAILED)])
def test_a_list_that_needs_a_package_throughout_fills_no_table(
    absent: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row of five is that row's failure; two are the run's, which goes on once the package is there."""
    (tmp_path / "a.png").write_bytes(seeds()[3])
    write_list(tmp_path / "list.jsonl", ["a.png"] * (5 - absent) + ["gs://bucket/a.png"] * absent)
    flags = ["--input", str(tmp_path / "list.jsonl"), "--output", str(tmp_path / "out"), "--no-report"]
    job = checked(parse(ScoreSettings, [*flags, "--assessor.checkpoint", "fake:"]))
    proposal = proposed(job)
    contract = applied(job, proposal)
    work = job.work(contract, 1)
    with Pulse(job.storage, job.output, SCORING) as pulse:
        run = begun(job, contract, proposal, pulse)
        for task in run.tasks():
            for batch in read_chunk(Chunk.from_bytes(task.encoded), work):
                assert not isinstance(batch, ChunkFailure)
                run.take(assessed_batch(batch, assess_each(ASSESSOR, batch.images), work, "{}"))
        assert run.conclude() == code
        run.close()
    assert len(job.ledger.finished()) == (code == DONE)
    assert ("gcsfs" in capsys.readouterr().out) == (code == FAILED), "the first failure is named"
