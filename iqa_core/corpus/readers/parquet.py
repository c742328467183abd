"""Parquet files -> images by row ranges; small row groups are joined, large ones are cut.

Parquet is read by row groups, so a chunk that is a part of one re-reads the pages before it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate, groupby, pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.carried_types import Bounds, has_bounds
from iqa_core.corpus.chunks import Chunk, Content, Encoded, ReadOptions, Span, Survey
from iqa_core.corpus.column_values import values_of
from iqa_core.corpus.readers.tabular import choose_columns, images_from_bytes, images_from_uris, keys_of, paths_of
from iqa_core.corpus.sources import Source
from iqa_core.records import ImageLimits
from iqa_core.storage.failures import FetchFailed
from iqa_core.storage.range_file import RangeFile
from iqa_core.storage.storage import Storage

ROWS_PER_READ = 64
"""Rows of the image column decoded from Parquet at a time."""


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    """Spans and columns, from the footer alone."""
    file = opened(storage, source.uri, source.size or 0)
    schema = file.schema_arrow
    columns = choose_columns(schema, options, source.uri)
    spans = tuple(
        Span(source.uri, source.key, source.size, source.etag, begin, end, end - begin)
        for begin, end in _row_ranges(file.metadata, options)
    )
    return replace(columns_of(file, columns.carried(schema)), spans=spans)


def columns_of(file: pq.ParquetFile, names: Sequence[str]) -> Survey:
    """The named columns of a file, and their bounds as far as its statistics have them; no spans."""
    carried = pa.schema([file.schema_arrow.field(name) for name in names])
    return Survey((), carried, _bounds(file, carried))


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    """Images of the chunk's rows; the other columns are read first, the images a few at a time."""
    (span,) = chunk.spans
    file = opened(storage, span.source, span.size or 0)
    if span.images is None:  # it could not be read when it was planned
        span = replace(span, begin=0, end=file.metadata.num_rows)
    columns = choose_columns(file.schema_arrow, options, span.source)
    groups, skipped = _groups_of(file.metadata, span)
    names = columns.carried(file.schema_arrow)
    # of a struct of bytes and path only the path is read here
    path = [f"{columns.image}.path"] if columns.has_path else [columns.image] if columns.is_uri else []
    table = rows_of(file, span, [*names, *path])
    paths = paths_of(table, columns)

    def images(ordinals: Sequence[int]) -> Iterator[Encoded]:
        if columns.is_uri and paths is not None:
            return images_from_uris(storage, span.source, values_of(paths), ordinals, limits)
        batches = _batches(file, span.source, columns.image, groups, skipped, span.end - span.begin)
        return images_from_bytes(storage, span, batches, ordinals, limits)

    keys = keys_of(table, columns, paths, range(span.begin, span.end))
    return Content(keys, table.select(names), images)


def rows_of(file: pq.ParquetFile, span: Span, columns: Sequence[str]) -> pa.Table:
    """These columns of the span's rows. Raises FetchFailed where the file does not have them all."""
    groups, skipped = _groups_of(file.metadata, span)
    with faults_named(span.source):
        return file.read_row_groups(groups, columns=list(columns)).slice(skipped, span.end - span.begin)


def cells(
    storage: Storage, uri: str, size: int, rows: Sequence[int], options: ReadOptions, limits: ImageLimits
) -> Iterator[tuple[list[int], Callable[[], list[Encoded]]]]:
    """Ascending rows by row group, each with what reads their images: of the row group's image column alone, once.

    Raises FetchFailed where the file is none, or has fewer rows.
    """
    file = opened(storage, uri, size)
    column = choose_columns(file.schema_arrow, options, uri).image
    counts = (file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))
    edges = list(accumulate(counts, initial=0))
    if rows[-1] >= edges[-1]:
        raise FetchFailed(f"{uri}: it has {edges[-1]} rows, and one of them was number {rows[-1]}")

    def images(group: int, wanted: Sequence[int]) -> list[Encoded]:
        span = Span(uri, "", size, "", edges[group], edges[group + 1], None)
        batches = _batches(file, uri, column, [group], 0, wanted[-1] + 1 - span.begin)
        return list(images_from_bytes(storage, span, batches, [row - span.begin for row in wanted], limits))

    for group, inside in groupby(rows, key=lambda row: bisect(edges, row) - 1):
        wanted = list(inside)
        yield wanted, partial(images, group, wanted)


