"""A TIFF's directories -> its size, its pages, and a directory of its own with only what makes pixels."""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from PIL import TiffImagePlugin

from iqa_core.images.containers.container import Container, Format, Unreadable, must_be_few, must_reach, read
from iqa_core.images.containers.tiff_layouts import (
    CAMERA_RAW,
    HEIGHT,
    JPEG_SIZE,
    JPEG_START,
    PHOTOMETRIC,
    STRIP_SIZES,
    STRIP_STARTS,
    TILE_SIZES,
    TILE_STARTS,
    WIDTH,
    Tags,
    Values,
    body_and_tags,
    check_coded_size,
    decoder_bytes,
    layout_of,
    tags_for_decoder,
)
from iqa_core.records import ImageHeader, ImageLimits, Reason

_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
"""Letters of `struct`, by type code."""
_OPAQUE_BYTES = {1: 1, 3: 2, 4: 4, 5: 8, 7: 1, 10: 8, 11: 4}
"""Bytes of one value, by type code, for the few tags that are not integers: JPEG tables, luma weights, black, white."""
_OPAQUE_TAGS = frozenset({347, 529, 532})
_ORIENTATION = 274
_SCALARS = frozenset({256, 257, 259, 262, 266, 274, 277, 278, 284, 292, 293, 317, 322, 323, 332, *range(512, 516), 531})
_ARRAYS = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 519, 520, 521, 530})
"""Tags that make pixels: size, samples, compression, strips, tiles, colour map, tables. No metadata."""
_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_PER_BLOCK = frozenset({STRIP_STARTS, STRIP_SIZES, TILE_STARTS, TILE_SIZES})
_MOST_VALUES = 2**16
"""Values read of any other tag: as a tuple they take up to 40 bytes for each byte of the file, as an array one."""
_KINDS_OF_FILE = frozenset({_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION})
"""Tags that tell a camera's raw file; the decoder never sees them."""
_TAGS = _SCALARS | _ARRAYS | _OPAQUE_TAGS | _KINDS_OF_FILE
_MOST_SUB_DIRECTORIES = 8
_NATIVE = "<" if sys.byteorder == "little" else ">"
_CR2 = b"\x10\0\0\0CR\2\0"
"""What a camera writes between the magic bytes and the first directory."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """How numbers lie in this file: byte order, classic (4-byte offsets) or BigTIFF (8-byte)."""

    order: str
    offset: str
    count: str

    def entry(self) -> str:
        return f"{self.order}HH{self.offset}"


@dataclass(frozen=True, slots=True)
class _Page:
    tags: dict[int, Values]
    """Integer tags that matter here."""
    opaque: dict[int, tuple[int, int, bytes]]
    """Other tags: type code, count, bytes."""
    num_bytes: int
    next_at: int
    """Where the next page's directory is; 0 after the last."""


