"""A WebP's chunks -> its size, its frames, its orientation."""

from __future__ import annotations

import re

from PIL import WebPImagePlugin

from iqa_core.images.containers.container import (
    Container,
    Format,
    Unreadable,
    exif_orientation,
    must_be_few,
    must_reach,
    read,
)
from iqa_core.records import ImageHeader, ImageLimits, Reason

_FIRST_BODY = 20
"""Where the body of the first chunk begins: libwebp takes memory for the size that is named there."""
_HAS_ALPHA = 0x10
"""A flag of the header. Pillow drops the alpha of an animation without it, and shows black around a small frame."""
_DECODER_BYTES_PER_PIXEL = 8
"""Two canvases of libwebp, while they are copied out to what becomes the picture."""


def _walk(data: bytes, _: ImageLimits) -> Container:
    """Every chunk inside the RIFF container, which the decoder gets whole."""
    end = 8 + read("<I", data, 4)[0]
    must_reach(end, data, "RIFF container")
    width = height = frames = num_chunks = 0
    orientation, at = None, 12
    while at + 8 <= end:
        kind, length = read("<4sI", data, at)
        body, at = at + 8, at + 8 + length + length % 2
        if body + length > end:
            raise Unreadable(Reason.CORRUPT, f"the webp's chunk at byte {body - 8} is longer than the file says it is")
        num_chunks += 1
        must_be_few(num_chunks, data, "webp")
        if kind == b"VP8X":
            size = tuple(1 + int.from_bytes(data[i : i + 3], "little") for i in (body + 4, body + 7))
            if body != _FIRST_BODY and size != (width, height):
                other = ImageHeader(size[0], size[1], "webp", 1)
                raise Unreadable(Reason.CORRUPT, "the webp header names two different sizes", other)
            width, height = size
        elif kind == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in read("<HH", data, body + 6))
        elif kind == b"VP8L" and not width:
            (bits,) = read("<I", data, body + 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            orientation = orientation or exif_orientation(data[body : body + length])
    parts: tuple[bytes | memoryview, ...] = (memoryview(data)[:end],)
    if frames and data.startswith(b"VP8X", 12):
        parts = (data[:20], bytes([data[20] | _HAS_ALPHA]), memoryview(data)[21:end])
    return Container(
        "webp",
        width,
        height,
        parts,
        frames=max(1, frames),
        orientation=orientation or 1,
        decoder_bytes=_DECODER_BYTES_PER_PIXEL * width * height,
    )


class _Decoder(WebPImagePlugin.WebPImageFile):
    """Lets go of libwebp's two canvases, 8 bytes a pixel, before Pillow makes a picture of what it was given."""

    def load_prepare(self) -> None:
        self._decoder = None
        super().load_prepare()


WEBP = Format(
    re.compile(rb"RIFF....WEBP", re.DOTALL).match,
    _walk,
    _Decoder,
    starts=(b"RIFF",),
)
