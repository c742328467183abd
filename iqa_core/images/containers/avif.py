"""An AVIF's boxes -> its size, its frames, its orientation."""

from __future__ import annotations

import re
import struct
from io import BytesIO

from PIL import AvifImagePlugin

from iqa_core.images.containers.av1 import Coded
from iqa_core.images.containers.avif_items import Boxes, coded_pictures
from iqa_core.images.containers.container import Container, Format, Unreadable
from iqa_core.records import ImageLimits, Reason

_AVIF_EXIF_ITEM = re.compile(rb"(infe[\x02\x03]...(?:.{4}|.{6}))Exif", re.DOTALL)
_AVIF_EXTENT = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_AVIF_APERTURE = re.compile(rb"\0\0\0\x28clap(.{32})", re.DOTALL)


def _walk(data: bytes, limits: ImageLimits) -> Container:
    """Boxes must lie inside the file. EXIF is renamed away: Pillow parses it, and irot and imir are what counts."""
    meta, has_pixels, apertures, pictures = b"", False, [], list[Coded]()
    parts: tuple[bytes | memoryview, ...] = (memoryview(data),)
    boxes = Boxes(data)
    for box in boxes.outermost():
        has_pixels = has_pixels or box.kind == b"mdat" or data.find(b"idat", box.start, box.end) >= 0
        if box.kind in (b"meta", b"moov"):
            apertures += [match[1] for match in _AVIF_APERTURE.finditer(data, box.start, box.end)]
            pictures += coded_pictures(boxes, box)
        if box.kind != b"meta":
            continue
        if meta:
            raise Unreadable(Reason.CORRUPT, "the avif has two boxes of metadata, of which one can count")
        meta = data[box.start : box.end]
        for match in _AVIF_EXTENT.finditer(meta):
            width, height = (int.from_bytes(side, "big") for side in match.groups())
            if width * height > limits.max_pixels:
                return Container("avif", width, height, ())
        view, renamed = memoryview(data), _AVIF_EXIF_ITEM.sub(rb"\1none", meta)
        parts = (view[: box.start], renamed, view[box.end :])
    if not has_pixels:
        raise Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, before the avif's pixel data")
    _require_small_frames(pictures, limits.max_pixels)
    with AvifImagePlugin.AvifImageFile(BytesIO(b"".join(parts))) as image:
        _require_whole_picture(apertures, *image.size)
        orientation = image.getexif().get(274, 1)
        bytes_by_pixel = {"L": 1, "RGB": 3}.get(image.mode, 4)
        return Container(
            "avif",
            *image.size,
            parts,
            frames=image.n_frames,
            orientation=orientation,
            pixel_bytes=1 if image.mode == "L" else 4,
            decoder_bytes=_decoder_bytes(pictures, image.width * image.height, bytes_by_pixel),
        )


def _require_whole_picture(apertures: list[bytes], width: int, height: int) -> None:
    """Raises where a clean aperture shows a part of the pixels only, for Pillow gives them all."""
    for aperture in apertures:
        wide, of_wide, high, of_high, right, _, down, _ = struct.unpack(">8i", aperture)
        if (wide, high, right, down) != (width * of_wide, height * of_high, 0, 0):
            raise Unreadable(
                Reason.UNSUPPORTED_FORMAT, "the avif is cropped by a clap box; save the part that it shows"
            )


_MOST_FRAMES = 16
"""Frames of one picture at most; more than four layers are unusual. Each is decoded, though it may have 12 bytes."""
_MOST_FRAME_AREAS = 4
"""Pixels of all pictures (colour, alpha, gain map, depth, previews) at most, as a multiple of the pixel limit."""


def _require_small_frames(pictures: list[Coded], max_pixels: int) -> None:
    """Raises where frames are too large or too many: libavif decodes them whole before it scales them down."""
    for coded in pictures:
        if coded.num_pixels > max_pixels:
            size = f"frames of {coded.width} x {coded.height} pixels"
            raise Unreadable(Reason.TOO_LARGE, f"the avif has {size}, more than the limit of {max_pixels}")
        if coded.num_frames > _MOST_FRAMES:
            detail = f"the avif has {coded.num_frames} frames in one picture, more than {_MOST_FRAMES}"
            raise Unreadable(Reason.UNSUPPORTED_FORMAT, detail)
    num_pixels = sum(coded.num_pixels * coded.num_frames for coded in pictures)
    if num_pixels > _MOST_FRAME_AREAS * max_pixels:
        detail = f"the avif's pictures have {num_pixels} pixels together, more than {_MOST_FRAME_AREAS} times the limit"
        raise Unreadable(Reason.TOO_LARGE, f"{detail} of {max_pixels}")


def _decoder_bytes(pictures: list[Coded], num_pixels: int, bytes_by_pixel: int) -> int:
    """Memory that dav1d, libavif and Pillow hold while they make pixels, less Pillow's own picture.

    It is the planes of the whole picture, those of its largest part where it has parts or is scaled, dav1d's notes on
    both (a byte a pixel), the pixels and a copy of them.
    """
    sample_bytes = max((coded.sample_bytes for coded in pictures), default=2)
    planes = max((coded.planes for coded in pictures), default=3.0) + (bytes_by_pixel == 4)
    largest = max((coded.num_pixels for coded in pictures), default=num_pixels)
    decoded_pixels = largest + (num_pixels if largest != num_pixels else 0)
    frame_bytes = (1 if bytes_by_pixel == 1 else 4) * num_pixels
    held_bytes = decoded_pixels * (sample_bytes * planes + 1 + (bytes_by_pixel == 4)) + 2 * bytes_by_pixel * num_pixels
    return max(0, int(held_bytes) - frame_bytes)


def _begins(data: bytes) -> bool:
    """Whether a brand of the first box says so."""
    brands = data[8 : max(16, int.from_bytes(data[:4], "big"))]
    return data[4:8] == b"ftyp" and re.search(rb"avi[fs]", brands) is not None


class _Decoder(AvifImagePlugin.AvifImageFile):
    """Lets go of libavif's planes, 2 to 8 bytes a pixel, before Pillow makes a picture of what it was given."""

    def load_prepare(self) -> None:
        self._decoder = None
        super().load_prepare()


AVIF = Format(_begins, _walk, _Decoder)