def _walk(data: bytes, limits: ImageLimits) -> Container:
    """All pages' directories and strips; the decoder gets a directory of its own that has only what makes pixels."""
    order = "<" if data[:2] == b"II" else ">"
    big = read(order + "H", data, 2)[0] == 43
    numbers = _Numbers(order, "Q", "Q") if big else _Numbers(order, "I", "H")
    first, num_pages = None, 0
    for page in _pages(data, 8 if big else 4, numbers):
        first, num_pages = first or page, num_pages + 1  # the others are not kept: each is 500 bytes when read
        must_be_few(num_pages, data, "tiff")
    if not first:
        raise Unreadable(Reason.CORRUPT, "the tiff has no page")
    if data[4:12] == _CR2 or _is_camera_raw(first.tags, data, numbers):
        detail = "a camera's raw file (DNG, NEF, CR2, ARW, …), which is not developed here; export it as JPEG or TIFF"
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, detail)
    width, height = (first.tags.get(tag, (0,))[0] for tag in (WIDTH, HEIGHT))
    orientation = first.tags.get(_ORIENTATION, (1,))[0]
    upright = orientation if 1 <= orientation <= 8 else 1
    if not 0 < width * height <= limits.max_pixels:
        # Rejected for that, whatever else it has; its strips may be millions.
        return Container("tiff", width, height, (), frames=num_pages, orientation=upright)
    layout = layout_of(first.tags, order)
    header = ImageHeader(width, height, "tiff", num_pages)
    check_coded_size(first.tags, layout, data, limits.max_pixels, header)
    body, tags = body_and_tags(tags_for_decoder(first.tags, layout, data), layout, data)
    end = 8 + len(body)
    directory = _directory(tags, first.opaque, numbers, end)
    # BigTIFF is handed on as a classic one: Pillow knows it in one byte order only, and 2**32 bytes are over the limit.
    head = data[:2] + struct.pack(order + "HI", 42, end + end % 2)
    parts: tuple[bytes | bytearray | memoryview, ...] = (head, body, bytes(end % 2) + directory)
    return Container(
        "tiff",
        width,
        height,
        parts if isinstance(body, memoryview) else (b"".join(parts),),
        frames=num_pages,
        orientation=upright,
        negative=layout.negative,
        pixel_bytes=4 if layout.num_samples > 1 else 1 + (layout.bits == 16),
        decoder_bytes=decoder_bytes(first.tags, layout),
    )


def _pages(data: bytes, pointer_at: int, numbers: _Numbers) -> Iterator[_Page]:
    (at,) = read(numbers.order + numbers.offset, data, pointer_at)
    seen: set[int] = set()
    budget_bytes = len(data)
    while at and at not in seen:
        seen.add(at)
        page = _page(data, at, numbers, budget_bytes)
        _check_reach(page.tags, data)
        yield page
        budget_bytes -= page.num_bytes
        at = page.next_at


def _page(data: bytes, at: int, numbers: _Numbers, budget_bytes: int) -> _Page:
    """Raises when the directory and its values take more than the budget: overlapping pages cost time without end."""
    (num_entries,) = read(numbers.order + numbers.count, data, at)
    entry_bytes = struct.calcsize(numbers.entry()) + struct.calcsize(numbers.offset)
    at += struct.calcsize(numbers.count)
    end = at + num_entries * entry_bytes
    must_reach(end, data, "directory")
    page = _Page({}, {}, num_entries * entry_bytes, read(numbers.order + numbers.offset, data, end)[0])
    num_bytes = page.num_bytes + struct.calcsize(numbers.count) + struct.calcsize(numbers.offset)
    for entry_at in range(at, end, entry_bytes):
        (tag,) = read(numbers.order + "H", data, entry_at)
        if tag in page.tags or tag in page.opaque or tag not in _TAGS:
            continue
        with suppress(Unreadable) if tag in _KINDS_OF_FILE else nullcontext():
            num_bytes += _take(page, data, entry_at, numbers)
        if num_bytes > budget_bytes:
            raise Unreadable(Reason.CORRUPT, "the tiff's directories overlap")
    return _Page(page.tags, page.opaque, num_bytes, page.next_at)


def _take(page: _Page, data: bytes, at: int, numbers: _Numbers) -> int:
    """Puts the tag whose entry is at `at` into the page; returns how many of its bytes lie elsewhere."""
    tag, kind, count = read(numbers.entry(), data, at)
    unit = "" if tag in _OPAQUE_TAGS else _INTEGERS.get(kind, "")
    num_bytes = count * (_OPAQUE_BYTES.get(kind, 0) if tag in _OPAQUE_TAGS else struct.calcsize(unit))
    value_at = at + struct.calcsize(numbers.entry())
    outside_bytes = num_bytes if num_bytes > struct.calcsize(numbers.offset) else 0
    if outside_bytes:
        (value_at,) = read(numbers.order + numbers.offset, data, value_at)
        must_reach(value_at + num_bytes, data, f"tag {tag}")
    values = _values(data, value_at, count, unit, numbers, tag) if unit else ()
    if not num_bytes or min(values, default=0) < 0:
        raise Unreadable(Reason.CORRUPT, f"the tiff's tag {tag} has an impossible type, length or value")
    if not unit:
        page.opaque[tag] = (kind, count, data[value_at : value_at + num_bytes])
    else:
        # One value each, whatever the file claims: Pillow warns of a second one.
        page.tags[tag] = values[:1] if tag in _SCALARS else values
    return outside_bytes


