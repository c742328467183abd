"""A TIFF's directories -> its size, its pages, and a directory of its own with only what makes pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from iqa_core.images.containers.container import Container, Unreadable, must_reach, read
from iqa_core.records import Reason

_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Unsigned integers, by type code."""
_TIFF_OPAQUE_BYTES = {5: 8, 7: 1}
"""Fractions and undefined bytes, for the few tags that are not integers: JPEG tables, luma weights, black and white."""
_TIFF_OPAQUE_TAGS = frozenset({347, 529, 532})
_TIFF_ORIENTATION = 274
_TIFF_SCALARS = frozenset({256, 257, 259, 262, 266, 274, 277, 278, 284, 292, 293, 317, 322, 323, *range(512, 516), 531})
_TIFF_ARRAYS = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 347, 519, 520, 521, 529, 530, 532})
"""Tags that make pixels: size, samples, compression, strips, tiles, colour map, tables. No metadata."""


@dataclass(frozen=True, slots=True)
class _TiffLayout:
    """How numbers lie in this file: byte order, classic (4-byte offsets) or BigTIFF (8-byte)."""

    order: str
    offset: str
    count: str

    def entry(self) -> str:
        return f"{self.order}HH{self.offset}"


def walk_tiff(data: bytes) -> Container:
    """All pages' directories and strips; the decoder gets a directory of its own that has only what makes pixels."""
    order = "<" if data[:2] == b"II" else ">"
    big = read(order + "H", data, 2)[0] == 43
    layout = _TiffLayout(order, "Q", "Q") if big else _TiffLayout(order, "I", "H")
    pointer_at = 8 if big else 4
    (at,) = read(order + layout.offset, data, pointer_at)
    pages: list[_TiffPage] = []
    seen: set[int] = set()
    budget_bytes = len(data)
    while at and at not in seen:
        seen.add(at)
        pages.append(page := _tiff_page(data, at, layout, budget_bytes))
        budget_bytes -= page.num_bytes
        at = page.next_at
    if not pages:
        raise Unreadable(Reason.CORRUPT, "the tiff has no page")
    first = pages[0].tags
    _check_tiff_samples(first)
    padding = bytes(len(data) % 2)
    pointer = struct.pack(order + layout.offset, len(data) + len(padding))
    after_pointer = memoryview(data)[pointer_at + len(pointer) :]
    directory = struct.pack(order + layout.count, len(pages[0].entries)) + b"".join(pages[0].entries) + bytes(8)
    clean = b"".join([data[:pointer_at], pointer, after_pointer, padding, directory])
    orientation = first.get(_TIFF_ORIENTATION, (1,))[0]
    width, height = (first.get(tag, (0,))[0] for tag in (256, 257))
    return Container("tiff", width, height, clean, len(pages), orientation if 1 <= orientation <= 8 else 1)


@dataclass(frozen=True, slots=True)
class _TiffPage:
    tags: dict[int, tuple[int, ...]]
    """Integer tags that matter here."""
    entries: list[bytes]
    """Directory entries for the decoder."""
    num_bytes: int
    next_at: int
    """Where the next page's directory is; 0 after the last."""


def _tiff_page(data: bytes, at: int, layout: _TiffLayout, budget_bytes: int) -> _TiffPage:
    """Raises when the directory and its values take more than the budget: overlapping pages cost time without end."""
    (num_entries,) = read(layout.order + layout.count, data, at)
    entry_bytes = struct.calcsize(layout.entry()) + struct.calcsize(layout.offset)
    at += struct.calcsize(layout.count)
    num_bytes = num_entries * entry_bytes
    end = at + num_bytes
    must_reach(end, data, "directory")
    tags: dict[int, tuple[int, ...]] = {}
    entries = []
    for entry_at in range(at, end, entry_bytes):
        (tag,) = read(layout.order + "H", data, entry_at)
        if tag in tags or tag not in _TIFF_SCALARS | _TIFF_ARRAYS:
            continue
        tags[tag], value_bytes, entry = _tiff_value(data, entry_at, layout)
        num_bytes += value_bytes
        if num_bytes > budget_bytes:
            raise Unreadable(Reason.CORRUPT, "the tiff's directories overlap")
        if tag != _TIFF_ORIENTATION:
            entries.append(entry)
    _check_tiff_strips(tags, data)
    return _TiffPage(tags, entries, num_bytes, read(layout.order + layout.offset, data, end)[0])


def _tiff_value(data: bytes, at: int, layout: _TiffLayout) -> tuple[tuple[int, ...], int, bytes]:
    """Of the entry at `at`: its integers (none if opaque), its bytes that lie elsewhere, the entry for the decoder."""
    tag, kind, count = read(layout.entry(), data, at)
    unit = _TIFF_TYPES.get(kind, "")
    num_bytes = count * (struct.calcsize(unit) or _TIFF_OPAQUE_BYTES.get(kind, 0))
    if not num_bytes or not (unit or tag in _TIFF_OPAQUE_TAGS):
        raise Unreadable(Reason.CORRUPT, f"the tiff's tag {tag} has an impossible type or length")
    value_at = at + struct.calcsize(layout.entry())
    field = data[value_at : value_at + struct.calcsize(layout.offset)]
    outside_bytes = num_bytes if num_bytes > len(field) else 0
    if outside_bytes:
        (value_at,) = read(layout.order + layout.offset, field, 0)
        must_reach(value_at + num_bytes, data, f"tag {tag}")
    values = read(f"{layout.order}{count}{unit}", data, value_at) if unit else ()
    if tag in _TIFF_SCALARS:
        # One value each, whatever the file claims: Pillow warns of a second one.
        field = struct.pack(f"{layout.order}{unit}", values[0]).ljust(len(field), b"\0")
        count = 1
    return values, outside_bytes, struct.pack(layout.entry(), tag, kind, count) + field


def _check_tiff_strips(tags: dict[int, tuple[int, ...]], data: bytes) -> None:
    """Pillow reads past a strip's end and libtiff pads a cut one; so every strip or tile must lie inside the file."""
    starts = tags.get(273) or tags.get(324) or ()
    sizes = tags.get(279) or tags.get(325) or ()
    if not starts or len(starts) != len(sizes):
        raise Unreadable(Reason.CORRUPT, "the tiff does not say where its strips begin and end")
    must_reach(max(start + size for start, size in zip(starts, sizes, strict=True)), data, "last strip")
    compression, photometric, samples = (tags.get(tag, (1,))[0] for tag in (259, 262, 277))
    bits = tags.get(258, (1,))
    bits_per_pixel = sum(bits) if len(bits) == samples else bits[0] * samples
    needed_bytes = tags.get(256, (0,))[0] * tags.get(257, (0,))[0] * bits_per_pixel // 8
    if compression == 1 and photometric != 6 and sum(sizes) < needed_bytes:
        raise Unreadable(Reason.TRUNCATED, f"the tiff's strips hold {sum(sizes)} bytes of {needed_bytes}")


def _check_tiff_samples(tags: dict[int, tuple[int, ...]]) -> None:
    bits, formats = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    if not bits <= {1, 2, 4, 8, 16} or formats != {1}:
        kind = f"{max(bits)} bits, sample format {max(formats)}"
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"tiff samples of {kind} have no agreed white; save 8 or 16 bits")
