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
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.packs import ScoreFiles, chunks_of, runs
from iqa_core.corpus.storage import FetchFailed, Missing, Storage, join

METADATA_KEY = b"iqa"

READ_THREADS = 32
"""Score files read at once: each is some 100 kB, so a request's latency is what they cost."""

CHUNKS_AT_ONCE = 512
"""Of packs that are read at once: a pack of 256 chunks is some 30 MB."""

ROW_GROUP_ROWS = 131_072
"""Of a pack: large enough for an engine to scan at full speed."""

ATTEMPTS = 5
"""Listings that may be outdated by the time a file is opened, before it is taken to be gone."""


class Damaged(FetchFailed):
    """A score file is not what was committed: it was cut, or something else wrote over it."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The folder `<output>/scores`. Any number of writers may commit to it: equal chunks have equal rows."""

    storage: Storage
    output: str
    folder: str = "scores"
    """Another one for chunks of another kind: exports have one per format."""

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

    def metadata(self, rows: pa.Table) -> dict[str, Any]:
        """What was committed beside the rows."""
        found: dict[str, Any] = json.loads((rows.schema.metadata or {}).get(METADATA_KEY, b"{}"))
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
            rows = pq.read_table(io.BytesIO(self.storage.read(self._uri(file))), columns=columns)
        except Missing:
            return None
        except (pa.ArrowException, OSError) as error:
            raise Damaged(
                f"{self._uri(file)}: it is no whole score file ({error}); remove it, and the run that made it goes on"
            ) from error
        if [file] == list(chunks):
            return [rows]
        common = self.metadata(rows)
        begin = 0
        found: dict[str, pa.Table] = {}
        for chunk, entry in zip(chunks_of(file), common.pop("chunks"), strict=True):
            own = {**common, **entry}
            count = own.pop("rows")
            found[chunk] = described(rows.slice(begin, count), own)
            begin += count
        return [found[chunk] for chunk in chunks]

    def _names(self) -> list[str]:
        return self.storage.names(join(self.output, self.folder))

    def _rearrangement(self) -> _Rearrangement:
        """The latest."""
        try:
            state, mark = self.storage.read(self._marked).decode().split()
        except Missing:
            return _Rearrangement("", False)
        return _Rearrangement(mark, state == "begun")

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
    """A score file."""
    buffer = io.BytesIO()
    pq.write_table(described(rows, metadata), buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    return buffer.getvalue()
