"""A seed -> encoded images of every format whose headers were changed at random, checksums put right.

Small pictures, so that thousands of them are decoded in seconds.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image

from tests.bad_images import after_png_header, encoded, exif_with_orientation, picture, png_chunk

SIZE = (24, 16)

INTERESTING = (0, 1, 2, 7, 8, 9, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1)
"""Values at which an integer of some width changes its meaning."""

HEADER_BYTES = 160
"""Of a file's beginning, where most changes are made; the others lie anywhere."""


@cache
def seeds() -> tuple[bytes, ...]:
    """One small file of each way to store a picture."""
    image = picture().resize(SIZE)
    turned = {"save_all": True, "append_images": [image.rotate(180)]}
    grey_HW = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[1], SIZE[0]) * 160
    upright = exif_with_orientation(6)
    return (
        encoded(image, "JPEG", exif=upright),
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG", exif=upright),
        encoded(image, "PNG", **turned),
        encoded(image.quantize(16), "PNG", transparency=3),
        encoded(Image.fromarray(grey_HW), "PNG"),
        encoded(image, "WEBP", exif=upright),
        encoded(image, "WEBP", lossless=True),
        encoded(image, "WEBP", **turned),
        encoded(image, "GIF", transparency=3),
        encoded(image, "GIF", **turned),
        encoded(image, "BMP"),
        encoded(image.quantize(16), "BMP"),
        encoded(image, "TIFF"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image.convert("LAB"), "TIFF"),
        encoded(image.convert("1"), "TIFF", compression="group4"),
        encoded(image, "TIFF", big_tiff=True, **turned),
        encoded(image, "AVIF", exif=upright),
        encoded(image, "AVIF", **turned),
        after_png_header(encoded(image, "PNG"), png_chunk(b"acTL", struct.pack(">II", 2**31 + 1, 0))),
    )


def mutated(seed: int) -> Iterator[bytes]:
    """Without end; the same for the same seed."""
    rng = random.Random(seed)
    while True:
        data = bytearray(rng.choice(seeds()))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice((_overwrite, _overwrite, _overwrite, _flip, _cut, _repeat))(data, rng)
        yield _with_checksums(bytes(data)) if rng.random() < 0.9 else bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(data), HEADER_BYTES) if rng.random() < 0.8 else len(data)) if data else 0


def _overwrite(data: bytearray, rng: random.Random) -> None:
    """One integer of 1 to 8 bytes, of either order."""
    width, at = rng.choice((1, 2, 4, 4, 8)), _place(data, rng)
    value = rng.choice(INTERESTING) if rng.random() < 0.8 else rng.getrandbits(8 * width)
    order = rng.choice(("big", "little"))
    data[at : at + width] = (value % 256**width).to_bytes(width, order)


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    """A few bytes out of the middle, or all behind a place."""
    at = _place(data, rng)
    del data[at : at + rng.choice((1, 2, 4, 16)) if rng.random() < 0.9 else None]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at, count = _place(data, rng), rng.choice((1, 4, 12, 40))
    data[at:at] = data[at : at + count]


def _with_checksums(data: bytes) -> bytes:
    """A PNG with the checksum of every chunk that is still one; anything else as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        parts.append(data[at : end - 4] + struct.pack(">I", zlib.crc32(data[at + 4 : end - 4])))
        at = end
    return b"".join([*parts, data[at:]])
