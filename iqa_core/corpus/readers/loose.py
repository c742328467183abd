"""Loose image files -> the images of a chunk, one stretch each, with the columns of tables beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk, Content, Encoded, ReadOptions, Stretch, Survey
from iqa_core.corpus.fetching import fetch_all
from iqa_core.corpus.readers import metadata
from iqa_core.corpus.sources import Source
from iqa_core.records import ImageLimits
from iqa_core.storage.storage import Storage


def survey(storage: Storage, source: Source, options: ReadOptions, exact: bool) -> Survey:
    stretch = Stretch(source.uri, source.key, source.size, source.etag, 0, source.size or 0, 1)
    return Survey((stretch,), pa.schema([]))


def read(storage: Storage, chunk: Chunk, options: ReadOptions, limits: ImageLimits) -> Content:
    def images(ordinals: Sequence[int]) -> Iterator[Encoded]:
        wanted = [chunk.stretches[ordinal] for ordinal in ordinals]
        fetched = fetch_all(storage, ((stretch.source, stretch.size) for stretch in wanted), limits)
        return (Encoded(stretch.source, data) for stretch, data in zip(wanted, fetched, strict=True))

    described = [
        (found, metadata.names_of_file(place.source, found.uri) if found else ())
        for place, found in ((stretch, stretch.metadata) for stretch in chunk.stretches)
    ]
    carried = metadata.columns_of(storage, described, options)
    return Content(tuple(stretch.key for stretch in chunk.stretches), carried, images)
