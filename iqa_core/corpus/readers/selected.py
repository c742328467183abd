"""Selected rows of a score table -> their images, from where the rows say that they lie, and their other columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import pyarrow as pa

from iqa_core.corpus.chunks import LOCATION, Chunk, Content, Encoded, ReadOptions, Span
from iqa_core.corpus.originals import locators, originals
from iqa_core.corpus.readers import parquet
from iqa_core.records import ImageLimits
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join


def carried_of(rows: pa.Table) -> pa.Table:
    """The columns that are carried along: all but those that say which image it is, and where it lies."""
    return rows.drop_columns([name for name in rows.column_names if name in LOCATION.names])


def located(chunk: Chunk, folder: str) -> Chunk:
    """The chunk with the URIs of the files of its rows, of which a plan has the names. folder: where they lie."""
    spans = []
    for span in chunk.spans:
        assert span.metadata is not None, "spans of selected rows name their file"
        spans.append(replace(span, metadata=replace(span.metadata, uri=join(folder, span.metadata.uri))))
    return replace(chunk, spans=tuple(spans))


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    """Images of the chunk's rows; one whose bytes are no longer those that were scored is rejected as `missing`."""
    parts = [_rows(storage, list(spans)) for _, spans in groupby(chunk.spans, key=lambda span: span.metadata)]
    rows = pa.concat_tables(parts)
    places = locators(rows)
    options = replace(options, id_column=None)  # keys are in the rows; the original need not have this run's column

    def images(ordinals: Sequence[int]) -> Iterator[Encoded]:
        wanted = [places[ordinal] for ordinal in ordinals]
        for place, data in zip(wanted, originals(storage, wanted, options, limits), strict=True):
            yield Encoded(place.source, data, place.offset, place.length, place.row)

    return Content(tuple(rows.column("key").to_pylist()), carried_of(rows), images)


def _rows(storage: Storage, spans: Sequence[Span]) -> pa.Table:
    """Rows of spans that follow one another in one file."""
    table = spans[0].metadata
    assert table is not None, "spans of selected rows name their file"
    entry = storage.stat(table.uri)
    if entry is None or entry.size is None:
        raise Missing(
            f"{table.uri}: the selected rows of this chunk are gone; put the file back into the plan's folder"
        )
    file = parquet.opened(storage, table.uri, entry.size)
    return parquet.rows_of(file, replace(spans[0], source=table.uri, end=spans[-1].end), file.schema_arrow.names)
