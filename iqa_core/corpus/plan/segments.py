"""Chunks <-> segment files of a plan: Parquet, one row per span, in order.

A plan may be larger than memory. So new chunks are drafted in temporary files until all of them are known, and planned
ones are read a few thousand rows at a time.
"""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.chunks import Span
from iqa_core.corpus.sources import Kind
from iqa_core.errors import CallerError

RETIRED_KEY = b"retired"
PART_KEY = b"part"
"""Footer key of a segment that is one of several of its proposal: its index from 0, and whether it is the last."""

SEGMENT_SCHEMA = pa.schema(
    [
        ("chunk", pa.int32()),
        ("kind", pa.string()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("begin", pa.int64()),
        ("end", pa.int64()),
        ("images", pa.int64()),
        ("occurrences", pa.list_(pa.int32())),
        (
            "metadata",
            pa.struct([("uri", pa.string()), ("size", pa.int64()), ("etag", pa.string()), ("column", pa.string())]),
        ),
    ]
)

FIRST_COLUMNS = 9
"""Columns that every plan has; plans of reading 1 have no others."""

NEVER_NULL = ("chunk", "kind", "source", "key", "etag", "begin", "end")

SEGMENT_ROWS = 1_000_000
"""Most spans in one segment; the rest of a source may exceed it."""

ROW_GROUP_ROWS = 65_536
ROWS_PER_READ = 8192

NewChunk = tuple[Kind, tuple[Span, ...]]


class Draft:
    """New chunks, written as segment files into unnamed temporary files, which vanish with this object or process.

    Its length is the number of chunks; it can be iterated once it is closed.
    """

    def __init__(self, retired: Iterable[str] = ()) -> None:
        """retired: names of chunks that this draft replaces; its first segment names them."""
        self.last_source: str | None = None
        self._retired = sorted(retired)
        self._files: list[IO[bytes]] = []
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._num_chunks = self._chunks_of_file = self._rows_of_file = 0
        weakref.finalize(self, _close, self._files)

    @classmethod
    def of(cls, chunks: Iterable[NewChunk], retired: Iterable[str] = ()) -> Draft:
        """A closed draft of these chunks."""
        draft = cls(retired)
        for kind, spans in chunks:
            draft.add(kind, spans)
        draft.close()
        return draft

    def add(self, kind: Kind, spans: Sequence[Span]) -> None:
        """Append a chunk. A source is never divided between two segments."""
        if self._rows_of_file >= SEGMENT_ROWS and spans[0].source != self.last_source:
            self._end_file(is_last=False)
        for span in spans:
            values = {name: getattr(span, name) for name in SEGMENT_SCHEMA.names[2:]}
            values["metadata"] = None if span.metadata is None else asdict(span.metadata)
            self._rows.append({"chunk": self._chunks_of_file, "kind": str(kind), **values})
        if len(self._rows) >= ROW_GROUP_ROWS:
            self._write_rows()
        self._num_chunks += 1
        self._chunks_of_file += 1
        self._rows_of_file += len(spans)
        self.last_source = spans[-1].source

    def close(self) -> None:
        """End the draft. One that only retires chunks is a single segment without rows."""
        if self._rows_of_file or (self._retired and not self._files):
            self._end_file(is_last=True)

    def segments(self) -> Iterator[bytes]:
        """Contents of the segment files, in order."""
        for file in self._files:
            file.seek(0)
            yield file.read()

    def __len__(self) -> int:
        return self._num_chunks

    def __iter__(self) -> Iterator[NewChunk]:
        for file in self._files:
            for _, kind, spans in spans_by_chunk(pq.ParquetFile(file)):
                yield kind, spans

    def _write_rows(self) -> None:
        if self._writer is None:
            self._files.append(tempfile.TemporaryFile())  # noqa: SIM115  (closed with this object)
            retired = self._retired if len(self._files) == 1 else []
            schema = SEGMENT_SCHEMA.with_metadata({RETIRED_KEY: json.dumps(retired)})
            self._writer = pq.ParquetWriter(self._files[-1], schema, compression="zstd", write_page_checksum=True)
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._writer.schema))
        self._rows.clear()

    def _end_file(self, is_last: bool) -> None:
        self._write_rows()
        assert self._writer is not None
        index = len(self._files) - 1
        if index or not is_last:
            self._writer.add_key_value_metadata({PART_KEY: json.dumps({"index": index, "is_last": is_last})})
        self._writer.close()
        self._writer = None
        self._chunks_of_file = self._rows_of_file = 0