def _values(data: bytes, at: int, count: int, unit: str, numbers: _Numbers, tag: int) -> Values:
    if tag not in _PER_BLOCK:
        values: tuple[int, ...] = read(f"{numbers.order}{min(count, _MOST_VALUES)}{unit}", data, at)
        return values
    many = array(unit)
    must_reach(at + count * many.itemsize, data, f"tag {tag}")
    many.frombytes(memoryview(data)[at : at + count * many.itemsize])
    if numbers.order != _NATIVE:
        many.byteswap()
    return many


def _check_reach(tags: Tags, data: bytes) -> None:
    """Raises where strips or tiles end behind the file: asked of every page, though only the first is decoded."""
    strips_or_tiles = [(STRIP_STARTS, STRIP_SIZES), (TILE_STARTS, TILE_SIZES)]
    # A camera's second page may be a whole JPEG without strips (Exif 2.3, 4.6.2).
    jpeg = [] if tags.keys() & {STRIP_STARTS, TILE_STARTS} else [(JPEG_START, JPEG_SIZE)]
    for starts, sizes in strips_or_tiles + jpeg:
        ends = (start + size for start, size in zip(tags.get(starts, ()), tags.get(sizes, ()), strict=False))
        must_reach(max(ends, default=0), data, "last strip")


def _is_camera_raw(first: Tags, data: bytes, numbers: _Numbers) -> bool:
    """Its first page is a small preview; what the camera saw lies in a directory below it."""
    if not first.get(_SUBFILE_TYPE, (0,))[0] & 1:
        return False
    photometrics: set[int] = set()
    for at in first.get(_SUB_DIRECTORIES, ())[:_MOST_SUB_DIRECTORIES]:
        with suppress(Unreadable):
            photometrics.update(_page(data, at, numbers, len(data)).tags.get(PHOTOMETRIC, ()))
    return _DNG_VERSION in first or not CAMERA_RAW.keys().isdisjoint(photometrics)


def _directory(tags: Tags, opaque: dict[int, tuple[int, int, bytes]], numbers: _Numbers, at: int) -> bytes:
    """A classic directory that lies at `at` (on the next even offset), with its values behind it."""
    order = numbers.order
    fields = dict(opaque)
    for tag, values in tags.items():
        if values and tag != _ORIENTATION and tag not in _KINDS_OF_FILE:
            kind, unit = (3, "H") if max(values) < 1 << 16 else (4, "I")
            many = array(unit, values)
            if order != _NATIVE:
                many.byteswap()
            fields[tag] = (kind, len(many), many.tobytes())
    values_at = at + at % 2 + 2 + 12 * len(fields) + 4
    entries, outside = bytearray(), bytearray()
    for tag, (kind, count, value) in sorted(fields.items()):
        field = value.ljust(4, b"\0")
        if len(value) > 4:
            field = struct.pack(order + "I", values_at + len(outside))
            outside += value + bytes(len(value) % 2)
        entries += struct.pack(order + "HHI", tag, kind, count) + field
    return struct.pack(order + "H", len(fields)) + entries + bytes(4) + outside


TIFF = Format(
    re.compile(rb"II[*+]\0|MM\0[*+]").match,
    _walk,
    TiffImagePlugin.TiffImageFile,
    starts=(b"II*\0", b"MM\0*"),
)