def opened(storage: Storage, uri: str, size: int) -> pq.ParquetFile:
    """A Parquet file of a storage; page checksums are verified. Raises FetchFailed when it is none."""
    with faults_named(uri):
        return pq.ParquetFile(RangeFile(storage, uri, size), pre_buffer=True, page_checksum_verification=True)


@contextmanager
def faults_named(uri: str) -> Iterator[None]:
    """Raises FetchFailed, which names the file, in place of Arrow's errors inside the block."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise FetchFailed(f"{uri}: it cannot be read as Parquet ({error})") from error


def _bounds(file: pq.ParquetFile, schema: pa.Schema) -> dict[str, Bounds]:
    """Column -> smallest and largest of 0 and its 64-bit integers or times, where the statistics have them."""
    found: dict[str, Bounds | None] = {field.name: (0, 0) for field in schema if has_bounds(field.type)}
    for index in range(len(file.schema) if found else 0):
        leaf = file.schema.column(index)
        if leaf.physical_type not in ("INT64", "INT96"):
            continue
        for name in accumulate(leaf.path.split("."), "{}.{}".format):  # a column's name may have dots itself
            if (known := found.get(name)) is not None:
                bounds = _bounds_of_leaf(file.metadata, index, leaf.converted_type == "UINT_64")
                found[name] = bounds and (min(known[0], bounds[0]), max(known[1], bounds[1]))
    return {name: bounds for name, bounds in found.items() if bounds is not None}


def _bounds_of_leaf(metadata: pq.FileMetaData, index: int, is_unsigned: bool) -> Bounds | None:
    low = high = 0
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group).column(index).statistics
        if found is not None and found.num_values == 0:
            continue
        if found is None or not found.has_min_max:
            return None
        # times are compared as integers: Python has no date after the year 9999
        least, most = (found.min, found.max) if is_unsigned else (found.min_raw, found.max_raw)
        if not isinstance(most, int):
            return None
        low, high = min(low, least), max(high, most)
    return low, high


def _row_ranges(metadata: pq.FileMetaData, options: ReadOptions) -> Iterator[tuple[int, int]]:
    """Begin and end of each span: at most chunk_images rows and chunk_bytes bytes, cut at row groups if possible."""
    begin = end = 0
    size = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if end > begin and (
            end - begin + group.num_rows > options.chunk_images or size + group.total_byte_size > options.chunk_bytes
        ):
            yield begin, end
            begin, size = end, 0
        end += group.num_rows
        size += group.total_byte_size
        pieces = max(-(-(end - begin) // options.chunk_images), -(-size // options.chunk_bytes))
        if pieces > 1:
            yield from _cut_evenly(begin, end, pieces)
            begin, size = end, 0
    if end > begin:
        yield begin, end


def _cut_evenly(begin: int, end: int, pieces: int) -> Iterator[tuple[int, int]]:
    """A range of rows in at most so many pieces, none of them empty."""
    edges = sorted({begin + (end - begin) * i // pieces for i in range(pieces + 1)})
    yield from pairwise(edges)


def _groups_of(metadata: pq.FileMetaData, span: Span) -> tuple[list[int], int]:
    """Row groups that overlap the span, and the number of rows of the first that lie before it."""
    groups: list[int] = []
    first_row = skipped = 0
    for index in range(metadata.num_row_groups):
        last_row = first_row + metadata.row_group(index).num_rows
        if first_row < span.end and last_row > span.begin:
            if not groups:
                skipped = span.begin - first_row
            groups.append(index)
        first_row = last_row
    if first_row < span.end:
        raise FetchFailed(f"{span.source}: it has {first_row} rows, the plan reads up to row {span.end}")
    return groups, skipped


def _batches(
    file: pq.ParquetFile, uri: str, column: str, groups: list[int], skipped: int, count: int
) -> Iterator[pa.Array]:
    position = 0
    with faults_named(uri):
        for batch in file.iter_batches(ROWS_PER_READ, row_groups=groups, columns=[column]):
            begin, end = max(skipped - position, 0), min(skipped + count - position, batch.num_rows)
            if begin < end:
                yield batch.column(column).slice(begin, end - begin)
            position += batch.num_rows
            if position >= skipped + count:
                return
