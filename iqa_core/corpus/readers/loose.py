"""Loose image files -> images, one span each, with the columns of tables beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, Encoded, ReadOptions, Span, Survey
from iqa_core.corpus.fetching import fetch_all
from iqa_core.corpus.readers import metadata
from iqa_core.corpus.sources import Source
from iqa_core.records import ImageLimits
from iqa_core.storage.storage import Storage


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    """One span, which is the file."""
    span = Span(source.uri, source.key, source.size, source.etag, 0, source.size or 0, 1)
    return Survey((span,), pa.schema([]))


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    """The files of the chunk, fetched in parallel."""

    def images(ordinals: Sequence[int]) -> Iterator[Encoded]:
        wanted = [chunk.spans[ordinal] for ordinal in ordinals]
        fetched = fetch_all(storage, ((span.source, span.size) for span in wanted), limits)
        return (Encoded(span.source, data) for span, data in zip(wanted, fetched, strict=True))

    described = [
        (span.metadata, metadata.names_of_file(span.source, span.metadata.uri) if span.metadata else ())
        for span in chunk.spans
    ]
    carried = metadata.columns_of(storage, described, options)
    return Content(tuple(span.key for span in chunk.spans), carried, images)
