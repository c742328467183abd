"""The nouns of a corpus: a chunk as it is planned, and its content as a reader returns it."""

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
"""Columns of what a reader knows of an image."""


def chunk_name(segment: int, index: int) -> str:
    """Name of a chunk of a plan, `000002-000003`: its segment, and its number in it."""
    return f"{segment:06d}-{index:06d}"


def segment_and_index(chunk: str) -> tuple[int, int]:
    """Segment and index in a chunk's name: the inverse of `chunk_name`."""
    segment, index = chunk.split("-")
    return int(segment), int(index)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of one source, as one row of a plan has it."""

    source: str
    key: str
    size: int | None
    etag: str
    begin: int
    """First byte of a tar or list, first row of a table; 0 for a loose image."""
    end: int
    """One past the last."""
    images: int | None
    """Number of images; None for a tar that was not indexed, whose reader counts them."""
    occurrences: tuple[int, ...] | None = None
    """For each image in a part of a tar: how many images of its name the tar holds up to it, itself included; None
    where the part alone tells."""
    metadata: Metadata | None = None
    """The table that describes it."""

    @classmethod
    def of(cls, *values: Any) -> Span:
        """A span from its fields in order, as JSON or Arrow has them; plans of reading 1 lack the last two."""
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
        """Number of images; None where a span's is unknown."""
        counts = [span.images for span in self.spans]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def source_bytes(self) -> int:
        """Bytes of its spans, 0 where they are unknown: for rows of a table and images of a list."""
        if self.kind is Kind.IMAGE:
            return sum(span.size or 0 for span in self.spans)
        return sum(span.end - span.begin for span in self.spans) if self.kind is Kind.WEBDATASET else 0

    @property
    def digest(self) -> str:
        """16 hex digits over kind and spans; a score file notes the digest of the chunk that it was made from."""
        digest = hashlib.sha256(f"{self.kind}".encode())
        for part in self.spans:
            values = (part.source, part.key, part.size, part.etag, part.begin, part.end, part.images)
            described = (part.occurrences, part.metadata and astuple(part.metadata))
            digest.update(repr((*values, *described)).encode())
        return digest.hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """Compressed JSON, about 10 bytes per loose image: chunks are sent to readers by the thousand."""
        content = [self.name, self.kind, [list(astuple(span)) for span in self.spans]]
        return zlib.compress(json.dumps(content).encode(), 3)

    @classmethod
    def from_bytes(cls, data: bytes) -> Chunk:
        """The inverse of `to_bytes`."""
        name, kind, spans = json.loads(zlib.decompress(data))
        return cls(name, Kind(kind), tuple(Span.of(*values) for values in spans))


@dataclass(frozen=True, slots=True)
class Survey:
    """What a plan says of one source: how it is cut, and which columns it has."""

    spans: tuple[Span, ...]
    carried: pa.Schema
    """Its columns but the image, under their own names."""
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """Column of 64-bit integers or times -> smallest and largest value, where they are known."""
    unfit: Mapping[str, int] = field(default_factory=dict)
    """Column -> number of values that do not fit the type that `--carry` gives it, and are null."""


READING = 2
"""Version of the rules by which sources become images, keys and carried columns; docs/inputs.md says what each changed.

Raised by hand. An output keeps the version that it was begun with.
"""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How sources are cut into chunks, and what their columns mean; fixed for the life of an output."""

    chunk_images: int = 1024
    chunk_bytes: int = 512 * 2**20
    """Largest size of a chunk in encoded bytes, and so a reader's memory."""
    image_column: str | None = None
    uri_column: str | None = None
    id_column: str | None = None
    carry: Mapping[str, str] = field(default_factory=dict)
    """Field of JSON sidecars, or column of lists and tables -> name of the type in which it is carried."""
    reading: int = READING
    """Version of the rules (see READING) that the output's contract has."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image as it lies in its source."""

    source: str
    data: bytes | memoryview | Rejection
    """Encoded bytes, or why they could not be read."""
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
    """What a chunk holds. Keys and carried columns are complete before the first image is fetched.

    An image's ordinal is its position in the chunk, and its row in the score file.
    """

    keys: tuple[str, ...]
    """Key of each image, by ordinal."""
    carried: pa.Table
    """Input columns under their own names, one row per ordinal; a table without columns where there are none."""
    images: Callable[[Sequence[int]], Iterator[Encoded]]
    """Ascending ordinals -> their images, in that order; other images are not fetched where that can be helped."""
    damage: str | None = None
    """Where and why the source became unreadable; the images before that are in `keys`."""
    texts: Sequence[Mapping[str, str] | Rejection] | None = None
    """For each ordinal the texts of the rubric's slots, or why it has none; None where the rubric has no slots."""

    def origin(self, chunk: str) -> Origin:
        """What its batches say of the chunk, which has this name."""
        return Origin(chunk, len(self.keys), self.layout, self.damage)

    @property
    def layout(self) -> str:
        """16 hex digits over the keys; results of two readings of a chunk may be mixed only if they are the same."""
        digest = hashlib.sha256()
        for key in self.keys:
            encoded = key.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
        return digest.hexdigest()[:16]
