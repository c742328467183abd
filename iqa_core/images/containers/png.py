"""A PNG's chunks -> its size, its frames, and what makes pixels."""

from __future__ import annotations

import struct
import zlib

from iqa_core.images.containers.container import Container, Unreadable, exif_orientation, must_reach, read
from iqa_core.records import Reason

_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_USED = _PNG_PIXELS | {b"eXIf", b"acTL"}


def walk_png(data: bytes) -> Container:
    """Every chunk up to IEND; those that are used must match their checksum, which Pillow does not ask of IDAT."""
    width, height = read(">II", data, 16)
    frames = orientation = 1
    kept, at, kind = [memoryview(data)[:8]], 8, b""
    while kind != b"IEND":
        length, kind = read(">I4s", data, at)
        if not kind.isalpha() or (at == 8) != (kind == b"IHDR"):
            raise Unreadable(Reason.CORRUPT, f"the png has no valid chunk at byte {at}")
        end = at + 12 + length
        must_reach(end, data, f"chunk {kind.decode()}")
        chunk = memoryview(data)[at:end]
        if kind in _PNG_USED and zlib.crc32(chunk[4:-4]) != read(">I", data, end - 4)[0]:
            raise Unreadable(Reason.CORRUPT, f"the png's chunk {kind.decode()} at byte {at} fails its checksum")
        if kind == b"tRNS":
            chunk = memoryview(_png_key_in_8_bit(data[at:end], bits=data[24], colour=data[25]))
        if kind in _PNG_PIXELS:
            kept.append(chunk)
        if kind == b"eXIf":
            orientation = orientation or exif_orientation(bytes(chunk[8:-4]))
        if kind == b"acTL":
            frames = max(1, read(">I", data, at + 8)[0])
        at = end
    return Container("png", width, height, b"".join(kept), frames, orientation)


def _png_key_in_8_bit(chunk: bytes, bits: int, colour: int) -> bytes:
    """The colour that counts as transparent, as Pillow will see it: it compares samples after it made them 8-bit."""
    body = chunk[8:-4]
    if colour == 0 and bits in (2, 4):
        largest = 2**bits - 1
        body = struct.pack(">H", (read(">H", body, 0)[0] & largest) * (255 // largest))
    elif colour == 2 and bits == 16:
        body = struct.pack(">3H", *(value >> 8 for value in read(">3H", body, 0)))
    else:
        return chunk
    return struct.pack(">I4s", len(body), b"tRNS") + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
