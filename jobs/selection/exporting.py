"""Kept rows -> exports: shards planned in order, finished ones struck out, the rest written by tasks of the cluster.

As in scoring, which manifests exist is all there is to know about what is done. Any number of crashes cannot lose,
double or change an image: the rows of a shard are decided by scores and policy alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import chunk_name
from iqa_core.corpus.originals import encoded_bounds
from iqa_core.errors import DONE, FAILED, RunError
from iqa_core.selection.exports import imagefolder
from iqa_core.selection.exports.card import card
from iqa_core.selection.exports.listing import list_bytes
from iqa_core.selection.exports.marked import marked
from iqa_core.selection.exports.samples import value_schema
from iqa_core.selection.exports.values import infinite
from iqa_core.selection.grounded import GroundedTable
from iqa_core.storage.uris import join, scratch_of
from jobs.on_ray.guard import guarded
from jobs.on_ray.read_tasks import read_each
from jobs.on_ray.transport import from_ipc, to_ipc
from jobs.progress import Progress, counted
from jobs.selection.export_work import MANIFEST, MARKED, EncodedShard, ExportShards, ExportWork, TriedShard

SHARD_BYTES = 512 * 2**20
"""Encoded bytes of a shard at most, as far as they are known: a task holds them twice."""

WAVE_BYTES = 256 * 2**20
"""Bytes of shards' rows that lie in the object store at once."""

TASK_RETRIES = 2

LINES_SHOWN = 10

Blocks = Callable[[], Iterable[pa.Table]]
"""The kept rows, from the beginning each time it is called."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Kept rows that become one shard."""

    name: str
    rows: pa.Table


@dataclass(slots=True)
class ExportOutcome:
    """What became of an export in this run."""

    missing: list[pa.Table] = field(default_factory=list)
    """Originals that are gone, of shards that were not written for that reason."""
    failures: dict[str, str] = field(default_factory=dict)
    infinite: Counter[str] = field(default_factory=Counter)
    """Column -> infinite numbers, for which JSON has no word."""
    read_as_times: set[str] = field(default_factory=set)
    """Columns of text that `datasets` takes for dates and times."""

    @property
    def altered(self) -> list[str]:
        """What a reader of the export will not find as it was, a sentence each."""
        numbers = [
            f"{counted(count, 'infinite number')} of {name}: null, since JSON has none"
            for name, count in sorted(self.infinite.items())
        ]
        times = [f"text of {name}: datasets reads it as dates and times" for name in sorted(self.read_as_times)]
        return [*numbers, *times]


def export(
    work: ExportWork,
    kept: Blocks,
    schema: pa.Schema,
    record: Mapping[str, Any],
    connect: Callable[[], None],
    stall_timeout_s: float,
) -> int:
    """Write or finish one export; the exit code. Raises RunError for a failure that ends it."""
    _begin(work, record)
    finished = work.ledger.finished()
    planned: list[str] = []
    outcome = ExportOutcome()
    found = _watched(shards(kept(), work.shard_images), work.format, outcome)
    progress = Progress(record["kept"], 0, failed_are="missing")
    try:
        for wave in _waves(_unfinished(found, finished, planned, progress)):
            connect()
            for event in guarded(_streamed(wave, work), stall_timeout_s):
                _take(event, outcome, progress, work.allow_missing)
    finally:
        progress.close()
    return _conclude(work, record, schema, planned, outcome)


def _begin(work: ExportWork, record: Mapping[str, Any]) -> None:
    """Lay down the terms of the export. Raises RunError where it was begun with others."""
    begun = {"decisions": _digest(record), **work.terms}
    work.storage.begin(work.begun_uri, json.dumps(begun, indent=2).encode(), scratch=scratch_of(work.output))
    if work.begun() != begun:
        raise RunError(
            f"{work.output}: its {work.format} export was begun with other decisions: rows were scored anew since. "
            "Select into another folder"
        )


def _digest(record: Mapping[str, Any]) -> str:
    """Digest of the decision files."""
    return hashlib.sha256("".join(part["sha256"] for part in record["decisions"]).encode()).hexdigest()


