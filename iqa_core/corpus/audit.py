"""A plan against its score table -> every place where a planned image is not there exactly once.

What the plan knows of its images decides how much can be told. A loose image is known by its URI, a row of a table by
its number, a member of a tar by where it lies. A list of URIs, and a tar that was not indexed, are held against the
digest of keys that was written when their chunk was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice, pairwise
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, Stretch
from iqa_core.corpus.ledger import Damaged, Ledger
from iqa_core.corpus.packs import ScoreFiles, chunks_of
from iqa_core.corpus.plan import Plan
from iqa_core.corpus.sources import Kind
from iqa_core.corpus.table import REJECTED, SCORED, counts_of

COLUMNS = ["key", "source", "offset", "row", "status", "reason"]

CHUNKS_AT_ONCE = 4096

NAMES_SHOWN = 3
"""Images of one chunk that a fault names."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it must be."""

    chunk: str
    what: str


@dataclass(slots=True)
class Audit:
    """What was found."""

    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Rejection code, or `scored` -> rows."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_true(self) -> bool:
        return not self.faults


def audit(plan: Plan, ledger: Ledger) -> Audit:
    """Read the whole table, a few columns of it, and hold it against the plan; only names of chunks are kept."""
    found = Audit()
    files = ledger.files()
    found.faults += _planned_twice(plan)
    found.faults += _in_two_files(files)
    retired = plan.retired()
    found.faults += [
        Fault(chunk, "is retired, but its rows are still there") for chunk in sorted(retired & files.finished)
    ]
    planned: set[str] = set()
    chunks = plan.chunks()
    while some := list(islice(chunks, CHUNKS_AT_ONCE)):
        planned.update(chunk.name for chunk in some)
        _hold(some, files, ledger, found)
    strange = files.finished - planned - retired
    found.faults += [Fault(chunk, "is in no plan, but has rows") for chunk in sorted(strange)]
    return found


def _hold(chunks: Sequence[Chunk], files: ScoreFiles, ledger: Ledger, found: Audit) -> None:
    """These chunks against their rows."""
    there = [chunk for chunk in chunks if chunk.name in files]
    missing = sorted({chunk.name for chunk in chunks} - {chunk.name for chunk in there})
    found.faults += [Fault(name, "has no rows yet") for name in missing]
    for chunk, table in zip(there, _read([chunk.name for chunk in there], ledger), strict=True):
        if isinstance(table, str):
            found.faults.append(Fault(chunk.name, table))
            continue
        found.images += table.num_rows
        found.counts.update(counts_of(table))
        found.faults += [Fault(chunk.name, what) for what in faults_of(chunk, table, ledger.metadata(table))]


def _read(names: Sequence[str], ledger: Ledger) -> Iterator[pa.Table | str]:
    """Rows of each chunk, or what is wrong with its file."""
    done = 0
    try:
        for _, rows in ledger.read_all(names, COLUMNS):
            yield rows
            done += 1
    except Damaged:
        for name in names[done:]:
            try:
                yield ledger.read(name, COLUMNS)
            except Damaged as error:
                yield str(error)


def faults_of(chunk: Chunk, rows: pa.Table, metadata: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with one chunk's rows. rows: columns of COLUMNS."""
    if chunk.images is not None and rows.num_rows != chunk.images:
        yield f"has {rows.num_rows} rows for {chunk.images} planned images"
    if chunk.kind is Kind.IMAGE:
        yield from _differences([s.source for s in chunk.stretches], rows.column("source").to_pylist())
    elif chunk.images is not None and rows.column("row").null_count < rows.num_rows:
        wanted = [row for stretch in chunk.stretches for row in range(stretch.begin, stretch.end)]
        yield from _differences(wanted, rows.column("row").drop_null().to_pylist(), "row ")
    else:
        places = Counter(rows.column("offset").drop_null().to_pylist())
        yield from _named("twice", [f"offset {place}" for place, count in places.items() if count > 1])
    layout = metadata.get("layout")
    keys = tuple(rows.column("key").to_pylist())
    if layout is not None and Content(keys, pa.table({}), lambda _: iter(())).layout != layout:
        yield "its keys are not those that it was read with"
    unknown = sorted(set(rows.column("status").to_pylist()) - {SCORED, REJECTED})
    if unknown:
        yield f"has rows that are neither scored nor rejected ({unknown[0]})"


def _differences(wanted: Sequence[Any], there: Sequence[Any], prefix: str = "") -> Iterator[str]:
    """Planned images that have no row, or more than one, and rows that nothing was planned for."""
    planned, found = Counter(wanted), Counter(there)
    yield from _named("missing", [f"{prefix}{name}" for name in planned - found])
    yield from _named("twice", [f"{prefix}{name}" for name in found - planned if name in planned])
    yield from _named("not planned", [f"{prefix}{name}" for name in found if name not in planned])


def _named(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        yield f"{what}: {', '.join(names[:NAMES_SHOWN])}{more}"


def _planned_twice(plan: Plan) -> Iterator[Fault]:
    """Stretches of one source that overlap."""
    for source, rows in groupby(plan.rows(), key=lambda row: row.stretch.source):
        ordered = sorted(rows, key=lambda row: (row.stretch.begin, row.stretch.end))
        for before, after in pairwise(ordered):
            if _overlap(before.stretch, after.stretch):
                yield Fault(after.chunk, f"images of {source} are planned here and in {before.chunk}")


def _overlap(before: Stretch, after: Stretch) -> bool:
    """The second begins where the first is not over, or is the first again."""
    return after.begin < before.end or after.begin == before.begin


def _in_two_files(files: ScoreFiles) -> Iterable[Fault]:
    """Chunks that lie in a pack which does not count for them: who reads the folder as it is sees them twice."""
    for pack in files.packs:
        doubled = [chunk for chunk in chunks_of(pack) if files.packed.get(chunk) != pack]
        if doubled:
            text = f"also lies in {pack}.parquet, as do {len(doubled) - 1} others: compact_scores puts that right"
            yield Fault(doubled[0], text)
