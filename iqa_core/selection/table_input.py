"""`scores:OUTPUT?where=CONDITION` -> the rows of that score table that pass, chunk by chunk, as an input of a plan.

Rejected rows never pass: what they name could not be scored. Rows whose originals have changed since are left out, and
said.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from iqa_core.addresses import SCORES, parse_scores
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.fetching import is_inline
from iqa_core.corpus.originals import LOCATOR, encoded_bounds
from iqa_core.corpus.plan.changes import replaced
from iqa_core.corpus.plan.plan import Plan
from iqa_core.corpus.sources import Kind, Source
from iqa_core.errors import CallerError, RunError
from iqa_core.selection.carried import CarriedColumns
from iqa_core.selection.condition import Condition, check_condition
from iqa_core.selection.rows import PASSES, POSITION, ROW_BITS, Combined, Given, combined, engine_faults, make_view
from iqa_core.storage.failures import FetchFailed, Forbidden
from iqa_core.storage.storage import Storage
from iqa_core.tables.duckdb_engine import engine
from iqa_core.tables.packs import chunk_names_in
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.columns import REWARD, SCORED
from iqa_core.tables.scores.score_table import ScoreTable, open_score_table

LOOKUP_THREADS = 16
"""Originals that are looked for at once: a request each."""

IDENTITY = ("key", *LOCATOR)
"""Columns by which a row is the same row as before."""

Place = tuple[int | None, str]
"""Size and ETag of a file."""


@dataclass(frozen=True, slots=True)
class _Selected:
    """What is selected of a chunk."""

    source: Source
    positions_N: NDArray[np.int64]
    """As the engine has them: file and row."""
    changed: tuple[tuple[str, str], ...]
    """Originals that are not what they were, and what happened; their rows are not in `positions_N`."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class TableInput:
    """A score table, and the condition on the rows that are an input; see `SelectedTable`, which it implements."""

    table: ScoreTable
    condition: Condition | None
    looks_for_originals: bool
    """False: rows stay whatever became of what they name, and nothing is said."""
    _found: dict[str, _Selected] | None = field(default=None, init=False)
    """URI of a source -> what is selected of it; once the engine was asked."""
    _rows: CarriedColumns | None = field(default=None, init=False)

    @property
    def root(self) -> str:
        """What the URIs of its sources begin with."""
        return f"{SCORES}{self.table.uri}"

    @property
    def terms(self) -> dict[str, str]:
        """What a plan's contract says of it."""
        where = {} if self.condition is None else {"where": self.condition.text}
        return {"fingerprint": self.table.contract.fingerprint, **where}

    def describe(self) -> str:
        """The table and the condition, and how far it is scored, for people."""
        where = "" if self.condition is None else f" where {self.condition.text}"
        scored, planned = len(self.table.chunks), self.table.planned
        return f"{self.table.uri}{where}" + (
            "" if scored == planned else f"; {scored:,} of its {planned:,} chunks are scored"
        )

    @property
    def schema(self) -> pa.Schema:
        """Columns of its rows: where an image lies, what was carried along, its scores, spreads and reward."""
        contract = self.table.contract
        spreads = [f"{name}_std" for name in contract.dimensions]
        names = [*IDENTITY, "width", "height", *contract.carried.names, *contract.dimensions, *spreads, REWARD]
        return pa.schema([self.table.schema.field(name) for name in names])

    def sources(self) -> Iterator[Source]:
        """One for each chunk with rows that pass. Raises CallerError for a table that cannot be read."""
        return (found.source for found in self._selected().values())

    def rows(self, source: Source) -> pa.Table:
        """The rows of a source."""
        found = self._selected()[source.uri]
        assert self._rows is not None
        return self._rows.at(found.positions_N)

    def changed(self, source: Source) -> Sequence[tuple[str, str]]:
        """Originals of a source's rows that have changed or vanished."""
        return self._selected()[source.uri].changed

    def _selected(self) -> dict[str, _Selected]:
        if self._found is None:
            scratch = Path(tempfile.mkdtemp(prefix="iqa-selected-"))
            weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
            files = self.table.local_files(scratch)
            self._rows = CarriedColumns([files], self.schema)
            by_chunk = dict(_by_chunk(files, self._positions(files)))
            with ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="originals") as pool:
                self._found = {found.source.uri: found for found in self._held(files, by_chunk, pool)}
        return self._found

    def _positions(self, files: Sequence[Path]) -> NDArray[np.int64]:
        """Positions of the rows that pass, ascending."""
        rows, looked_at = self._combined, () if self.condition is None else self.condition.columns
        query = f"SELECT {POSITION} FROM scores WHERE {PASSES} AND status = '{SCORED}' ORDER BY {POSITION}"
        try:
            with engine(sorted({file.parent for file in files})) as connection, engine_faults(rows):
                make_view(connection, rows, [files], self.condition, None, looked_at)
                found: NDArray[np.int64] = connection.execute(query).fetchnumpy()[POSITION].astype(np.int64)
        except RunError as error:
            raise CallerError(f"--input {self.root}: {error}") from error
        return found

    @property
    def _combined(self) -> Combined:
        return combined([Given("", self.table)], None, None)

    def _held(
        self, files: Sequence[Path], by_chunk: Mapping[str, NDArray[np.int64]], pool: ThreadPoolExecutor
    ) -> Iterator[_Selected]:
        """What is selected of each chunk, after its originals were looked for."""
        names = dict.fromkeys((*IDENTITY, "width", "height"))
        places = CarriedColumns([files], pa.schema([self.table.schema.field(name) for name in names]))
        fates: dict[str, str | None] = {}
        for chunk in Plan(self.table.storage, self.table.uri).chunks():
            positions = by_chunk.get(chunk.name)
            if positions is None:
                continue
            rows = places.at(positions)
            if self.looks_for_originals:
                fates = self._fates(chunk, rows.column("source").unique().to_pylist(), fates, pool)
            gone = {uri: what for uri, what in fates.items() if what is not None}
            stays = np.array([source not in gone for source in rows.column("source").to_pylist()], bool)
            rows = rows.filter(pa.array(stays))
            source = Source(
                f"{self.root}/{chunk.name}", Kind.SCORES, chunk.name, sum(encoded_bounds(rows)), _etag(rows)
            )
            yield _Selected(source, positions[stays], tuple(gone.items()))

    def _fates(
        self, chunk: Chunk, uris: Sequence[str], known: Mapping[str, str | None], pool: ThreadPoolExecutor
    ) -> dict[str, str | None]:
        """What became of each original, None where nothing did. known: of those of the chunk before, often one tar."""
        planned: dict[str, Place] = {span.source: (span.size, span.etag) for span in chunk.spans}
        new = [uri for uri in uris if uri not in known and not is_inline(uri)]
        found = dict(zip(new, pool.map(lambda uri: self._fate(uri, planned.get(uri)), new), strict=True))
        return {uri: known.get(uri) or found.get(uri) for uri in uris}

    def _fate(self, uri: str, planned: Place | None) -> str | None:
        """What became of an original. planned: as it was when it was scored; None where only its URI was known."""
        if planned is None:
            with suppress(Forbidden, FetchFailed, CallerError):  # a server that answers no HEAD: reading it will tell
                return None if self.table.storage.stat(uri) else "vanished"
            return None
        entry = self.table.storage.stat(uri)
        if entry is None or entry.size is None:
            return "vanished"
        return None if (entry.size, entry.etag) == planned else replaced(planned[0], entry.size)