def shards(blocks: Iterable[pa.Table], shard_images: int) -> Iterator[Shard]:
    """Kept rows cut in order, by number and by what their bytes may be; the same rows give the same shards."""
    waiting: list[pa.Table] = []
    held = size = index = 0
    for block in blocks:
        begin = 0
        for row, length in enumerate(encoded_bounds(block)):
            if held + row - begin and (held + row - begin == shard_images or size + length > SHARD_BYTES):
                waiting.append(block.slice(begin, row - begin))
                yield Shard(chunk_name(0, index), pa.concat_tables(waiting).combine_chunks())
                waiting, held, size, begin, index = [], 0, 0, row, index + 1
            size += length
        waiting.append(block.slice(begin))
        held += block.num_rows - begin
    if held:
        yield Shard(chunk_name(0, index), pa.concat_tables(waiting).combine_chunks())


def _watched(found: Iterable[Shard], format: str, outcome: ExportOutcome) -> Iterator[Shard]:
    """The same shards; what the format cannot keep of each, finished or not, is counted in the outcome."""
    for shard in found:
        values = shard.rows.select(value_schema(shard.rows.schema).names)
        if format in {"webdataset", "imagefolder"}:
            outcome.infinite.update(infinite(values))
        if format == "imagefolder":
            outcome.read_as_times.update(imagefolder.taken_for_times(values))
        yield shard


def _unfinished(found: Iterable[Shard], finished: set[str], planned: list[str], progress: Progress) -> Iterator[Shard]:
    for shard in found:
        planned.append(shard.name)
        if shard.name in finished:
            progress.done_before += shard.rows.num_rows
        else:
            yield shard


def _waves(found: Iterable[Shard]) -> Iterator[list[EncodedShard]]:
    """The shards in groups that the object store can hold."""
    wave: list[EncodedShard] = []
    size = 0
    for shard in found:
        wave.append(EncodedShard(shard.name, to_ipc(shard.rows)))
        size += len(wave[-1].rows)
        if size >= WAVE_BYTES:
            yield wave
            wave, size = [], 0
    if wave:
        yield wave


def _streamed(wave: Sequence[EncodedShard], work: ExportWork) -> Iterator[TriedShard]:
    """What comes back, in any order; a shard whose task died again and again does not."""
    import ray
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    # at most one per CPU: each may hold SHARD_BYTES twice
    tasks = max(1, min(len(wave), int(ray.cluster_resources().get("CPU", 1))))
    rows = read_each(wave, ExportShards(work), num_cpus=0.5, at_once=tasks, retries=TASK_RETRIES)
    tables: Iterable[pa.Table] = rows.iter_batches(batch_size=None, batch_format="pyarrow")
    for table in tables:
        for i in range(table.num_rows):
            row = {name: table.column(name)[i] for name in table.column_names}
            yield TriedShard(
                row["shard"].as_py(),
                row["images"].as_py(),
                from_ipc(row["missing"]),
                row["failure"].as_py(),
                row["is_fatal"].as_py(),
            )


def _take(event: TriedShard | None, outcome: ExportOutcome, progress: Progress, allow_missing: bool) -> None:
    if event is None:
        progress.tick()
        return
    if event.is_fatal:
        raise RunError(str(event.failure))
    if event.failure is not None:
        outcome.failures[event.shard] = event.failure
        return
    if event.missing.num_rows and not allow_missing:
        outcome.missing.append(event.missing)
    progress.add(event.images + event.missing.num_rows, event.missing.num_rows)


