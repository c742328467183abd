"""Rows of a score table -> the encoded bytes of their images, by the locator columns, in few large reads.

An image that cannot be fetched is a rejection in its place. Nothing is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from iqa_core.corpus.chunks import Chunk, Encoded, ReadOptions, Span
from iqa_core.corpus.fetching import fetch_all, in_order, unread
from iqa_core.corpus.readers import arrow, parquet
from iqa_core.corpus.sources import Kind, extension
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import is_local

T = TypeVar("T")

LOCATOR = ("source", "offset", "length", "row", "sha256")
"""Columns of the score table that say where an image lies."""

GAP_BYTES = 256 * 2**10
"""Largest gap between two wanted members of a tar that one request spans: reading it costs less than a request."""

MOST_READ = 1.25
"""Bytes of a request over those that are wanted, at most, where it spans such gaps: few of many members cost few."""

SMALL_GAP_BYTES = 4 * 2**10
"""Gap that is read in any case: headers and a sidecar between two neighbours."""

READ_BYTES = 16 * 2**20
"""Largest read of a tar, unless a single image is larger."""

READS_AHEAD = 8
"""Reads of a remote tar that are under way: 128 MiB at most, and 250 small ones in a second where one takes 30 ms."""

BYTES_PER_PIXEL = 2
"""Bound on an encoded image whose length is not in the score table: PNG of photographs needs 1.5."""

CHANGED = "its bytes are no longer those that were scored"


@dataclass(frozen=True, slots=True)
class Locator:
    """Where an image lies: a file, a byte range of a tar, or a row of a table; and the digest of its bytes."""

    source: str
    offset: int | None
    length: int | None
    row: int | None
    sha256: str | None

    @property
    def kind(self) -> Kind:
        """Which reader fetches it."""
        tables = {"arrow": Kind.ARROW, "parquet": Kind.PARQUET}
        if self.row is not None and (table := tables.get(extension(self.source))) is not None:
            return table  # else the row had no bytes, but a path to them
        return Kind.IMAGE if self.offset is None else Kind.WEBDATASET


def locators(rows: pa.Table) -> list[Locator]:
    """One locator per row of a table that has the columns of LOCATOR."""
    return [Locator(**row) for row in rows.select(LOCATOR).to_pylist()]


def encoded_bounds(rows: pa.Table) -> list[int]:
    """Bytes of each image: exact for a member of a tar, else a bound from its size in pixels."""
    pixels = pc.multiply(rows.column("width").cast(pa.int64()), rows.column("height").cast(pa.int64()))
    bounds: list[int] = pc.coalesce(rows.column("length"), pc.multiply(pixels, BYTES_PER_PIXEL)).to_pylist()
    return bounds


def originals(
    storage: Storage, wanted: Sequence[Locator], options: ReadOptions, limits: ImageLimits
) -> Iterator[bytes | Rejection]:
    """One result per locator, in order: the bytes, or a rejection where they are gone or have another digest.

    options: those of the scoring, which say what columns of tables hold the image.
    Raises RunError where credentials are at fault.
    """
    for (kind, source), group in groupby(
        wanted, key=lambda locator: (locator.kind, locator.source if _is_shared(locator) else "")
    ):
        run = list(group)
        if kind is Kind.IMAGE:
            found = fetch_all(storage, ((locator.source, None) for locator in run), limits)
        elif kind is Kind.WEBDATASET:
            found = _members(storage, source, run, limits)
        else:
            found = _cells(storage, kind, source, run, options, limits)
        yield from (_checked(data, locator) for data, locator in zip(found, run, strict=True))


def _is_shared(locator: Locator) -> bool:
    """Whether the source may hold other images as well."""
    return locator.kind is not Kind.IMAGE


def _checked(data: bytes | Rejection, locator: Locator) -> bytes | Rejection:
    if isinstance(data, Rejection) or hashlib.sha256(data).hexdigest() == locator.sha256:
        return data
    return Rejection(Reason.MISSING, CHANGED)


def _members(storage: Storage, source: str, run: Sequence[Locator], limits: ImageLimits) -> Iterator[bytes | Rejection]:
    """The bytes of members of one tar; neighbours are fetched in one read, and what is too large not at all."""
    lengths = [locator.length or 0 for locator in run]
    wanted = [locator for locator, length in zip(run, lengths, strict=True) if length <= limits.max_bytes]
    found = chain.from_iterable(_reads_of(storage, source, wanted))
    for length in lengths:
        if length <= limits.max_bytes:
            yield next(found)
        else:
            yield Rejection(Reason.TOO_LARGE, f"{length} bytes are more than the limit of {limits.max_bytes}")


def _reads_of(storage: Storage, source: str, run: Sequence[Locator]) -> Iterator[list[bytes | Rejection]]:
    """Results of the reads of members of one tar; a large read is alone under way."""
    for is_large, some in groupby(_near(run), key=lambda near: near[-1][1] - near[0][0] > READ_BYTES):
        reads = (partial(_parts, storage, source, near) for near in some)
        yield from (read() for read in reads) if is_local(source) else in_order(reads, 1 if is_large else READS_AHEAD)


def _parts(storage: Storage, source: str, near: Sequence[tuple[int, int]]) -> list[bytes | Rejection]:
    """Neighbouring byte ranges, by one read."""
    begin, end = near[0][0], near[-1][1]
    data = _answer(partial(storage.read_large, source, begin, end), source)
    return [data if isinstance(data, Rejection) else data[first - begin : last - begin] for first, last in near]


def _near(run: Sequence[Locator]) -> Iterator[list[tuple[int, int]]]:
    """Byte ranges of members, in groups that are worth one read each."""
    near: list[tuple[int, int]] = []
    wanted = 0
    for locator in run:
        length = locator.length or 0
        begin = locator.offset or 0
        end = begin + length
        if near and not _is_worth_joining(begin - near[-1][1], end - near[0][0], wanted + length):
            yield near
            near, wanted = [], 0
        near.append((begin, end))
        wanted += length
    if near:
        yield near


def _is_worth_joining(gap: int, read: int, wanted: int) -> bool:
    """Whether a member behind a gap becomes part of one read of so many bytes, of which so many are wanted."""
    is_little = gap <= SMALL_GAP_BYTES or (gap <= GAP_BYTES and read <= MOST_READ * wanted)
    return gap >= 0 and is_little and read <= READ_BYTES


def _cells(
    storage: Storage, kind: Kind, source: str, run: Sequence[Locator], options: ReadOptions, limits: ImageLimits
) -> Iterator[bytes | Rejection]:
    """The images in rows of one table, by the reader of its kind; of ascending rows one read is held at a time."""
    rows = [locator.row for locator in run if locator.row is not None]
    ascending = sorted(set(rows))
    reads = _answer(partial(_reads, storage, kind, source, ascending, options, limits), source)
    if isinstance(reads, Rejection):
        yield from (reads for _ in rows)
        return
    waiting, is_ascending = iter(reads), rows == ascending
    found: dict[int, bytes | Rejection] = {}
    for row in rows:
        while row not in found:
            near, read = next(waiting)
            images = _answer(read, source)
            if is_ascending:
                found.clear()
            if isinstance(images, Rejection):
                found |= dict.fromkeys(near, images)
            else:
                found |= {row: _held(image) for row, image in zip(near, images, strict=True)}
        yield found[row]


def _reads(
    storage: Storage, kind: Kind, source: str, rows: list[int], options: ReadOptions, limits: ImageLimits
) -> list[tuple[list[int], Callable[[], list[Encoded]]]]:
    """Ascending rows in groups that are read alone, each with what reads its images."""
    entry = storage.stat(source)
    if entry is None:
        raise Missing(source)
    if kind is Kind.PARQUET:
        return list(parquet.cells(storage, source, entry.size or 0, rows, options, limits))
    begin, end = rows[0], rows[-1] + 1
    chunk = Chunk("", kind, (Span(source, "", entry.size, entry.etag, begin, end, end - begin),))

    def images() -> list[Encoded]:
        content = arrow.read(storage, chunk, options, limits)
        return list(content.images([row - begin for row in rows]))

    return [(rows, images)]


def _held(image: Encoded) -> bytes | Rejection:
    return image.data if isinstance(image.data, Rejection) else bytes(image.data)


def _answer(once: Callable[[], T], source: str) -> T | Rejection:
    """What `once` returns, or the rejection that its error stands for."""
    try:
        return once()
    except (Missing, Forbidden, FetchFailed) as error:
        return unread(error, source)
