"""What all formats share: what makes one, what a walk through a container finds, how it refuses and reads."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from PIL import ImageFile

from iqa_core.records import ImageHeader, ImageLimits, Reason

WHOLE_PIXELS, STRIP_PIXELS = 2**20, 2**18
"""Pixels that are made RGB at once, and of larger pictures those at a time: a strip stays in a processor's cache, but
to put it into its place costs a tenth of the time of decoding."""
_WHOLE_BYTES_PER_PIXEL, _STRIP_BYTES_PER_PIXEL = 16, 32
"""A pixel is held as RGBA, as RGB, on white, turned, in the pieces of an array: 4 bytes each at most, not all at once.
A strip is held itself beside these, with its array."""
_LIBRARY_BYTES = 5 * 2**20
"""Tables and buffers of any decoder, and what the allocator keeps of blocks that were freed (3.7 MB were measured)."""


class Unreadable(Exception):
    """Raised by the walks and by what reads pixels, turned into a Rejection before it leaves `iqa_core.images`."""

    def __init__(self, reason: Reason, detail: str, header: ImageHeader | None = None) -> None:
        """header: what was known of the image by then."""
        super().__init__(detail)
        self.reason = reason
        self.header = header


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels inside a picture."""

    left: int
    top: int
    width: int
    height: int

    def is_within(self, width: int, height: int) -> bool:
        """Whether a picture of this size has all of its pixels."""
        return self.left + self.width <= width and self.top + self.height <= height


@dataclass(frozen=True, slots=True)
class Container:
    """What a walk found: all that decoding needs and nothing that it does not."""

    format: str
    width: int
    height: int
    """Pixels as stored, before orientation."""
    parts: tuple[bytes | bytearray | memoryview, ...]
    """What the decoder is given, one after the other. Views of the file, since many walks are held at once; what
    cannot be a view is one part, in bytes, which is not copied again."""
    _: KW_ONLY
    frames: int = 1
    orientation: int = 1
    """EXIF code, 1 (upright) to 8."""
    negative: bool = False
    """What the decoder gives is to be turned around: a TIFF of which white is 0."""
    box: Box | None = None
    """Where what is decoded lies in the picture, if it does not fill it; around it is nothing, which is white."""
    colours: int | None = None
    """Entries of the palette, where there is one: a pixel that names another is damage."""
    key: int | None = None
    """A transparent index, which need not be an entry."""
    key_16: tuple[int, ...] | None = None
    """A transparent colour of three 16-bit samples, which Pillow cannot compare: it is not in `parts`."""
    is_whole_file: bool = False
    """The decoder is given the file as it came, not a copy."""
    pixel_bytes: int = 4
    """Bytes per pixel of the decoder's picture: Pillow has 1 for a single band, 2 for one of 16 bits, else 4."""
    decoder_bytes: int = 0
    """Held beside that picture until it is whole, and no longer: coefficients, planes, a strip or tile."""

    @property
    def clean_bytes(self) -> int:
        """Bytes that the decoder is given."""
        return sum(map(len, self.parts))

    @property
    def held_bytes(self) -> int:
        """Bytes that the walk holds beside the file."""
        return sum(len(part) for part in self.parts if not isinstance(part, memoryview) and not self.is_whole_file)

    @property
    def decoded_size(self) -> tuple[int, int]:
        """Width and height of what the decoder gives."""
        return (self.box.width, self.box.height) if self.box else (self.width, self.height)

    @property
    def peak_bytes(self) -> int:
        """Memory that decoding holds at its highest, with the RGB array that it ends with, without the file itself.

        Never less than what is measured, and at most 1.3 times as much above 10 million pixels.
        """
        coded_width, coded_height = self.decoded_size
        num_pixels = self.width * self.height
        frame_bytes = coded_width * coded_height * self.pixel_bytes
        is_whole = num_pixels <= WHOLE_PIXELS
        strip_bytes = _WHOLE_BYTES_PER_PIXEL * num_pixels if is_whole else _STRIP_BYTES_PER_PIXEL * STRIP_PIXELS
        copied_bytes = 0 if self.is_whole_file else self.clean_bytes
        return copied_bytes + frame_bytes + max(self.decoder_bytes, 3 * num_pixels + strip_bytes) + _LIBRARY_BYTES

    @property
    def header(self) -> ImageHeader:
        """What is said of the picture as it is shown, upright."""
        sides = (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
        return ImageHeader(*sides, self.format, self.frames)


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is read. Each is a file in this folder and a line in `formats`."""

    begins: Callable[[bytes], object]
    """Whether a file is of this format, by its first bytes; what it returns counts as true or false."""
    walk: Callable[[bytes, ImageLimits], Container]
    """Raises Unreadable where the file is damaged, or of a kind that is not read."""
    decoder: type[ImageFile.ImageFile]
    """Makes pixels of what the walk found. Its class is asked for, since Pillow would try all that it knows."""
    starts: tuple[bytes, ...] = ()
    """First bytes of such files: a file that ends inside them was cut."""


def read(layout: str, data: bytes, at: int) -> tuple[Any, ...]:
    """`struct.unpack_from`. Raises Unreadable (`truncated`) where it would read past the end."""
    try:
        return struct.unpack_from(layout, data, at)
    except (struct.error, OverflowError):  # twice as quick as to compute the end before
        detail = f"the file ends after {len(data)} bytes, where more should follow"
        raise Unreadable(Reason.TRUNCATED, detail) from None


def must_reach(end: int, data: bytes, part: str) -> None:
    """Raises Unreadable (`truncated`) where a part ends behind the file. part: what a person calls it."""
    if end > len(data):
        raise Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, but its {part} ends at {end}")


def must_be_few(num_parts: int, data: bytes, format: str) -> None:
    """Raises Unreadable where more parts were met than a writer makes: one of 4 bytes takes 2 to 10 microseconds."""
    if num_parts > 10_000 + len(data) // 128:
        raise Unreadable(Reason.CORRUPT, f"the {format} has more than {num_parts - 1} parts in {len(data)} bytes")


def exif_orientation(exif: bytes) -> int | None:
    """Tag 274 of the first directory, 1 to 8; None where there is none, it has no meaning, or the block is broken."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        if order is None:
            return None
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (num_entries,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(num_entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, at + 2 + 12 * entry)
            if tag == 274 and kind == 3:
                return value if 1 <= value <= 8 else None
    except struct.error:
        return None
    return None
