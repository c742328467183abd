"""Complete chunks -> Parquet files, each put in place in one step; the files that exist are the state of a run.

A chunk is committed as a file of its own. One that is tried again gets another file beside it, and consecutive chunks
may be merged into packs (see packs, compaction). Then the same rows lie in two files for a moment, or for longer where
a run or a compaction was stopped; every question here is answered as if they lay in one.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.chunks import segment_and_index
from iqa_core.errors import CallerError
from iqa_core.storage.failures import Missing
from iqa_core.storage.range_file import RangeFile
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join, scratch_of
from iqa_core.tables.packs import Generations, ScoreFiles, again_name, by_file, chunk_names_in, pack_name, parsed
from iqa_core.tables.score_file import (
    Damaged,
    LaterVersion,
    check_version,
    described,
    deserialised,
    metadata_of,
    seal_of,
    serialised,
)

READ_THREADS = 32
"""Score files read at once: each is some 100 kB, so a request's latency is what they cost."""

CHUNKS_AT_ONCE = 512
"""Chunks read at once, however few files they lie in: a pack of 256 chunks is some 30 MB."""

LISTINGS = 5
"""Listings before a file is taken to be gone: each may be outdated by the time the file is opened."""


UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, LookupError, AttributeError)
"""What Arrow and Python raise for a file that is no score file."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The folder `<output>/scores`. Any number of writers may commit to it: equal chunks have equal rows."""

    storage: Storage
    output: str
    folder: str = "scores"
    """Folder in the output; exports have one per format."""
    fingerprint: str | None = None
    """Fingerprint that all chunks must have been scored under, where they say one; None where any may lie there."""
    schema: pa.Schema | None = None
    """Columns of all its files, dictionary-encoded ones as their value type; None where they are not known."""
    table_version: int | None = None
    """The latest version of such a table that this program knows; None where files say none."""
    is_read_whole: bool = False
    """Whether all of a file is read, whichever columns are asked for, to vouch for it."""

    def finished(self) -> set[str]:
        """Names of the chunks that are committed."""
        return set(self.files().finished)

    def files(self) -> ScoreFiles:
        """The files that are there. Raises Damaged where a pack's footer, which tells if it counts, cannot be read.

        A LIST during a compaction can miss both the deleted file and its pack. So whoever moves rows changes a mark
        between the put and the delete; where the mark has changed, another listing is added. Some files of the earlier
        one may be gone by then: `read_all` lists again.
        """
        names: set[str] = set()
        for _ in range(LISTINGS):
            before = self._mark()
            names.update(self.storage.names(self.folder_uri))
            if self._mark() == before:
                break
        return ScoreFiles.of(names, self._generations)

    def commit(self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any]) -> None:
        """Put a chunk's file in place in one atomic step. Another driver that commits the chunk puts equal rows."""
        data, _ = serialised(rows, metadata)
        self._put(chunk, data)

    def commit_again(
        self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any], generation: int, files: ScoreFiles
    ) -> None:
        """Put the file of a chunk that was tried again, then delete older files that hold this chunk alone.

        files: a listing from before, when its rows were of a lower generation.
        """
        data, seal = serialised(rows, {**metadata, "generation": generation})
        file = again_name(chunk, generation, seal)
        self._put(file, data)
        self.discard(old for old in files.places(chunk) if chunk_names_in(old) == [chunk] and old != file)

    def commit_pack(self, chunks: Sequence[str], tables: Sequence[pa.Table], moves: int) -> str:
        """Name of the new pack of these consecutive chunks.

        tables: as `read_all` gives them; moves: how often their rows have been moved, this time included.
        """
        parts = [{"chunk": chunk, **metadata_of(rows)} for chunk, rows in zip(chunks, tables, strict=True)]
        common = {key: value for key, value in parts[0].items() if all(part.get(key) == value for part in parts)}
        entries = [
            {"rows": rows.num_rows, **{key: value for key, value in part.items() if key not in common}}
            for part, rows in zip(parts, tables, strict=True)
        ]
        together = pa.concat_tables([rows.replace_schema_metadata(None) for rows in tables])
        data, seal = serialised(together, {**common, "chunks": entries})
        name = pack_name(chunks, moves, seal)
        self._put(name, data)
        return name

    def read(self, chunk: str, columns: list[str] | None = None, files: ScoreFiles | None = None) -> pa.Table:
        """Rows of a committed chunk in ordinal order: row i is ordinal i. Raises Missing where there are none."""
        [(_, rows)] = self.read_all([chunk], columns, files)
        return rows

    def read_all(
        self, chunks: Sequence[str], columns: list[str] | None = None, files: ScoreFiles | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Committed chunks in this order, as `read` gives each; a pack is read once for chunks that follow one another.

        files: a recent listing, made if not given; chunks may have moved since. Raises Missing for a chunk that is in
        no file, Damaged for one whose file is not what was committed.
        """
        left = by_file(chunks, (files or self.files()).packed)
        begin = attempts = 0
        with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="ledger") as pool:
            while some := _at_once(left):
                read = pool.map(lambda one: self.read_file(one[0], one[1], columns), some)
                for (_, run), tables in zip(some, read, strict=True):
                    if tables is None:  # moved since it was listed
                        attempts += 1
                        if attempts == LISTINGS:
                            raise Missing(f"{self.uri(run[0])}: there is no such chunk")
                        left = by_file(chunks[begin:], self.files().packed)
                        break
                    yield from zip(run, tables, strict=True)
                    begin += len(run)
                    attempts = 0

    def read_file(self, file: str, chunks: Sequence[str], columns: list[str] | None = None) -> list[pa.Table] | None:
        """These chunks of one file; None if the file is not there. Raises Damaged."""
        try:
            data = self.storage.read(self.uri(file))
        except Missing:
            return None
        try:
            _check_seal(file, data)
            rows = self._deserialised(data, columns)
            entries = self._entries(file, metadata_of(rows))
            if not parsed(file).is_pack:
                return [rows]
            tables = dict(zip(chunk_names_in(file), _parts(rows, entries), strict=True))
        except UNREADABLE as error:
            raise self._fault(file, error) from error
        return [tables[chunk] for chunk in chunks]

    def read_bytes(self, file: str) -> bytes:
        """A whole score file. Raises Missing, and Damaged where it is not this file of this output."""
        data = self.storage.read(self.uri(file))
        try:
            _check_seal(file, data)
            self._entries(file, metadata_of(self._deserialised(data, [])))
        except UNREADABLE as error:
            raise self._fault(file, error) from error
        return data

    def check_footer(self, file: str) -> None:
        """Read a file's footer alone. Raises Missing, and Damaged where it is not that of this file and output."""
        self._footer(file)

    def settled(self, retired: Collection[str]) -> ScoreFiles:
        """The files that are there, after retired chunks and superfluous files were deleted.

        A run or a compaction that was stopped may have left some of both. Raises Damaged where the file that counts in
        the place of a superfluous one cannot be read.
        """
        files = self.files()
        if not files.finished.isdisjoint(retired):
            self.remove(retired)
            files = self.files()
        if superfluous := files.superfluous:
            above = {files.place(chunk) for file in superfluous for chunk in chunk_names_in(file)}
            for file in sorted(above):
                self.read_file(file, chunk_names_in(file), [])
            self.discard(superfluous)
            files = ScoreFiles.of(
                (f"{file}.parquet" for file in files.files.difference(superfluous)), self._generations
            )
        return files

    def remove(self, chunks: Collection[str]) -> None:
        """Delete the rows of these chunks; the other chunks of their packs go into new packs."""
        gone = set(chunks)
        for _ in range(LISTINGS):
            files = self.files()
            holding = {file for chunk in gone for file in files.places(chunk)}
            if not holding:
                return
            for pack in holding:
                kept = (c for c in chunk_names_in(pack) if c not in gone and files.place(c) == pack)
                self._recut(pack, [list(run) for run in consecutive(kept)])
            self.discard(holding)

    def take_apart(self, chunks: Collection[str]) -> ScoreFiles:
        """The files after each of these chunks was given a file that holds nothing else, before its rows change."""
        alone = set(chunks)
        for _ in range(LISTINGS):
            files = self.files()
            packs = {file for file in map(files.place, alone) if len(chunk_names_in(file)) > 1}
            if not packs:
                break
            for pack in packs:
                counting = [chunk for chunk in chunk_names_in(pack) if files.place(chunk) == pack]
                kept = consecutive(chunk for chunk in counting if chunk not in alone)
                self._recut(pack, [*kept, *([chunk] for chunk in counting if chunk in alone)])
            self.discard(packs)
        return files

    def discard(self, files: Iterable[str]) -> None:
        """Delete files, by names without the ending; all their rows must lie in files of a higher rank."""
        if there := list(files):
            # a driver that lists meanwhile has seen the files that take their place, or sees the changed mark
            self.storage.put(self._marked, uuid.uuid4().hex.encode(), scratch=scratch_of(self.output))
            with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="discard") as pool:
                list(pool.map(self.storage.delete, map(self.uri, there)))

    @property
    def folder_uri(self) -> str:
        """URI of the folder of files."""
        return join(self.output, self.folder)

    def uri(self, file: str) -> str:
        """URI of a file by its name without the ending."""
        return join(self.folder_uri, f"{file}.parquet")

    def _recut(self, pack: str, groups: Sequence[Sequence[str]]) -> None:
        """Put each group of a pack's chunks into a new pack; the old one stays. Nothing happens where it has gone."""
        wanted = [chunk for group in groups for chunk in group]
        if not wanted or (tables := self.read_file(pack, wanted)) is None:
            return
        by_name = dict(zip(wanted, tables, strict=True))
        moves = parsed(pack).number + 1
        for group in groups:
            self.commit_pack(group, [by_name[chunk] for chunk in group], moves)

    def _deserialised(self, data: bytes, columns: list[str] | None) -> pa.Table:
        return deserialised(data, columns, self.schema, table_version=self.table_version, is_whole=self.is_read_whole)

    def _entries(self, file: str, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Metadata of each chunk in a file. Raises ValueError where they contradict its name or output."""
        common = dict(metadata)
        name, found = parsed(file), []
        parts = common.pop("chunks", None) if name.is_pack else [{}]
        if not isinstance(parts, list) or len(parts) != len(name.chunks):
            raise ValueError("it does not say what it holds")
        check_version(common, self.table_version)
        for chunk, part in zip(name.chunks, parts, strict=True):
            entry = {**common, **part}
            if entry.get("chunk", chunk) != chunk:
                raise ValueError(f"it holds chunk {entry['chunk']} in the place of {chunk}")
            if not name.is_pack and entry.get("generation", 0) != name.number:
                raise ValueError(f"it holds generation {entry.get('generation', 0)} of its chunk")
            scored_by = entry.get("fingerprint", self.fingerprint)
            if self.fingerprint is not None and scored_by != self.fingerprint:
                raise ValueError(f"it was scored under fingerprint {scored_by}, not {self.fingerprint}")
            found.append(entry)
        return found

    def _generations(self, packs: Sequence[str]) -> Generations:
        """Generations of the chunks in each pack; empty for a pack that has gone. Raises Damaged."""
        with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="footers") as pool:
            return dict(zip(packs, pool.map(self._generations_in, packs), strict=True))

    def _generations_in(self, pack: str) -> Mapping[str, int]:
        with suppress(Missing):
            return {
                chunk: entry.get("generation", 0)
                for chunk, entry in zip(chunk_names_in(pack), self._footer(pack), strict=True)
            }
        return {}

    def _footer(self, file: str) -> list[dict[str, Any]]:
        """Metadata of each chunk, from the file's footer. Raises Missing and Damaged."""
        entry = self.storage.stat(self.uri(file))
        if entry is None or entry.size is None:
            raise Missing(f"{self.uri(file)}: there is no such file")
        try:
            schema = pq.read_schema(RangeFile(self.storage, self.uri(file), entry.size))
            return self._entries(file, metadata_of(schema))
        except UNREADABLE as error:
            raise self._fault(file, error) from error

    def _fault(self, file: str, error: Exception) -> CallerError:
        """The error for a file that cannot be read."""
        if isinstance(error, LaterVersion):
            return CallerError(f"{self.uri(file)}: {error}; go on with the version of the program that wrote it")
        return Damaged(self.uri(file), error)

    def _mark(self) -> bytes:
        """Mark of the latest move of rows; empty before the first."""
        try:
            return self.storage.read(self._marked)
        except Missing:
            return b""

    def _put(self, file: str, data: bytes) -> None:
        self.storage.put(self.uri(file), data, scratch=scratch_of(self.output))

    @property
    def _marked(self) -> str:
        return join(self.output, f"{self.folder}.rearranged")


def consecutive(chunks: Iterable[str]) -> Iterator[list[str]]:
    """Runs of consecutive chunks: cut where the next one is of another segment, or a number is missing."""
    indexed = ((segment_and_index(chunk), i, chunk) for i, chunk in enumerate(chunks))
    for _, run in groupby(indexed, key=lambda one: (one[0][0], one[0][1] - one[1])):
        yield [chunk for _, _, chunk in run]


def _parts(rows: pa.Table, entries: Sequence[Mapping[str, Any]]) -> Iterator[pa.Table]:
    """Rows of each chunk of a pack, in order. Raises ValueError where the pack's metadata count other rows."""
    # Arrow does not keep the number of rows of a table without columns
    if rows.num_columns and sum(entry.get("rows", 0) for entry in entries) != rows.num_rows:
        raise ValueError(f"it has {rows.num_rows} rows, and says that it has others")
    begin = 0
    for entry in entries:
        own = dict(entry)
        count = own.pop("rows", 0)
        yield described(rows.slice(begin, count), own)
        begin += count


def _check_seal(file: str, data: bytes) -> None:
    """Raises ValueError where a file is not as it was written, or has another file's name."""
    seal, named = seal_of(data), parsed(file).seal
    if named and (seal is None or not seal.startswith(named)):
        raise ValueError("it is another file than its name says")


def _at_once(left: Iterator[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """The next files to be read in parallel, each with its chunks."""
    some: list[tuple[str, list[str]]] = []
    while len(some) < READ_THREADS and sum(len(run) for _, run in some) < CHUNKS_AT_ONCE:
        if (run := next(left, None)) is None:
            break
        some.append(run)
    return some
