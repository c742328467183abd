"""An AVIF's boxes -> its size, its frames, its orientation."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO

from PIL import AvifImagePlugin

from iqa_core.images.containers.container import Container, Unreadable, must_reach, read
from iqa_core.records import ImageLimits, Reason

_AVIF_EXIF_ITEM = re.compile(rb"(infe[\x02\x03]...(?:.{4}|.{6}))Exif", re.DOTALL)
_AVIF_EXTENT = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_AVIF_APERTURE = re.compile(rb"\0\0\0\x28clap(.{32})", re.DOTALL)


def walk_avif(data: bytes, limits: ImageLimits) -> Container:
    """Boxes must lie inside the file. EXIF is renamed away: Pillow parses it, and irot and imir are what counts."""
    clean, meta, has_pixels, apertures = data, b"", False, []
    for kind, start, end in _boxes(data):
        has_pixels = has_pixels or kind == b"mdat" or b"idat" in data[start:end]
        if kind in (b"meta", b"moov"):
            apertures += [match[1] for match in _AVIF_APERTURE.finditer(data, start, end)]
        if kind != b"meta":
            continue
        if meta:
            raise Unreadable(Reason.CORRUPT, "the avif has two boxes of metadata, of which one can count")
        meta = data[start:end]
        for match in _AVIF_EXTENT.finditer(meta):
            width, height = (int.from_bytes(side, "big") for side in match.groups())
            if width * height > limits.max_pixels:
                return Container("avif", width, height, data)
        clean = data[:start] + _AVIF_EXIF_ITEM.sub(rb"\1none", meta) + data[end:]
    if not has_pixels:
        raise Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, before the avif's pixel data")
    with AvifImagePlugin.AvifImageFile(BytesIO(clean)) as image:
        _require_whole_picture(apertures, *image.size)
        orientation = image.getexif().get(274, 1)
        return Container("avif", *image.size, clean, frames=image.n_frames, orientation=orientation)


def _require_whole_picture(apertures: list[bytes], width: int, height: int) -> None:
    """Raises where a clean aperture shows a part of the pixels only, for Pillow gives them all."""
    for aperture in apertures:
        wide, of_wide, high, of_high, right, _, down, _ = struct.unpack(">8i", aperture)
        if (wide, high, right, down) != (width * of_wide, height * of_high, 0, 0):
            raise Unreadable(
                Reason.UNSUPPORTED_FORMAT, "the avif is cropped by a clap box; save the part that it shows"
            )


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each outermost box."""
    at = 0
    while at < len(data):
        size, kind = read(">I4s", data, at)
        if size == 1:
            (size,) = read(">Q", data, at + 8)
        end = at + size if size else len(data)
        if size and size < 8:
            raise Unreadable(Reason.CORRUPT, f"the avif has no valid box at byte {at}")
        must_reach(end, data, "box")
        yield kind, at, end
        at = end
