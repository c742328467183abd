"""URI -> a seekable file over checked range reads, for libraries that want a file object (tar headers, Parquet)."""

from __future__ import annotations

import io

from iqa_core.storage.storage import Storage

BLOCK_BYTES = 256 * 2**10
"""Small reads are served from one block of this size; larger ones are one request of exactly their size."""


class RangeFile(io.RawIOBase):
    """Read-only. Every byte comes through `Storage.read`: retried, and never short."""

    def __init__(self, storage: Storage, uri: str, size: int) -> None:
        self._storage = storage
        self._uri = uri
        self._size = size
        self._position = 0
        self._block = b""
        self._block_begin = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The new position, never below 0; it may lie behind the end."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, length: int | None = -1) -> bytes:
        """Bytes from the position on, all if length is None or negative. Raises what `Storage.read` raises."""
        begin = min(self._position, self._size)
        end = self._size if length is None or length < 0 else min(begin + length, self._size)
        self._position = end
        if end - begin >= BLOCK_BYTES:
            return self._storage.read_large(self._uri, begin, end)
        if not self._block_begin <= begin <= end <= self._block_begin + len(self._block):
            self._block_begin = begin
            self._block = self._storage.read(self._uri, begin, min(begin + BLOCK_BYTES, self._size))
        return self._block[begin - self._block_begin : end - self._block_begin]

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Number of bytes that were read into the buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
