"""Chunks -> batches of rows, through Ray Data: readers, then a pool of actors that hold the assessor."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from iqa_core.tables.sink import AssessedBatch
from jobs.assessing.work import AssessBatches, ChunkTask, ReadChunks, Work, from_assessed_row
from jobs.on_ray.cluster import Pool
from jobs.on_ray.read_tasks import read_each
from jobs.on_ray.transport import ChunkFailure

WAVE_BYTES = 256 * 2**20
"""Bytes of a wave's task descriptors, which lie in the object store."""

READER_RETRIES = ACTOR_RETRIES = 2
"""Retries after a death of the process. Ray's default is without end: a poisonous image would be tried for ever."""

READERS_PER_ACTOR = 8
"""Readers at once, however many CPUs there are: each may hold a chunk of 512 MiB and a batch of 256 MiB of pixels."""

IMAGES_PER_READER, BYTES_PER_READER = 64, 64 * 2**20
"""Least work for which a reader is started: with less, starting its process (2 s) costs more than it saves."""

CONSTRUCTOR_DEATHS = 3
"""Actors in a row that may fail to load the assessor: a throttled copy of the checkpoint is no reason to end a run."""

BLOCK_BYTES = 1
"""Target size of a block: each batch becomes a block, so that actors are equally busy and a death costs one batch. The
driver hands out about 78 blocks/s, so large pools want large batches (`--assessor.batch-tokens`)."""

BLOCKS_AHEAD = 8
"""Blocks that a reader may make before the driver has seen them (backpressure). Ray's default of 2 is meant for blocks
of 128 MiB; ours are single batches, and a reader would wait 60 ms for each."""

CALLS_PER_ACTOR = 2
"""Calls that an actor takes at once; one of them assesses, so that Ray's work for a batch overlaps with another's."""

Event = AssessedBatch | ChunkFailure


def waves(tasks: Iterable[ChunkTask], max_chunks: int) -> Iterator[list[ChunkTask]]:
    """Tasks in groups that a driver can hold: Ray Data keeps what it knows of each as long as a stream lives."""
    wave: list[ChunkTask] = []
    size = 0
    for task in tasks:
        wave.append(task)
        size += len(task.encoded)
        if len(wave) == max_chunks or size >= WAVE_BYTES:
            yield wave
            wave, size = [], 0
    if wave:
        yield wave


def stream(wave: Sequence[ChunkTask], work: Work, pool: Pool) -> Iterator[Event]:
    """What comes back for a wave, in any order. Batches that a dying process held do not come back."""
    from ray.data import ActorPoolStrategy, DataContext

    # Ray would log each death of a worker with its traceback; the driver finds by ordinal what is missing, and says so
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    # Ray 2.60 has no other way to say how often an actor is restarted
    warnings.filterwarnings("ignore", message="`ray_remote_args_fn` is deprecated")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = CONSTRUCTOR_DEATHS
    context.target_max_block_size = BLOCK_BYTES
    # a thread per task that watches its memory costs more than its figures are worth
    context.memory_usage_poll_interval_s = None
    # Ray's default of 2 starved actors that take seconds per batch
    context.downstream_capacity_backpressure_ratio = 10
    context._max_num_blocks_in_streaming_gen_buffer = BLOCKS_AHEAD
    context.custom_execution_callback_classes = [_forgetful()]
    batches = read_each(
        wave,
        ReadChunks(work),
        num_cpus=pool.reader_cpus,
        at_once=readers_at_once(wave, pool),
        retries=READER_RETRIES,
    )
    rows = batches.map_batches(
        AssessBatches,
        fn_constructor_args=(lambda: work,),
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(
            min_size=pool.num_actors,
            max_size=pool.most_actors,
            max_tasks_in_flight_per_actor=4,
            max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
        ),
        num_cpus=pool.actor_cpus,
        num_gpus=pool.actor_gpus or None,
        ray_remote_args_fn=_actor_faults,
    )
    tables: Iterable[pa.Table] = rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4)
    for table in tables:
        for i in range(table.num_rows):
            yield from_assessed_row({name: table.column(name)[i] for name in table.column_names})


def readers_at_once(wave: Sequence[ChunkTask], pool: Pool) -> int:
    """How many readers are worth starting for a wave, at most one per task."""
    useful = len(wave)
    counts = [task.images for task in wave if task.images is not None]
    if len(counts) == len(wave):
        source_bytes = sum(task.source_bytes for task in wave)
        useful = min(useful, max(1, sum(counts) // IMAGES_PER_READER, source_bytes // BYTES_PER_READER))
    return min(READERS_PER_ACTOR * pool.most_actors, useful)


def _forgetful() -> type:
    """A callback that drops Ray Data's statistics of every block at each step.

    Ray Data keeps them for a report that nobody here reads: 2.5 kB per block, 165 kB per chunk of 64 batches, on the
    driver until the data set ends.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback
    from ray.data._internal.execution.operators.map_operator import MapOperator

    class Forgetful(ExecutionCallback):
        def on_execution_step(self, executor: Any) -> None:
            for operator in executor._topology:
                if isinstance(operator, MapOperator):
                    operator._output_blocks_stats.clear()

    return Forgetful


def _actor_faults() -> dict[str, Any]:
    return {"max_restarts": -1, "max_task_retries": ACTOR_RETRIES}
