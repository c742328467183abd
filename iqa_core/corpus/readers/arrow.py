"""The Arrow files of a saved Hugging Face data set (`save_to_disk`) -> images by row ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from iqa_core.corpus.carried_types import has_bounds
from iqa_core.corpus.chunks import Chunk, Content, Encoded, ReadOptions, Span, Survey
from iqa_core.corpus.column_values import bounds_of, values_of
from iqa_core.corpus.readers.tabular import choose_columns, images_from_bytes, images_from_uris, keys_of, paths_of
from iqa_core.corpus.sources import Source
from iqa_core.records import ImageLimits
from iqa_core.storage.failures import FetchFailed
from iqa_core.storage.range_file import RangeFile
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import is_local, local_path


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    """Spans and columns. A local file is cut by rows; a remote one is one span, since each would read it whole."""
    with _stream(storage, source.uri, source.size or 0) as reader:
        columns = choose_columns(reader.schema, options, source.uri)
        carried = pa.schema([reader.schema.field(name) for name in columns.carried(reader.schema)])
        num_rows = 0
        bounds = {field.name: (0, 0) for field in carried if has_bounds(field.type)}
        for batch in reader:  # one at a time: a batch of a remote file is in memory with its images
            num_rows += batch.num_rows
            for name, (low, high) in bounds.items():
                least, most = bounds_of([batch.column(name)])
                bounds[name] = min(low, least), max(high, most)
    step = options.chunk_images if is_local(source.uri) else max(num_rows, 1)
    spans = tuple(
        Span(source.uri, source.key, source.size, source.etag, begin, end, end - begin)
        for begin, end in ((begin, min(begin + step, num_rows)) for begin in range(0, num_rows, step))
    )
    return Survey(spans, carried, bounds)


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    """Images of the chunk's rows. Raises FetchFailed when the file has fewer, or is no whole Arrow stream."""
    (span,) = chunk.spans
    with _stream(storage, span.source, span.size or 0) as reader:
        table = pa.Table.from_batches(_rows(reader, span), reader.schema)
    if span.images is not None and table.num_rows != span.images:
        raise FetchFailed(f"{span.source}: rows up to {span.end} were planned, it ends before")
    columns = choose_columns(table.schema, options, span.source)
    image = table.column(columns.image)
    paths = paths_of(table, columns)

    def images(ordinals: Sequence[int]) -> Iterator[Encoded]:
        if columns.is_uri and paths is not None:
            return images_from_uris(storage, span.source, values_of(paths), ordinals, limits)
        return images_from_bytes(storage, span, image.chunks, ordinals, limits)

    keys = keys_of(table, columns, paths, range(span.begin, span.begin + table.num_rows))
    return Content(keys, table.select(columns.carried(table.schema)), images)


@contextmanager
def _stream(storage: Storage, uri: str, size: int) -> Iterator[pa.RecordBatchReader]:
    """The batches of the file; Arrow's errors inside the block become FetchFailed."""
    try:
        storage.read(uri, 0, min(size, 1))  # its errors say why; those of a memory map do not
        yield pa.ipc.open_stream(
            pa.memory_map(str(local_path(uri))) if is_local(uri) else RangeFile(storage, uri, size)
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise FetchFailed(f"{uri}: no whole Arrow stream ({error})") from error


def _rows(reader: pa.RecordBatchReader, span: Span) -> Iterator[pa.RecordBatch]:
    """Batches of the span's rows; all batches where the source could not be read when it was planned."""
    position = 0
    for batch in reader:
        begin, end = max(span.begin - position, 0), min(span.end - position, batch.num_rows)
        if span.images is None:
            yield batch
        elif begin < end:
            yield batch.slice(begin, end - begin)
        position += batch.num_rows
        if span.images is not None and position >= span.end:
            return
