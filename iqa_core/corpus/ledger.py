"""Complete chunks -> Parquet files, each put in place in one step; which files exist is all there is to know of what is
done.

A chunk is committed as a file of its own. Neighbours may be merged into packs later (see packs, compaction): then the
same rows lie in two files for a moment, and every question here is answered as if they lay in one.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.columns import plain
from iqa_core.corpus.packs import ScoreFiles, chunks_of, runs
from iqa_core.corpus.storage import Missing, Storage, join
from iqa_core.corpus.table import TABLE_VERSION
from iqa_core.errors import CallerError

METADATA_KEY = b"iqa"

SAID = 200
"""Characters that are told of what Arrow finds wrong: it lists whole schemas."""

READ_THREADS = 32
"""Score files read at once: each is some 100 kB, so a request's latency is what they cost."""

CHUNKS_AT_ONCE = 512
"""Of packs that are read at once: a pack of 256 chunks is some 30 MB."""

ROW_GROUP_ROWS = 131_072
"""Of a pack: large enough for an engine to scan at full speed."""

ROWS_AT_ONCE = 8192
"""Of a file that is looked at and not kept."""

ATTEMPTS = 5
"""Listings that may be outdated by the time a file is opened, before it is taken to be gone."""


class Damaged(CallerError):
    """A file is not what was committed: it was cut, or something else wrote over it. Only who looks after the output
    can tell whether it may go, so it is named and left."""

    def __init__(self, uri: str, what: object) -> None:
        super().__init__(
            f"{uri}: it is no whole score file ({what}); remove it, and the same command as before scores its images "
            "anew"
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """The folder `<output>/scores`. Any number of writers may commit to it: equal chunks have equal rows."""

    storage: Storage
    output: str
    folder: str = "scores"
    """Another one for chunks of another kind: exports have one per format."""
    schema: pa.Schema | None = None
    """That all its files have, codes as what they stand for; None where that is not known."""
    is_read_whole: bool = False
    """Whether all of a file is looked at, whichever columns are asked for: to vouch for it."""

    def finished(self) -> set[str]:
        """Names of the chunks that are committed."""
        return set(self.files().finished)

    def files(self) -> ScoreFiles:
        """The files that are there.

        A listing that is under way while rows move may miss both the file that goes behind it and the one that took
        its place. A second one finds the latter, as long as no chunk moves twice: within one rearrangement, none does.
        Of what the two find together some may be gone; `read_all` knows how to look again.
        """
        while True:
            before = self._rearrangement()
            names = self._names()
            during = self._rearrangement()
            if before == during and not before.is_under_way:
                return ScoreFiles.of(names)
            again = self._names()
            after = self._rearrangement()
            if after.mark == during.mark and (before.mark == during.mark or not before.is_under_way):
                return ScoreFiles.of({*names, *again})

    def commit(self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any]) -> None:
        """Serialised first, then put in place in one atomic step; a file that is there is replaced whole."""
        self._put(chunk, serialised(rows, metadata))

    def commit_pack(self, name: str, chunks: Sequence[pa.Table]) -> None:
        """Tables as `read_all` gives them, of the chunks that the name says; put in place in one atomic step."""
        parts = [{"chunk": chunk, **self.metadata(rows)} for chunk, rows in zip(chunks_of(name), chunks, strict=True)]
        common = {key: value for key, value in parts[0].items() if all(part.get(key) == value for part in parts)}
        entries = [
            {"rows": rows.num_rows, **{key: value for key, value in part.items() if key not in common}}
            for part, rows in zip(parts, chunks, strict=True)
        ]
        together = pa.concat_tables([rows.replace_schema_metadata(None) for rows in chunks])
        self._put(name, serialised(together, {**common, "chunks": entries}))

    def read(self, chunk: str, columns: list[str] | None = None) -> pa.Table:
        """Rows of a committed chunk in ordinal order: row i is ordinal i. Raises Missing where there are none."""
        [(_, rows)] = self.read_all([chunk], columns)
        return rows

    def read_all(self, chunks: Sequence[str], columns: list[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
        """Committed chunks in this order, as `read` gives each; a pack is read once for all that follow one another.

        It does not matter if files are merged meanwhile. Raises Missing for a chunk that is in none.
        """
        left = runs(chunks, {})
        begin = attempts = 0
        with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="ledger") as pool:
            while some := _at_once(left):
                read = pool.map(lambda one: self._read(one[0], one[1], columns), some)
                for (_, run), tables in zip(some, read, strict=True):
                    if tables is None:  # merged, or taken apart, since it was listed
                        attempts += 1
                        if attempts == ATTEMPTS:
                            raise Missing(f"{self._uri(run[0])}: there is no such chunk")
                        left = runs(chunks[begin:], self.files().packed)
                        break
                    yield from zip(run, tables, strict=True)
                    begin += len(run)
                    attempts = 0

    def check_footer(self, file: str, content: bytes | Path) -> None:
        """Raises CallerError where its beginning and end show that it is damaged, or of a later version.

        What was merged since it was listed is no fault. content: the file's, or its place on this machine.
        """
        with self._named(file), suppress(FileNotFoundError):
            self._opened(file, io.BytesIO(content) if isinstance(content, bytes) else content)

    def metadata(self, rows: pa.Table | pa.Schema) -> dict[str, Any]:
        """What was committed beside the rows."""
        schema = rows if isinstance(rows, pa.Schema) else rows.schema
        found = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
        if not isinstance(found, dict):
            raise ValueError("its metadata is no JSON object")
        return found

    def remove(self, chunks: Collection[str]) -> None:
        """Take back chunks that the plan no longer has."""
        self.take_apart(chunks)
        for chunk in chunks:
            self.storage.delete(self._uri(chunk))

    def take_apart(self, chunks: Collection[str]) -> None:
        """Give each of these chunks a file of its own, and their neighbours in packs too: before they change."""
        packs = [pack for pack in self.files().packs if not set(chunks).isdisjoint(chunks_of(pack))]
        if not packs:
            return
        with self.rearranging():
            for pack in packs:
                names = chunks_of(pack)
                tables = self._read(pack, names, None)
                for chunk, rows in zip(names, tables or [], strict=tables is not None):
                    # never over a file that is there: it is as new or newer
                    self._create(chunk, serialised(rows, self.metadata(rows)))
                self.discard(pack)

    def discard(self, file: str) -> None:
        """Delete a file by its name without the ending: all that it holds lies elsewhere as well."""
        self.storage.delete(self._uri(file))

    def version(self, chunk: str) -> str | None:
        """Of a chunk's own file: another one when it is replaced; None where it has none."""
        entry = self.storage.stat(self._uri(chunk))
        return None if entry is None else f"{entry.size} {entry.etag}"

    @contextmanager
    def rearranging(self) -> Iterator[None]:
        """Inside: rows move from file to file, and who lists meanwhile is warned (also if this process is killed)."""
        mark = uuid.uuid4().hex
        self.storage.put(self._marked, f"begun {mark}".encode(), scratch=self._scratch)
        yield
        self.storage.put(self._marked, f"ended {mark}".encode(), scratch=self._scratch)

    def _read(self, file: str, chunks: Sequence[str], columns: list[str] | None) -> list[pa.Table] | None:
        """These chunks of one file; None if the file is not there. Raises Damaged."""
        try:
            data = self.storage.read(self._uri(file))
        except Missing:
            return None
        with self._named(file):
            rows = self._parsed(file, data, columns)
            parts = chunks_of(file)
            if len(parts) == 1:
                return [rows]
            found = dict(zip(parts, _taken_apart(rows, self.metadata(rows), len(parts)), strict=True))
        return [found[chunk] for chunk in chunks]

    @contextmanager
    def _named(self, file: str) -> Iterator[None]:
        """Inside: a file's content is looked at. Raises Damaged for whatever that does."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
            raise Damaged(self._uri(file), " ".join(str(error).split())[:SAID] or type(error).__name__) from error

    def _opened(self, name: str, content: Any) -> pq.ParquetFile:
        """A file by its footer, with checksums. Raises CallerError for one of a later version."""
        file = pq.ParquetFile(content, page_checksum_verification=True)
        version = self.metadata(file.schema_arrow).get("table_version", TABLE_VERSION)
        if version not in range(TABLE_VERSION + 1):
            raise CallerError(
                f"{self._uri(name)}: it is of table version {version}, up to {TABLE_VERSION} is known; go on with the "
                "version of the program that wrote it"
            )
        if self.schema is not None:
            _check_columns(plain(file.schema_arrow), self.schema)
        return file

    def _parsed(self, name: str, data: bytes, columns: list[str] | None) -> pa.Table:
        """Raises what Arrow and Python raise of anything but a score file."""
        file = self._opened(name, io.BytesIO(data))
        if self.is_read_whole:
            for _ in file.iter_batches(ROWS_AT_ONCE):
                pass
        rows = file.read(columns)
        if self.metadata(rows) != self.metadata(file.schema_arrow):
            raise ValueError("its two copies of its metadata differ")  # Arrow takes now one and now the other
        return rows if columns is None else rows.select(columns)  # a prefix takes more: `a` also `a.b`

    def _names(self) -> list[str]:
        return self.storage.names(join(self.output, self.folder))

    def _rearrangement(self) -> _Rearrangement:
        """The latest."""
        try:
            found = self.storage.read(self._marked)
        except Missing:
            return _Rearrangement("", False)
        state, _, mark = found.decode("latin-1").partition(" ")
        return _Rearrangement(mark, state != "ended")  # whatever else stands there: to look twice does no harm

    def _put(self, file: str, data: bytes) -> None:
        self.storage.put(self._uri(file), data, scratch=self._scratch)

    def _create(self, file: str, data: bytes) -> bool:
        return self.storage.create(self._uri(file), data, scratch=self._scratch)

    def _uri(self, file: str) -> str:
        return join(join(self.output, self.folder), f"{file}.parquet")

    @property
    def _marked(self) -> str:
        return join(self.output, f"{self.folder}.rearranged")

    @property
    def _scratch(self) -> str:
        return join(self.output, ".tmp")


@dataclass(frozen=True, slots=True)
class _Rearrangement:
    """Rows that move from file to file: by a compaction, or before chunks change."""

    mark: str
    is_under_way: bool
    """Or was broken off."""


def _at_once(left: Iterator[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """The next files to be read side by side."""
    some: list[tuple[str, list[str]]] = []
    while len(some) < READ_THREADS and sum(len(run) for _, run in some) < CHUNKS_AT_ONCE:
        if (run := next(left, None)) is None:
            break
        some.append(run)
    return some


def described(rows: pa.Table, metadata: Mapping[str, Any]) -> pa.Table:
    """The rows with their metadata in the schema, where `Ledger.metadata` finds it."""
    return rows.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def serialised(rows: pa.Table, metadata: Mapping[str, Any]) -> bytes:
    """A score file; with checksums, since one bit may turn a score into another that is as good as any."""
    buffer = io.BytesIO()
    pq.write_table(
        described(rows, metadata),
        buffer,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def _check_columns(found: pa.Schema, planned: pa.Schema) -> None:
    """Raises ValueError that names the first that differs."""
    if absent := [name for name in planned.names if name not in found.names]:
        raise ValueError(f"it has no column {absent[0]}")
    if strange := [name for name in found.names if name not in planned.names]:
        raise ValueError(f"it has a column {strange[0]}, which this table does not have")
    for kind in planned:
        if found.field(kind.name).type != kind.type:
            raise ValueError(f"its column {kind.name} is {found.field(kind.name).type}, not {kind.type}")


def _taken_apart(rows: pa.Table, common: dict[str, Any], count: int) -> Iterator[pa.Table]:
    """Rows of each chunk of a pack. Raises what Python raises where the metadata does not say how."""
    entries = common.pop("chunks")
    if len(entries) != count or sum(entry["rows"] for entry in entries) != rows.num_rows:
        raise ValueError(f"its {rows.num_rows} rows are not those of {count} chunks")
    begin = 0
    for entry in entries:
        own = {**common, **entry}
        length = own.pop("rows")
        yield described(rows.slice(begin, length), own)
        begin += length
