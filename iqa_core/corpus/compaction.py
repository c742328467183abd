"""Many small score files -> few large ones: finished neighbours of the plan are merged into packs.

A pack is put whole, in one atomic step, and only then the files that it was made of go, each unless it has changed
since it was read. So at every moment each chunk lies in some file, and the ledger counts it once (see packs). Whoever
is stopped in between leaves files too many, which the next compaction takes away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from iqa_core.corpus.ledger import READ_THREADS, Ledger
from iqa_core.corpus.packs import ScoreFiles, pack_name, place_of


@dataclass(frozen=True, slots=True)
class Step:
    """Chunks that are to lie in one file, and do not."""

    chunks: tuple[str, ...]

    @property
    def file(self) -> str:
        return pack_name(self.chunks) if len(self.chunks) > 1 else self.chunks[0]


def steps(planned: Iterable[str], files: ScoreFiles, chunks_per_file: int) -> Iterator[Step]:
    """What is to be done. planned: names of chunks that are not retired, in order.

    Files are cut at fixed places of the plan, so that what was merged stays as it is when more chunks are finished.
    """
    finished = (chunk for chunk in planned if chunk in files)
    for _, block in groupby(finished, key=lambda chunk: (place_of(chunk)[0], place_of(chunk)[1] // chunks_per_file)):
        for chunks in _without_gaps(block):
            step = Step(tuple(chunks))
            if any(files.packed.get(chunk, chunk) != step.file for chunk in chunks):
                yield step


def superfluous(files: ScoreFiles) -> list[str]:
    """Packs of which nothing counts: each of their chunks lies in another file."""
    return sorted(set(files.packs) - set(files.packed.values()))


def carry_out(ledger: Ledger, files: ScoreFiles, todo: Iterable[Step]) -> Iterator[Step]:
    """Merge, step by step; hands out each step when it is done, its old files gone.

    files: as they were when the steps were found.
    """
    counting: dict[str, set[str]] = {pack: set() for pack in files.packs}
    for chunk, pack in files.packed.items():
        counting[pack].add(chunk)
    with ledger.rearranging(), ThreadPoolExecutor(READ_THREADS, thread_name_prefix="compact") as pool:
        for pack in superfluous(files):
            ledger.discard(pack)
        for step in todo:
            own = [chunk for chunk in step.chunks if chunk in files.singles]
            versions = list(pool.map(ledger.version, own))
            tables = [rows for _, rows in ledger.read_all(step.chunks)]
            if len(tables) > 1:
                ledger.commit_pack(step.file, tables)
                list(pool.map(partial(_discard_unchanged, ledger), own, versions))
            else:
                ledger.commit(step.file, tables[0], ledger.metadata(tables[0]))
            _discard_emptied(ledger, step, counting)
            yield step


def _without_gaps(chunks: Iterable[str]) -> Iterator[list[str]]:
    """Chunks of one segment in order, cut where the next one's number is missing."""
    indexed = ((place_of(chunk)[1] - i, chunk) for i, chunk in enumerate(chunks))
    for _, run in groupby(indexed, key=lambda pair: pair[0]):
        yield [chunk for _, chunk in run]


def _discard_unchanged(ledger: Ledger, chunk: str, version: str | None) -> None:
    """A file that was replaced since it was read stays: it counts, and the next compaction takes it in."""
    if ledger.version(chunk) == version:
        ledger.discard(chunk)


def _discard_emptied(ledger: Ledger, step: Step, counting: dict[str, set[str]]) -> None:
    """Take away packs of which the last chunk that counted has a new place."""
    for pack in [pack for pack, chunks in counting.items() if pack != step.file and chunks & set(step.chunks)]:
        counting[pack] -= set(step.chunks)
        if not counting[pack]:
            ledger.discard(pack)
