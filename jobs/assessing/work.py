"""What readers and actors do in a process of the cluster: a chunk -> ready batches -> batches of rows.

Everything here travels as rows of Arrow tables, one row per batch, pixels in one binary column, texts beside them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iqa_core.assessor.batching import time_limit_s
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.isolation import AssessorBroken
from iqa_core.assessor.load import load
from iqa_core.assessor.protocol import Assessor, AssessorSpec
from iqa_core.corpus.batches import BatchBounds, ReadyBatch, ready_batches
from iqa_core.corpus.chunks import Chunk, Origin
from iqa_core.corpus.reading import ReadPlan, open_chunk
from iqa_core.deadline import deadline
from iqa_core.errors import RunError
from iqa_core.records import Reason, Rejection
from iqa_core.tables.sink import AssessedBatch
from jobs.assessing.metrics import BusySeconds
from jobs.on_ray.transport import ChunkFailure, failure_of, from_ipc, to_ipc

RELOAD_PAUSE_S = 5.0
"""Seconds before an actor that was lost tries again to load the assessor."""

PASSED_ON = pa.schema([("failure", pa.string()), ("origin", pa.string()), ("ordinals", pa.list_(pa.int64()))])
"""What an actor returns as it came: a chunk's failure as JSON, or a batch's origin as JSON and its ordinals."""

READY_ROW = pa.schema(
    [
        *PASSED_ON,
        ("facts", pa.binary()),
        ("rejections", pa.string()),
        ("shapes", pa.list_(pa.int32())),
        ("pixels", pa.binary()),
        ("texts", pa.string()),
    ]
)
"""A ready batch as it travels from a reader to an actor, or the failure of a chunk."""

ASSESSED_ROW = pa.schema([*PASSED_ON, ("rows", pa.binary()), ("versions", pa.string()), ("answers", pa.string())])
"""An assessed batch as it travels to the driver."""


class Asking(Protocol):
    """What a job asks an assessor about images, and the rows that it makes of what it is told. Picklable."""

    @property
    def passes(self) -> int:
        """How often an image goes through the model at most; a batch's time limit grows with it."""
        ...

    def results(self, assessor: Assessor, batch: ReadyBatch) -> Sequence[Any]:
        """What is said of each prepared image of a batch, in order; an image that fails has a Rejection in its place.

        Raises AssessorBroken when the fault is the accelerator's.
        """
        ...

    def rows(self, batch: ReadyBatch, results: Sequence[Any]) -> pa.Table:
        """One row per image of the batch, rejected ones among them. results: one per image that was prepared."""
        ...

    def answers(self, batch: ReadyBatch, results: Sequence[Any]) -> tuple[Mapping[str, int], ...]:
        """How the written answers about each image were parsed; empty where none was written."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """All that a process of the cluster needs to know; the same for every chunk of a run."""

    spec: AssessorSpec
    config: AssessorConfig
    read_plan: ReadPlan
    bounds: BatchBounds
    decode_timeout_s: float
    asking: Asking


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """A chunk to be assessed, or only some of its images."""

    name: str
    encoded: bytes
    images: int | None
    """Images that the chunk holds; None where only reading tells."""
    source_bytes: int
    """Bytes that reading it takes, as far as is known."""
    only: tuple[int, ...] | None = None

    @classmethod
    def of(cls, chunk: Chunk, only: tuple[int, ...] | None = None) -> ChunkTask:
        """The task of a chunk; only: ordinals of the images to be assessed, all where it is None."""
        return cls(chunk.name, chunk.to_bytes(), chunk.images, chunk.source_bytes, only)


def read_chunk(chunk: Chunk, work: Work, only: frozenset[int] | None = None) -> Iterator[ReadyBatch | ChunkFailure]:
    """A chunk's batches, or why there are none."""
    try:
        content = open_chunk(chunk, work.read_plan)
        guard = work.decode_timeout_s
        yield from ready_batches(chunk.name, content, work.spec.preparer, work.bounds, lambda: deadline(guard), only)
    except Exception as error:  # whatever a source makes its reader raise is the source's failure
        yield failure_of(chunk.name, error)


def assessed_batch(batch: ReadyBatch, results: Sequence[Any], work: Work, versions: str) -> AssessedBatch:
    """Rows of the job's table for a batch, given what the assessor said of its images."""
    asking = work.asking
    return AssessedBatch(
        batch.origin, batch.ordinals, asking.rows(batch, results), versions, asking.answers(batch, results)
    )