def segment_file(data: bytes) -> pq.ParquetFile:
    """A segment file from its bytes, which go to a temporary file, not memory. Raises what `as_segment` raises."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  (closed with what is returned)
    file.write(data)
    found = as_segment(file)
    weakref.finalize(found, file.close)
    return found


def as_segment(file: Any) -> pq.ParquetFile:
    """A segment file from an open file. Raises what Arrow raises, ValueError for columns that no version wrote."""
    found = pq.ParquetFile(file, page_checksum_verification=True)
    schema = found.schema_arrow
    known = pa.schema(list(SEGMENT_SCHEMA)[: max(len(schema), FIRST_COLUMNS)])
    differing = [kind.name for kind in schema if kind.name not in known.names]
    differing += [kind.name for kind in known if kind.name not in schema.names]
    differing += [
        kind.name for kind in list(known)[:FIRST_COLUMNS] if not differing and schema.field(kind.name) != kind
    ]
    if differing or schema.names != known.names:
        raise ValueError(f"its columns are not those of a plan: {', '.join(differing) or 'their order'}")
    return found


@contextmanager
def segment_faults(uri: str) -> Iterator[None]:
    """Inside, a segment is read: what Arrow and Python raise for its content becomes a CallerError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        if getattr(error, "errno", None) is not None:  # an error of this machine's disk, not of Arrow
            raise
        raise CallerError(
            f"{uri}: it is no whole part of a plan that this version can read ({error}); put a copy of it back, or "
            "score into another --output"
        ) from error


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What the footer of a segment says."""

    retired: frozenset[str]
    """Names of the chunks that its proposal replaces."""
    first_source: str | None
    """None in a segment without rows."""
    index: int = 0
    """Its place among the segments of its proposal, from 0."""
    is_last: bool = True


def segment_head(file: pq.ParquetFile) -> SegmentHead:
    """Head of a segment; its first row is read where the first source is too long for the footer's statistics.

    Raises ValueError for a footer that no version has written.
    """
    footer = file.metadata.metadata or {}
    retired = json.loads(footer.get(RETIRED_KEY, b"[]"))
    if not isinstance(retired, list) or not all(isinstance(name, str) for name in retired):
        raise ValueError("what it retires is no list of names")
    return SegmentHead(frozenset(retired), _first_source(file), **json.loads(footer.get(PART_KEY, b"{}")))


def _first_source(file: pq.ParquetFile) -> str | None:
    if not file.metadata.num_rows:
        return None
    statistics = file.metadata.row_group(0).column(SEGMENT_SCHEMA.get_field_index("source")).statistics
    if statistics is not None and statistics.has_min_max:
        smallest: str = statistics.min
        return smallest
    return next(spans_in(file))[2].source


def complete_segments(heads: Mapping[int, SegmentHead]) -> Iterator[tuple[int, SegmentHead]]:
    """Segments of completely written proposals, in order of their numbers.

    The segments of a proposal are created one by one under consecutive numbers; once the last one exists, all of them
    count. A proposal that was interrupted, or whose next number another driver took, never gets its last one.
    """
    parts: list[tuple[int, SegmentHead]] = []
    for number, head in sorted(heads.items()):
        if head.index != len(parts) or (parts and number != parts[-1][0] + 1):
            parts = []
        if head.index == len(parts):
            parts.append((number, head))
            if head.is_last:
                yield from parts
                parts = []


def spans_in(file: pq.ParquetFile) -> Iterator[tuple[int, Kind, Span]]:
    """Each row: index of the chunk in the segment, its kind, and one of its spans. Raises ValueError for a null."""
    for batch in file.iter_batches(ROWS_PER_READ, use_threads=False):  # making Python objects takes the time
        for row in batch.to_pylist():
            if absent := [name for name in NEVER_NULL if row[name] is None]:
                raise ValueError(f"a row of it has no {absent[0]}")
            index, kind = row.pop("chunk"), Kind(row.pop("kind"))
            if (metadata := row.get("metadata")) is not None:
                row["metadata"] = metadata.values()
            yield index, kind, Span.of(*row.values())


def spans_by_chunk(file: pq.ParquetFile) -> Iterator[tuple[int, Kind, tuple[Span, ...]]]:
    """Each chunk: its index in the segment, its kind, and all its spans. Raises ValueError as `spans_in` does."""
    current: tuple[int, Kind] | None = None
    spans: list[Span] = []
    for index, kind, span in spans_in(file):
        if current is not None and current[0] != index:
            yield *current, tuple(spans)
            spans = []
        current = index, kind
        spans.append(span)
    if current is not None:
        yield *current, tuple(spans)


def _close(files: Iterable[IO[bytes]]) -> None:
    for file in files:
        file.close()
