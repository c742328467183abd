"""Score tables among the inputs -> files of their selected rows beside the plan, and spans of rows of these.

A reader takes rows from such a file, and images from where the rows say that they lie. So what is planned stays,
whatever becomes of the score table: it may grow, be compacted, or be scored anew.
"""

from __future__ import annotations

import heapq
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.chunks import ReadOptions, Span, Survey
from iqa_core.corpus.originals import encoded_bounds
from iqa_core.corpus.readers.selected import carried_of
from iqa_core.corpus.reading import with_given_types
from iqa_core.corpus.sources import Metadata, Source

ROWS_PER_GROUP = 2048
"""Rows of a row group, or as many as a chunk has, if these are fewer: a reader needs two row groups at most."""

GROUPS_PER_FILE = 64
"""Row groups after which another file is begun, so that its footer, which each reader of it fetches, is some 100 kB."""


class SelectedTable(Protocol):
    """A score table of whose rows those that pass a condition are an input."""

    @property
    def root(self) -> str:
        """What the URIs of its sources begin with: `scores:OUTPUT`."""
        ...

    def sources(self) -> Iterator[Source]:
        """One for each finished chunk with rows that pass, in order; its ETag changes with what is selected."""
        ...

    def rows(self, source: Source) -> pa.Table:
        """The rows of a source: key, locators, sizes, carried columns and scores."""
        ...

    def changed(self, source: Source) -> Sequence[tuple[str, str]]:
        """Originals that are no longer what was scored there, which are not among its rows: URI, and what happened."""
        ...


class SelectedRows:
    """Selected rows of new sources, drafted in files of a temporary folder, which vanishes with this object."""

    def __init__(self, tables: Sequence[SelectedTable]) -> None:
        self._tables = {table.root: table for table in tables}
        self._drafts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows_of_file = 0

    @property
    def roots(self) -> list[str]:
        """What the URIs of the tables' sources begin with."""
        return [*self._tables]

    def sources(self) -> Iterator[Source]:
        """Sources of all tables, sorted by URI."""
        return heapq.merge(*(table.sources() for table in self._tables.values()), key=lambda source: source.uri)

    def changed(self, source: Source) -> Sequence[tuple[str, str]]:
        """Originals of a source that have changed: see `SelectedTable.changed`."""
        return self._table_of(source).changed(source)

    def survey(self, source: Source, options: ReadOptions) -> Survey:
        """Spans of a source, whose rows are added to a file, and its columns."""
        rows = self._table_of(source).rows(source)
        name, begin = self._add(rows, min(ROWS_PER_GROUP, options.chunk_images))
        table = Metadata(name, None, "", "")  # no URI: an output may be moved
        spans = [
            Span(
                source.uri, source.key, source.size, source.etag, begin + first, begin + last, last - first, None, table
            )
            for first, last in _parts(encoded_bounds(rows), options)
        ]
        return with_given_types(source, Survey(tuple(spans), carried_of(rows).schema), options)

    def close(self) -> None:
        """End the last file."""
        self._write()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._rows_of_file = None, 0

    @property
    def files(self) -> Sequence[Path]:
        """Files under names that no other draft has; to be put before the segments that name them."""
        return self._drafts

    def _table_of(self, source: Source) -> SelectedTable:
        return self._tables[source.uri.rpartition("/")[0]]

    def _add(self, rows: pa.Table, rows_per_group: int) -> tuple[str, int]:
        """Name of the file that rows go into, and the number of the first of them there."""
        is_other = self._writer is not None and not self._writer.schema.equals(rows.schema)
        if is_other or self._rows_of_file >= GROUPS_PER_FILE * rows_per_group:
            self.close()
        if self._writer is None:
            self._drafts.append(self._folder / f"rows-{uuid.uuid4().hex}.parquet")
            self._writer = pq.ParquetWriter(self._drafts[-1], rows.schema, compression="zstd", write_page_checksum=True)
        begin = self._rows_of_file
        self._waiting.append(rows)
        self._rows_of_file += rows.num_rows
        if sum(some.num_rows for some in self._waiting) >= rows_per_group:
            self._write(rows_per_group)
        return self._drafts[-1].name, begin

    @cached_property
    def _folder(self) -> Path:
        """The temporary folder; of its files one is open, however many there are."""
        folder = Path(tempfile.mkdtemp(prefix="iqa-rows-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _write(self, rows_per_group: int = ROWS_PER_GROUP) -> None:
        if self._writer is not None and self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), rows_per_group)
        self._waiting = []


def _parts(sizes: Sequence[int], options: ReadOptions) -> Iterator[tuple[int, int]]:
    """Begin and end of runs of rows within the bounds of a chunk. sizes: bytes of each image at most."""
    begin = size = 0
    for row, length in enumerate(sizes):
        if row > begin and (row - begin == options.chunk_images or size + length > options.chunk_bytes):
            yield begin, row
            begin, size = row, 0
        size += length
    yield begin, len(sizes)