def open_table_input(storage: Storage, given: str, looks_for_originals: bool) -> TableInput | None:
    """The score table that an `--input` names; None where it names none.

    Raises CallerError where there is no score table, none of it is scored, or the condition does not fit its columns.
    """
    parsed = parse_table_input(given)
    if parsed is None:
        return None
    place, where = parsed
    table = open_score_table(storage, place, f"--input {SCORES}")
    found = TableInput(table, None, looks_for_originals)
    if where:
        rows = found._combined
        try:
            found.condition = check_condition(where, rows.schema, rows.engine_name)
        except CallerError as error:
            raise CallerError(f"--input {SCORES}{place}: {str(error).removeprefix('--')}") from error
    return found


def parse_table_input(given: str) -> tuple[str, str] | None:
    """Place and condition of an `--input`, as `parse_scores` says. Raises CallerError where it is malformed."""
    try:
        return parse_scores(given)
    except ValueError as error:
        raise CallerError(f"--input {given}: {error}; give it as scores:OUTPUT?where=CONDITION") from error


def _by_chunk(files: Sequence[Path], positions_N: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each chunk with rows among these positions, and those of its rows, in order."""
    for index, file in enumerate(files):
        begin = index << ROW_BITS
        for chunk, rows in _chunks_of(file):
            first, last = np.searchsorted(positions_N, [begin, begin + rows])
            if last > first:
                yield chunk, positions_N[first:last]
            begin += rows


def _chunks_of(file: Path) -> Iterator[tuple[str, int]]:
    """Each chunk of a score file, and the number of its rows."""
    footer = pq.read_metadata(file)
    chunks = chunk_names_in(file.stem)
    if len(chunks) == 1:
        yield chunks[0], footer.num_rows
        return
    entries = metadata_of(footer.schema.to_arrow_schema())["chunks"]
    yield from zip(chunks, (entry["rows"] for entry in entries), strict=True)


def _etag(rows: pa.Table) -> str:
    """Digest of what says which images these are; scores that were made anew may differ in their last digits."""
    columns = rows.select(IDENTITY).to_pydict()
    return hashlib.sha256(repr(columns).encode("utf-8", "surrogatepass")).hexdigest()[:32]
