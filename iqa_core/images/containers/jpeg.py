"""A JPEG's segments -> its size, its orientation, and what makes pixels."""

from __future__ import annotations

from iqa_core.images.containers.container import Container, Unreadable, exif_orientation, must_reach, read
from iqa_core.records import Reason

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
"""All but JFIF (E0) and Adobe (EE), which say what colours the components are."""


def walk_jpeg(data: bytes) -> Container:
    """Segments up to the first scan. What follows is left to libjpeg, which waits for the end marker."""
    width = height = 0
    orientation, kept, at = 1, [b"\xff\xd8"], 2
    while True:
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1 : at + 2] == b"\xff":
            at += 1
        (marker,) = read("B", data, at + 1 if at >= 0 else len(data))
        if marker == 0 or marker in _JPEG_BARE:
            at += 2
            continue
        if marker == 0xD9:
            raise Unreadable(Reason.CORRUPT, "the jpeg ends before its first scan")
        (length,) = read(">H", data, at + 2)
        end = at + 2 + length
        must_reach(end, data, "header")
        if marker in _JPEG_FRAMES:
            height, width = read(">HH", data, at + 5)
        if marker == 0xDA:
            break
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = exif_orientation(data[at + 4 : end])
        if marker not in _JPEG_METADATA:
            kept.append(data[at:end])
        at = end
    return Container("jpeg", width, height, b"".join([*kept, memoryview(data)[at:]]), orientation=orientation)
