"""What a listing finds -> a value: by its URI (`Entry`), or as one store names it (`Listed`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or object found by a listing."""

    uri: str
    size: int | None
    """Bytes; None where it is not known (a dangling link)."""
    etag: str
    """Changes when the content changes: an object's ETag, or the modification time in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing."""

    path: str
    """Without the scheme."""
    size: int | None
    etag: str