def _conclude(
    work: ExportWork, record: Mapping[str, Any], schema: pa.Schema, planned: Sequence[str], outcome: ExportOutcome
) -> int:
    """Reconcile, list the originals that are gone, write the card, say what became of it; the exit code."""
    finished = work.ledger.finished()
    written = [rows for _, rows in work.ledger.read_all([name for name in planned if name in finished])]
    undone = [name for name in planned if name not in finished]
    rows = sum(manifest.num_rows for manifest in written)
    if not undone and rows != record["kept"]:
        raise RunError(f"{work.format}: {rows} images in the manifests, {record['kept']} are kept; run it again")
    gone = [manifest.filter(manifest.column("reason").is_valid()) for manifest in written]
    missing = pa.concat_tables([MANIFEST.empty_table(), *gone, *outcome.missing], promote_options="permissive")
    images = rows - sum(table.num_rows for table in gone)
    print(f"{labelled(work)}: {counted(images, 'image')} in {counted(len(written), 'shard')}", flush=True)
    for sentence in outcome.altered:
        print(f"altered    {sentence}", flush=True)
    _list_missing(work, missing)
    if undone:
        print(f"unfinished {counted(len(undone), 'shard')}, which the same command tries again", flush=True)
        for name, message in sorted(outcome.failures.items())[:LINES_SHOWN]:
            print(f"  {name}: {message}", flush=True)
        if missing.num_rows:
            print("--allow-missing writes them without what is missing", flush=True)
        return FAILED
    _put_card(work, record, schema, images, missing.num_rows, outcome.altered)
    return DONE


def export_list(work: ExportWork, kept: Blocks, schema: pa.Schema, record: Mapping[str, Any]) -> int:
    """Write a plain list; the exit code."""
    names = (*record["dimensions"], *(n for n in schema.names if n.endswith("_reward")), "reward")
    _begin(work, record)
    table, text = list_bytes(kept(), work.caption, names)
    return _put_files(work, {"selected.parquet": table, "selected.txt": text}, schema, record)


def export_regions(
    work: ExportWork, kept: Blocks, schema: pa.Schema, record: Mapping[str, Any], grounded: GroundedTable
) -> int:
    """Write the regions of what is kept; the exit code."""
    _begin(work, record)
    images = marked(kept(), grounded.regions(), record["dimensions"])
    dimensions, fingerprint = grounded.contract.grounded, grounded.contract.fingerprint
    return _put_files(work, MARKED[work.format].files(images, dimensions, fingerprint), schema, record)


def _put_files(work: ExportWork, files: Mapping[str, bytes], schema: pa.Schema, record: Mapping[str, Any]) -> int:
    """Put an export that the driver writes, since no image is touched; the exit code."""
    for name, data in files.items():
        work.storage.put(join(_folder(work), name), data, scratch=scratch_of(work.output))
    _put_card(work, record, schema, record["kept"], 0)
    print(f"{labelled(work)}: {counted(record['kept'], 'image')}", flush=True)
    return DONE


def labelled(work: ExportWork) -> str:
    """The format and its folder, in columns; a space stands between them however long the format's name is."""
    return f"{work.format:<10} {_folder(work)}"


def _folder(work: ExportWork) -> str:
    return join(work.output, work.format)


def _put_card(
    work: ExportWork,
    record: Mapping[str, Any],
    schema: pa.Schema,
    images: int,
    missing: int,
    altered: Sequence[str] = (),
) -> None:
    """Write the card, last of all: an export with a card is whole."""
    text = card(work.format, record, images, missing, altered)
    if work.format == "imagefolder":
        text = imagefolder.front_matter(value_schema(schema), _digest(record)) + text
    work.storage.put(join(_folder(work), "README.md"), text.encode(), scratch=scratch_of(work.output))


def _list_missing(work: ExportWork, missing: pa.Table) -> None:
    """Write the missing originals into a file and show the first; no file where nothing is missing."""
    uri = join(join(join(work.output, "manifests"), work.format), "missing.jsonl")
    if not missing.num_rows:
        work.storage.delete(uri)
        return
    rows = missing.select(["key", "source", "reason", "detail"]).to_pylist()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    work.storage.put(uri, lines.encode(), scratch=scratch_of(work.output))
    print(f"missing    {counted(len(rows), 'original')}, listed in {uri}", flush=True)
    for row in rows[:LINES_SHOWN]:
        print(f"  {row['source']} {row['key']}: {row['reason']}, {row['detail']}", flush=True)
