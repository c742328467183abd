"""Many small score files -> few large ones: finished consecutive chunks of the plan are merged into packs.

A pack is put whole, under a name that no other file has had; only then its source files are deleted, by name. A chunk
that was tried again meanwhile lies in another file, of a higher generation. So a compaction may be stopped at any
point, for any time, beside any other: a pack that it puts late has a lower rank than newer files, and the rows that it
deletes late lie in files of a higher rank (see packs). A stopped compaction leaves superfluous files, which the next
one deletes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby

import pyarrow as pa

from iqa_core.corpus.chunks import segment_and_index
from iqa_core.corpus.plan.plan import Plan
from iqa_core.tables.ledger import READ_THREADS, Ledger, consecutive
from iqa_core.tables.packs import ScoreFiles, by_file, chunk_names_in, parsed

ROUNDS = 3
"""Listings of the files, and what is merged after each: the second finds what moved during the first, or nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """Chunks that are to be merged into one file."""

    chunks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Merged:
    """A step that was carried out, and its pack."""

    file: str
    chunks: tuple[str, ...]


def steps(planned: Iterable[str], files: ScoreFiles, chunks_per_file: int) -> Iterator[Step]:
    """Steps that are left to do. planned: names of chunks that are not retired, in order.

    Files are cut at fixed places of the plan, so that what was merged stays as it is when more chunks are finished.
    """
    finished = (chunk for chunk in planned if chunk in files)
    for _, block in groupby(
        finished, key=lambda chunk: (segment_and_index(chunk)[0], segment_and_index(chunk)[1] // chunks_per_file)
    ):
        for chunks in consecutive(block):
            file = files.place(chunks[0])
            if chunk_names_in(file) != chunks or any(files.place(chunk) != file for chunk in chunks):
                yield Step(tuple(chunks))


def carry_out(ledger: Ledger, plan: Plan, chunks_per_file: int) -> Iterator[Merged]:
    """Merge step by step; yields each one after its source files were deleted.

    Retired chunks and superfluous files are deleted first, and again at the end, since some may have come.
    """
    for _ in range(ROUNDS):
        files = ledger.settled(plan.retired())
        todo = list(steps((chunk.name for chunk in plan.chunks()), files, chunks_per_file))
        if not todo:
            return
        yield from _round(ledger, files, todo)


def _round(ledger: Ledger, files: ScoreFiles, todo: Sequence[Step]) -> Iterator[Merged]:
    """Steps of one listing (`files`), carried out; a step with a source file that has gone since is left out."""
    counting = {chunk: files.place(chunk) for step in todo for chunk in step.chunks}
    left = {file: {c for c in chunk_names_in(file) if files.place(c) == file} for file in set(counting.values())}
    for step in todo:
        sources = list(by_file(step.chunks, files.packed))
        if (tables := _read(ledger, sources)) is None:
            continue
        moves = 1 + max((parsed(file).number for file, _ in sources if parsed(file).is_pack), default=0)
        merged = ledger.commit_pack(step.chunks, tables, moves)
        for chunk in step.chunks:
            left[counting[chunk]].discard(chunk)
        ledger.discard(sorted({file for file, _ in sources if not left[file]}))
        yield Merged(merged, step.chunks)


def _read(ledger: Ledger, sources: Sequence[tuple[str, list[str]]]) -> list[pa.Table] | None:
    """Rows of each chunk in these files; None where a file has gone."""
    with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="compact") as pool:
        found = list(pool.map(lambda source: ledger.read_file(*source), sources))
    there = [tables for tables in found if tables is not None]
    return list(chain.from_iterable(there)) if len(there) == len(found) else None
