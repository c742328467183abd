"""The nouns of a corpus: a chunk as it is planned, and its content as a reader hands it over."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import pyarrow as pa

from iqa_core.corpus.carried_types import Bounds
from iqa_core.corpus.sources import Kind, Metadata
from iqa_core.records import Rejection

LOCATION = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("sha256", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("row", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("frames", pa.int32()),
    ]
)
"""What a reader knows of an image."""


def chunk_name(segment: int, index: int) -> str:
    return f"{segment:06d}-{index:06d}"


def place_of(chunk: str) -> tuple[int, int]:
    """Segment and index of a chunk's name."""
    segment, index = chunk.split("-")
    return int(segment), int(index)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of one source: what one plan row says."""

    source: str
    key: str
    size: int | None
    etag: str
    begin: int
    """First byte of a tar or list, first row of a table; 0 for a loose image."""
    end: int
    """One past the last."""
    images: int | None
    """Exact number, or None for a tar that was not indexed (its reader counts)."""
    occurrences: tuple[int, ...] | None = None
    """Of each image in a part of a tar: how many of its name the tar holds up to it; None where they are counted from
    the part alone."""
    metadata: Metadata | None = None
    """The table that describes it."""

    @classmethod
    def of(cls, *values: Any) -> Span:
        """From its fields in order, as JSON or Arrow has them; plans of reading 1 lack the last two."""
        source, key, size, etag, begin, end, images, *later = values
        occurrences, metadata, *_ = (*later, None, None)
        return cls(
            *(source, key, size, etag, begin, end, images),
            None if occurrences is None else tuple(occurrences),
            None if metadata is None else Metadata(*metadata),
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one reader task reads and one score file holds: many loose images, or one span of one container."""

    name: str
    kind: Kind
    spans: tuple[Span, ...]

    @property
    def images(self) -> int | None:
        """Number of images, None where only reading tells."""
        counts = [span.images for span in self.spans]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def source_bytes(self) -> int:
        """Bytes of its sources, as far as they are known: 0 for rows of a table or images of a list."""
        if self.kind is Kind.IMAGE:
            return sum(span.size or 0 for span in self.spans)
        return sum(span.end - span.begin for span in self.spans) if self.kind is Kind.WEBDATASET else 0

    @property
    def digest(self) -> str:
        """Of what was planned: 16 hex digits over its kind and spans. A score file says of which it was made."""
        digest = hashlib.sha256(f"{self.kind}".encode())
        for part in self.spans:
            values = (part.source, part.key, part.size, part.etag, part.begin, part.end, part.images)
            described = (part.occurrences, part.metadata and astuple(part.metadata))
            digest.update(repr((*values, *described)).encode())
        return digest.hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """Small enough to send to readers by the thousand: about 10 bytes per loose image."""
        content = [self.name, self.kind, [list(astuple(span)) for span in self.spans]]
        return zlib.compress(json.dumps(content).encode(), 3)

    @classmethod
    def from_bytes(cls, data: bytes) -> Chunk:
        name, kind, spans = json.loads(zlib.decompress(data))
        return cls(name, Kind(kind), tuple(Span.of(*values) for values in spans))


@dataclass(frozen=True, slots=True)
class Survey:
    """What planning needs to know of one source."""

    spans: tuple[Span, ...]
    carried: pa.Schema
    """Input columns that it would carry along, under their own names."""
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """Of the columns with 64-bit integers or times in them, where they are known."""
    unfit: Mapping[str, int] = field(default_factory=dict)
    """Column -> number of its values that are not of the type that `--carry` gives them: they are null."""


READING = 2
"""Version of the rules by which sources become images, keys and carried columns; what each changed, in docs/inputs.md.

Raised by hand. An output is read, as long as it lives, by the rules that it was begun with.
"""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How sources are cut into chunks and which of their columns mean what; fixed for the life of an output."""

    chunk_images: int = 1024
    chunk_bytes: int = 512 * 2**20
    """Encoded bytes that a chunk holds at most, and so what a reader keeps in memory."""
    image_column: str | None = None
    uri_column: str | None = None
    id_column: str | None = None
    carry: Mapping[str, str] = field(default_factory=dict)
    """Column name -> Arrow type name, for fields of JSON sidecars and columns of lists and tables."""
    reading: int = READING
    """By which rules; that of the output's contract."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image as it lies in its source; `data` is a rejection where the bytes could not be had."""

    source: str
    data: bytes | memoryview | Rejection
    offset: int | None = None
    length: int | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The chunk that a batch is of, as its reader found it; it travels with the batch to the score file."""

    chunk: str
    images: int
    layout: str
    """Digest of what the ordinals mean; batches of two readings may be mixed only where it is the same."""
    damage: str | None
    """Where the source became unreadable and why."""

    def to_json(self) -> str:
        """The fields by name."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Origin:
        """The origin that `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Content:
    """What a chunk holds. Keys and carried columns are whole before the first image is handed out."""

    keys: tuple[str, ...]
    """By ordinal: the position of an image in its chunk, which is its row in the score file."""
    carried: pa.Table
    """Input columns under their own names, one row per ordinal (no columns at all where there are none)."""
    images: Callable[[Sequence[int]], Iterator[Encoded]]
    """The images with these ordinals (ascending), in that order; nothing else is fetched where that can be helped."""
    damage: str | None = None
    """Where the source became unreadable and why; what lies before it is in `keys`."""

    def origin(self, chunk: str) -> Origin:
        """What its batches say of the chunk, which has this name."""
        return Origin(chunk, len(self.keys), self.layout, self.damage)

    @property
    def layout(self) -> str:
        """Digest of what the ordinals mean: results of two readings may be mixed only if it is the same."""
        digest = hashlib.sha256()
        for key in self.keys:
            encoded = key.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()[:16]
