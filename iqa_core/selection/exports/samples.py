"""Kept rows and their bytes -> samples: what every export format writes, and the names that it writes them under.

Names are made of chunk and ordinal, so they are unique and the same in every run; the original's key stands beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

EXTENSIONS = {"jpeg": "jpg", "tiff": "tif"}
"""Format -> its usual extension, where that is not the format's name."""

HIDDEN = ("status", "reason", "detail", "frames", "offset", "length", "row", "kept")
"""Columns of the rows that say nothing of an exported image."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of an export."""

    stem: str
    data: bytes
    """The bytes that were scored; never decoded, never encoded again."""
    extension: str

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.stem}.{self.extension}"


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of one shard, and what stands beside them."""

    images: Sequence[Sample]
    values: pa.Table
    """A row for each: key, source, sha256, size, weight, scores, carried columns."""
    caption: str | None = None
    """The column that is the caption."""


def value_schema(rows: pa.Schema) -> pa.Schema:
    """Columns of kept rows that go into an export."""
    return pa.schema([field for field in rows if field.name not in HIDDEN])


def samples_of(chunk: str, rows: pa.Table, data: Sequence[bytes], caption: str | None = None) -> Samples:
    """Samples of one chunk. rows: its kept rows whose bytes could be read; data: these bytes, in order."""
    formats = rows.column("format").to_pylist()
    images = [
        Sample(f"{chunk}-{ordinal:06d}", bytes_, EXTENSIONS.get(format, format))
        for ordinal, (format, bytes_) in enumerate(zip(formats, data, strict=True))
    ]
    return Samples(images, rows.select(value_schema(rows.schema).names), caption)


def renamed(names: Sequence[str], rename: Callable[[str], str]) -> dict[str, str]:
    """Name -> the name in an export, which differs where the format reserves it; underscores keep names distinct."""
    found = {}
    taken = {name for name in names if rename(name) == name}
    for name in names:
        new = rename(name)
        while new != name and new in taken:
            new += "_"
        taken.add(new)
        found[name] = new
    return found