class ReadChunks:
    """The readers' side of the stream: a task in, one row per ready batch out."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, task: ChunkTask) -> Iterator[pa.Table]:
        only = None if task.only is None else frozenset(task.only)
        return map(to_ready_row, read_chunk(Chunk.from_bytes(task.encoded), self._work, only))


class AssessBatches:
    """The actors' side of the stream: holds the assessor; ready batches in, assessed batches out."""

    def __init__(self, given: Callable[[], Work]) -> None:
        """given: a callable, since Ray writes arguments that are dataclasses into its logs, secrets and all."""
        work = given()
        self._work = work
        try:
            self._assessor = load(work.spec, work.config)
        except Exception as error:
            # if a restarted actor raises in its constructor, Ray drops it and the pool hangs; if its process ends, Ray
            # tries again, on another node perhaps
            if not _is_restarted():
                raise
            print(f"the assessor cannot be loaded here: {error}", file=sys.stderr, flush=True)
            time.sleep(RELOAD_PAUSE_S)
            os._exit(1)
        self._versions = json.dumps(dict(self._assessor.versions), sort_keys=True)
        self._busy = BusySeconds()

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.concat_tables([self._scored(table.slice(i, 1)) for i in range(table.num_rows)])

    def assess(self, batch: ReadyBatch) -> AssessedBatch:
        """Rows of the job's table for one batch. Ends the process at the time limit, or when the device is broken."""
        try:
            limit_s = time_limit_s(
                self._work.config, self._work.spec.rubric, len(batch.images), self._work.asking.passes
            )
            with deadline(limit_s), self._busy.counted():
                results = self._work.asking.results(self._assessor, batch)
        except AssessorBroken as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        return assessed_batch(batch, results, self._work, self._versions)

    def _scored(self, row: pa.Table) -> pa.Table:
        kept = [row.column(name) for name in PASSED_ON.names]
        if row.column("failure")[0].is_valid:
            own = [pa.nulls(1, pa.binary()), pa.array([self._versions]), pa.nulls(1, pa.string())]
        else:
            try:
                batch = self.assess(from_ready_row(row))
            except RunError as error:
                return self._ended(row, error)
            answers = json.dumps(batch.answers)
            own = [pa.array([to_ipc(batch.rows)], pa.binary()), pa.array([batch.versions]), pa.array([answers])]
        return pa.table([*kept, *own], schema=ASSESSED_ROW)

    def _ended(self, row: pa.Table, error: RunError) -> pa.Table:
        """In the place of a batch: what ends the run, such as a server that is gone."""
        chunk = Origin.from_json(row.column("origin")[0].as_py()).chunk
        failed = pa.Table.from_pylist([{"failure": failure_of(chunk, error).to_json()}], ASSESSED_ROW)
        return failed.set_column(
            ASSESSED_ROW.get_field_index("versions"), ASSESSED_ROW.field("versions"), pa.array([self._versions])
        )


def _is_restarted() -> bool:
    """Whether this process is an actor's second or later one."""
    import ray

    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and bool(context.was_current_actor_reconstructed)


def to_ready_row(batch: ReadyBatch | ChunkFailure) -> pa.Table:
    """One row of READY_ROW."""
    if isinstance(batch, ChunkFailure):
        return pa.Table.from_pylist([{"failure": batch.to_json()}], READY_ROW)
    pixels = np.concatenate([image.reshape(-1) for image in batch.images]) if batch.images else np.empty(0, np.uint8)
    offsets = np.array([0, pixels.nbytes], np.int32)
    columns = [
        pa.nulls(1, pa.string()),
        pa.array([batch.origin.to_json()]),
        pa.array([batch.ordinals], pa.list_(pa.int64())),
        pa.array([to_ipc(batch.facts)], pa.binary()),
        pa.array([_rejections_to_json(batch.rejections)]),
        pa.array([[side for image in batch.images for side in image.shape[:2]]], pa.list_(pa.int32())),
        pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(pixels)]),
        pa.array([None if batch.texts is None else json.dumps(batch.texts)], pa.string()),
    ]
    return pa.table(columns, schema=READY_ROW)


def from_ready_row(row: pa.Table) -> ReadyBatch:
    """The batch of one row of READY_ROW that is no failure; pixels are not copied."""
    value = {name: row.column(name)[0] for name in READY_ROW.names}
    shapes = value["shapes"].as_py()
    texts = value["texts"].as_py()
    return ReadyBatch(
        origin=Origin.from_json(value["origin"].as_py()),
        ordinals=tuple(value["ordinals"].as_py()),
        facts=from_ipc(value["facts"]),
        rejections=_rejections_from_json(value["rejections"].as_py()),
        images=tuple(_images(value["pixels"].as_buffer(), list(zip(shapes[::2], shapes[1::2], strict=True)))),
        texts=None if texts is None else tuple(json.loads(texts)),
    )


def from_assessed_row(row: dict[str, pa.Scalar]) -> AssessedBatch | ChunkFailure:
    """The batch of one row of ASSESSED_ROW, or the failure that its reader passed on."""
    if row["failure"].is_valid:
        return ChunkFailure.from_json(row["failure"].as_py())
    return AssessedBatch(
        origin=Origin.from_json(row["origin"].as_py()),
        ordinals=tuple(row["ordinals"].as_py()),
        rows=from_ipc(row["rows"]),
        versions=row["versions"].as_py(),
        answers=tuple(json.loads(row["answers"].as_py())),
    )


def _images(buffer: pa.Buffer, shapes: list[tuple[int, int]]) -> Iterator[NDArray[np.uint8]]:
    flat = np.frombuffer(buffer, np.uint8)
    begin = 0
    for height, width in shapes:
        yield flat[begin : begin + height * width * 3].reshape(height, width, 3)
        begin += height * width * 3


def _rejections_to_json(rejections: tuple[Rejection | None, ...]) -> str:
    return json.dumps([None if rejection is None else [rejection.reason, rejection.detail] for rejection in rejections])


def _rejections_from_json(text: str) -> tuple[Rejection | None, ...]:
    """Headers of rejected images are not among them: they are in the facts already."""
    return tuple(None if pair is None else Rejection(Reason(pair[0]), pair[1]) for pair in json.loads(text))
