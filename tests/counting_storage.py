"""The storage that jobs use, with a record of how much each read brought."""

from __future__ import annotations

from dataclasses import dataclass, field

from iqa_core.storage.storage import Storage


@dataclass(frozen=True, slots=True)
class Counting(Storage):
    """The real storage, with a record of its reads."""

    sizes: list[int] = field(default_factory=list)

    def read(self, uri: str, begin: int = 0, end: int | None = None, max_bytes: int | None = None) -> bytes:
        data = Storage.read(self, uri, begin, end, max_bytes)
        self.sizes.append(len(data))
        return data
