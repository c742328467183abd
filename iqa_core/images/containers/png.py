"""A PNG's chunks -> its size, its frames, and what makes the pixels of the first of them."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import PngImagePlugin

from iqa_core.images.containers.container import (
    Box,
    Container,
    Format,
    Unreadable,
    exif_orientation,
    must_be_few,
    must_reach,
    read,
)
from iqa_core.records import ImageLimits, Reason

_GREY, _RGB, _PALETTE = 0, 2, 3
_PNG_BITS = {_GREY: (1, 2, 4, 8, 16), _PALETTE: (1, 2, 4, 8), _RGB: (8, 16), 4: (8, 16), 6: (8, 16)}
"""Colour type -> bits per sample that it may have; 4 and 6 are grey and RGB with alpha."""
_PNG_USED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL"})
_PNG_FRAME = frozenset({b"fcTL", b"fdAT"})
_IDAT_CRC = zlib.crc32(b"IDAT")
_MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(slots=True)
class _Found:
    """What the chunks held, as far as the walk has come."""

    header: bytes = b""
    palette: bytes | None = None
    key: bytes | None = None
    """Body of tRNS."""
    has_image: bool = False
    image: list[memoryview] = field(default_factory=list)
    """Its compressed pixels, from IDAT. The decoder gets one chunk of them: a million empty ones would cost more."""
    orientation: int | None = None
    frames: int = 1
    is_animated: bool = False
    controls: int = 0
    """How many fcTL there were: each begins a frame."""
    box: Box | None = None
    """Place of the first frame, where IDAT does not hold it."""
    frame: list[memoryview] = field(default_factory=list)
    """Its compressed pixels, from fdAT."""
    num_pieces: int = 0

    def take(self, kind: bytes, chunk: memoryview) -> None:
        body = chunk[8:-4]
        if kind == b"IDAT":
            self.has_image = True
            self.image.append(body)
        elif kind == b"IHDR":
            self.header = _checked_header(body)
        elif kind == b"PLTE" and self.header[9] == _PALETTE:
            self.require_place(kind, is_free=self.palette is None and self.key is None)
            self.palette = bytes(body)
        elif kind == b"tRNS" and self.header[9] in (_GREY, _RGB, _PALETTE):
            self.require_place(kind, is_free=self.key is None)
            self.key = bytes(body)
        elif kind == b"eXIf":
            self.orientation = self.orientation or exif_orientation(bytes(body))
        elif kind == b"acTL":
            (num_frames,) = struct.unpack_from(">I", body)
            self.frames = max(1, num_frames)
            self.is_animated = num_frames > 0 and not self.has_image
        elif kind in _PNG_FRAME:
            self.take_frame(kind, body)

    def require_place(self, kind: bytes, *, is_free: bool) -> None:
        """Raises where some viewers would use the chunk and others not."""
        if self.has_image or not is_free:
            raise Unreadable(Reason.CORRUPT, f"the png's chunk {kind.decode()} is out of place, or comes twice")

    def take_frame(self, kind: bytes, body: memoryview) -> None:
        """An image before the first fcTL is no frame: it is shown by programs that know of no animation."""
        if kind == b"fcTL" and self.has_image and self.is_animated:
            width, height, left, top = struct.unpack_from(">4I", body, 4)
            self.box = Box(left, top, width, height)
        elif kind == b"fdAT" and self.box:
            self.num_pieces += 1
            if struct.unpack_from(">I", body)[0] != self.num_pieces:
                raise Unreadable(Reason.CORRUPT, "the pieces of the png's first frame are out of order")
            self.frame.append(body[4:])


def _walk(data: bytes, _: ImageLimits) -> Container:
    """Every chunk up to IEND; those that are used must match their checksum, which Pillow does not ask of IDAT."""
    found, at, kind, view, num_chunks = _Found(), 8, b"", memoryview(data), 0
    while kind != b"IEND":
        length, kind = read(">I4s", data, at)
        if not kind.isalpha() or (at == 8) != (kind == b"IHDR"):
            raise Unreadable(Reason.CORRUPT, f"the png has no valid chunk at byte {at}")
        end = at + 12 + length
        must_reach(end, data, f"chunk {kind.decode()}")
        num_chunks += 1
        must_be_few(num_chunks, data, "png")
        found.controls += kind == b"fcTL"
        if kind in _PNG_USED or (kind in _PNG_FRAME and found.controls == 1):
            chunk = view[at:end]
            if zlib.crc32(chunk[4:-4]) != read(">I", data, end - 4)[0]:
                raise Unreadable(Reason.CORRUPT, f"the png's chunk {kind.decode()} at byte {at} fails its checksum")
            try:
                found.take(kind, chunk)
            except struct.error:
                raise Unreadable(Reason.CORRUPT, f"the png's chunk {kind.decode()} has {length} bytes") from None
        at = end
    return _container(found)


def _checked_header(body: memoryview) -> bytes:
    _, _, bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if bits not in _PNG_BITS.get(colour, ()) or compression or filtering or interlace > 1:
        kind = f"{bits} bits, colour type {colour}, methods {compression}, {filtering} and {interlace}"
        raise Unreadable(Reason.CORRUPT, f"the png's header is not valid: {kind}")
    return bytes(body)


def _container(found: _Found) -> Container:
    width, height, bits, colour = struct.unpack_from(">IIBB", found.header)
    colours = key_16 = None
    tables = []
    if colour == _PALETTE:
        colours = _palette_length(found)
        tables.append(_chunk(b"PLTE", found.palette or b""))
    if found.key is not None and (colour, bits) == (_RGB, 16):
        key_16 = _samples(found.key, 3)
    elif found.key is not None:
        key = found.key if colour == _PALETTE else _key_in_8_bit(found.key, bits, colour)
        tables.append(_chunk(b"tRNS", key))
    header: bytes = found.header
    image: Sequence[bytes | memoryview] = found.image
    if found.box:
        header, image = struct.pack(">II", found.box.width, found.box.height) + header[8:], found.frame
    num_bytes = sum(map(len, image))
    if not num_bytes or not (found.box is None or found.box.is_within(width, height)):
        raise Unreadable(Reason.CORRUPT, "the png's first frame has no pixels, or lies outside of the picture")
    # a view takes 200 bytes: pieces that are not much larger are joined
    image = image if num_bytes >= 4096 * len(image) else [b"".join(image)]
    checksum = _IDAT_CRC
    for piece in image:
        checksum = zlib.crc32(piece, checksum)
    head = b"".join([_MAGIC, _chunk(b"IHDR", header), *tables, struct.pack(">I4s", num_bytes, b"IDAT")])
    return Container(
        "png",
        width,
        height,
        (head, *image, struct.pack(">I", checksum) + _chunk(b"IEND", b"")),
        frames=found.frames,
        orientation=found.orientation or 1,
        box=found.box,
        colours=colours,
        key_16=key_16,
        # one band, in two bytes where it has 16 bits; a key of 16 bits has its mask beside it
        pixel_bytes=1 + (bits == 16) if colour in (_GREY, _PALETTE) else 4 + (key_16 is not None),
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def _palette_length(found: _Found) -> int:
    num_bytes, num_alphas = len(found.palette or b""), len(found.key or b"")
    if not 0 < num_bytes <= 768 or num_bytes % 3 or num_alphas > num_bytes // 3:
        kind = f"{num_bytes} bytes of colours and {num_alphas} of alpha"
        raise Unreadable(Reason.CORRUPT, f"the png's palette is not valid: {kind}")
    return num_bytes // 3


def _key_in_8_bit(key: bytes, bits: int, colour: int) -> bytes:
    """The colour that counts as transparent, as Pillow will see it: it compares samples after it made them 8-bit.

    Only the bits that a sample has count; 16-bit grey is compared as it is.
    """
    largest = 2**bits - 1
    scale = 255 // largest if bits in (2, 4) else 1
    values = [(value & largest) * scale for value in _samples(key, 1 if colour == _GREY else 3)]
    return struct.pack(f">{len(values)}H", *values)


def _samples(key: bytes, count: int) -> tuple[int, ...]:
    if len(key) != 2 * count:
        raise Unreadable(Reason.CORRUPT, f"the png's transparent colour has {len(key)} bytes instead of {2 * count}")
    return struct.unpack(f">{count}H", key)


PNG = Format(
    re.compile(_MAGIC).match,
    _walk,
    PngImagePlugin.PngImageFile,
    starts=(_MAGIC,),
)
