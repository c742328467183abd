"""A plan against a table of its images -> every planned image that is not there exactly once, with possible values.

How much can be checked depends on what the plan knows of its images. A loose image is known by its URI and key, a row
of a table by its number. Lists of URIs, tars and selected rows are held against the digest of keys that was written
when their chunk was read. The ledger checks that every file is whole and belongs to its name, plan and output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice, pairwise
from typing import Any, Protocol

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, Span
from iqa_core.corpus.plan.plan import Contract, Plan, Planned
from iqa_core.corpus.sources import Kind, relative
from iqa_core.errors import listed
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.packs import FileName, ScoreFiles
from iqa_core.tables.score_file import Damaged, metadata_of

CHUNKS_AT_ONCE = 4096

NAMES_SHOWN = 3
"""Images of one chunk that a fault names."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a chunk or file is not as it must be."""

    chunk: str
    what: str


@dataclass(slots=True)
class Audit:
    """Rows counted and faults found."""

    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Rejection code, or `scored` -> rows."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_true(self) -> bool:
        """Whether there are no faults."""
        return not self.faults


class AuditedTable(Protocol):
    """A table of images with its files, as `Ledger` is one."""

    def files(self) -> ScoreFiles:
        """The files that are there. Raises Damaged."""
        ...

    def read(self, chunk: str, columns: list[str] | None = None, files: ScoreFiles | None = None) -> pa.Table:
        """Rows of a chunk, one per image, in ordinal order. Raises Damaged."""
        ...

    def read_all(
        self, chunks: Sequence[str], columns: list[str] | None = None, files: ScoreFiles | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Chunks in this order. Raises Damaged."""
        ...


@dataclass(frozen=True, slots=True)
class Checks:
    """What is looked at in the rows of a chunk."""

    of_file: Callable[[Chunk, pa.Table], Iterator[str]]
    """Contradictions between rows, with their metadata, and plan or contract."""
    of_values: Callable[[Chunk, pa.Table], Iterator[str]]
    """Asked where there are none: values that rows cannot have."""
    counts_of: Callable[[pa.Table], Mapping[str, int]]
    """Rejection code, or `scored` -> rows."""


def audited(plan: Plan, table: AuditedTable, folders: Sequence[Ledger], checks: Checks) -> Audit:
    """Faults of the whole table, read chunk by chunk; only names of chunks are kept in memory.

    folders: of its files. Raises CallerError where a part of the plan cannot be read.
    """
    found = Audit()
    try:
        files = table.files()
        found.faults += [fault for folder in folders for fault in _in_two_files(folder.files())]
    except Damaged as error:
        found.faults.append(Fault(folders[-1].folder, str(error)))
        return found
    found.faults += _planned_twice(plan.rows())
    found.faults += [fault for folder in folders for fault in _strangers(folder)]
    retired = plan.retired()
    found.faults += [
        Fault(chunk, "is retired, but its rows are still there") for chunk in sorted(retired & files.finished)
    ]
    planned: set[str] = set()
    chunks = plan.chunks()
    while some := list(islice(chunks, CHUNKS_AT_ONCE)):
        planned.update(chunk.name for chunk in some)
        _hold(some, files, table, checks, found)
    strange = files.finished - planned - retired
    found.faults += [Fault(chunk, "is in no plan, but has rows") for chunk in sorted(strange)]
    return found


def _hold(chunks: Sequence[Chunk], files: ScoreFiles, table: AuditedTable, checks: Checks, found: Audit) -> None:
    """Compare these chunks with their rows, and add to what was found."""
    there = [chunk for chunk in chunks if chunk.name in files]
    missing = sorted({chunk.name for chunk in chunks} - {chunk.name for chunk in there})
    found.faults += [Fault(name, "has no rows yet") for name in missing]
    for chunk, rows in zip(there, _read([chunk.name for chunk in there], files, table), strict=True):
        if isinstance(rows, str):
            found.faults.append(Fault(chunk.name, rows))
            continue
        whats = [*checks.of_file(chunk, rows)]
        if not whats:  # else it lacks columns or metadata that these checks need
            whats += [*faults_of(chunk, rows, metadata_of(rows)["layout"])]
            whats += checks.of_values(chunk, rows)
            found.counts.update(checks.counts_of(rows))
        found.images += rows.num_rows
        found.faults += [Fault(chunk.name, what) for what in whats]


def _read(names: Sequence[str], files: ScoreFiles, table: AuditedTable) -> Iterator[pa.Table | str]:
    """Rows of each chunk, or the fault of its file."""
    done = 0
    try:
        for _, rows in table.read_all(names, files=files):
            yield rows
            done += 1
    except Damaged:
        for name in names[done:]:
            try:
                yield table.read(name, files=files)
            except Damaged as error:
                yield str(error)


def faults_of_metadata(chunk: Chunk, rows: pa.Table, contract: Contract, version: int) -> Iterator[str]:
    """Contradictions between what a chunk's file says of itself and its plan or contract. version: of the table."""
    known = metadata_of(rows)
    if known.get("planned") not in (None, chunk.digest):  # files of older versions do not say it
        yield "its file was made of other sources than are planned; remove it, and score it anew"
    wanted = {"fingerprint_parts": dict(contract.fingerprint_parts), "table_version": version}
    for name, value in wanted.items():
        if known.get(name) != value:
            yield f"its file says of {name}: {known.get(name)}, and not {value}; remove it, and score it anew"
    if lacking := {"layout", "chunk", "fingerprint"} - known.keys():
        yield f"its file does not say its {', '.join(sorted(lacking))}; remove it, and score it anew"


def faults_of(chunk: Chunk, rows: pa.Table, layout: str) -> Iterator[str]:
    """Images that a chunk's rows lack, have twice, or have in another order. layout: as it was when they were read."""
    if chunk.images is not None and rows.num_rows != chunk.images:
        yield f"has {rows.num_rows} rows for {chunk.images} planned images"
    places = [*_faults_of_places(chunk, rows)]
    yield from places
    keys = tuple(rows.column("key").to_pylist())
    if not places and Content(keys, pa.table({}), lambda _: iter(())).layout != layout:
        yield "its keys are not those that it was read with"


def _faults_of_places(chunk: Chunk, rows: pa.Table) -> Iterator[str]:
    """Differences between rows and the spans that were planned."""
    sources, numbers = rows.column("source").to_pylist(), rows.column("row").to_pylist()
    if chunk.kind is Kind.IMAGE:
        differing = [*_differences([span.source for span in chunk.spans], sources)]
        keys = rows.column("key").to_pylist()
        yield from differing or _differences([span.key for span in chunk.spans], keys, "key ")
        return
    if chunk.kind is Kind.SCORES:  # like those of a list, its keys are held against the digest alone
        return
    planned = {span.source for span in chunk.spans}
    is_inside = chunk.kind is Kind.WEBDATASET or any(number is not None for number in numbers)
    if is_inside and (others := [source for source in sources if source not in planned]):
        yield from _named(f"not of {', '.join(sorted(planned))}", others)
    # a tar is checked by its keys (see faults_of), not by offsets of members: a link has that of its target
    if is_inside and chunk.kind is not Kind.WEBDATASET:
        yield from _differences(_planned_rows(chunk, len(numbers)), numbers, "row ")


def _planned_rows(chunk: Chunk, count: int) -> list[int]:
    """Numbers of a table's planned rows. One that was unreadable when it was planned has any number."""
    if chunk.images is None:
        return [*range(count)]
    return [row for span in chunk.spans for row in range(span.begin, span.end)]


def _differences(wanted: Sequence[Any], there: Sequence[Any], prefix: str = "") -> Iterator[str]:
    """Planned images with no row or several, and rows without a planned image."""
    planned, found = Counter(wanted), Counter(there)
    yield from _named("missing", [f"{prefix}{name}" for name in planned - found])
    yield from _named("twice", [f"{prefix}{name}" for name in found - planned if name in planned])
    yield from _named("not planned", [f"{prefix}{name}" for name in found if name not in planned])
    if planned == found and [*wanted] != [*there]:
        yield f"its rows are in another order than {prefix or 'source '}was planned"


def _named(what: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"{what}: {listed(names, NAMES_SHOWN)}"


def _planned_twice(planned: Iterator[Planned]) -> Iterator[Fault]:
    """Spans of one source that overlap."""
    for source, rows in groupby(planned, key=lambda row: row.span.source):
        ordered = sorted(rows, key=lambda row: (row.span.begin, row.span.end))
        for before, after in pairwise(ordered):
            if _overlap(before.span, after.span):
                yield Fault(after.chunk, f"images of {source} are planned here and in {before.chunk}")


def _overlap(before: Span, after: Span) -> bool:
    """Whether the second span begins before the first one ends, or is the first one again."""
    return after.begin < before.end or after.begin == before.begin


def _strangers(ledger: Ledger) -> Iterator[Fault]:
    """Files that are no score files: an engine that reads the folder as it is takes them for some."""
    folder = ledger.folder_uri
    for entry in ledger.storage.walk(folder) if ledger.storage.names(folder) else ():
        name = relative(entry.uri, folder) or entry.uri
        is_score_file = name.endswith(".parquet") and FileName.of(name.removesuffix(".parquet")) is not None
        if not is_score_file and not name.startswith((".", "_")):
            yield Fault(name, "is no score file, but lies among them; remove it")


def _in_two_files(files: ScoreFiles) -> Iterator[Fault]:
    """Chunks in files that do not count for them: an engine that reads the folder as it is sees them twice."""
    doubled: dict[str, list[str]] = {}
    for chunk, lower in files.beaten.items():
        for file in lower:
            doubled.setdefault(file, []).append(chunk)
    for file, chunks in sorted(doubled.items()):
        others = f", as do {len(chunks) - 1} others" if len(chunks) > 1 else ""
        yield Fault(min(chunks), f"also lies in {file}.parquet{others}: compact_scores puts that right")
