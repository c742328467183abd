"""An AVIF's metadata -> where its coded pictures lie, and how large they are coded.

libavif searches all items for each item, and keeps 80 to 300 bytes for what takes 1 to 8 in the file. So the number of
items, boxes and samples is bounded by what writers make.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from iqa_core.images.containers.av1 import Coded, coded
from iqa_core.images.containers.container import Unreadable, must_be_few, must_reach, read
from iqa_core.records import Reason

_MOST_ITEMS = 4_096
"""100 million pixels in tiles of 256 x 256, and as many of alpha, are 3,052."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its kind, and where it and its body lie in the file."""

    kind: bytes
    start: int
    body: int
    end: int


@dataclass(slots=True)
class Boxes:
    """The boxes of a file, counted as they are met."""

    data: bytes
    count: int = 0
    coded_bytes: int = 0
    """Bytes of items and samples so far; bytes that several of them share count each time."""

    def outermost(self) -> Iterator[Box]:
        """Boxes that lie in no other, in order. Raises Unreadable on a box that is cut or broken."""
        return self._within(0, len(self.data))

    def children(self, box: Box, skip: int = 0) -> Iterator[Box]:
        """Boxes inside a box; skip: its own bytes before the first of them. Raises Unreadable, as above."""
        return self._within(box.body + skip, box.end)

    def _within(self, at: int, stop: int) -> Iterator[Box]:
        while at < stop:
            self.count += 1
            must_be_few(self.count, self.data, "avif")
            size, kind = read(">I4s", self.data, at)
            body = at + 8
            if size == 1:
                (size,) = read(">Q", self.data, body)
                body += 8
            end = at + size if size else stop
            if size and size < 8:
                raise Unreadable(Reason.CORRUPT, f"the avif has no valid box at byte {at}")
            must_reach(end, self.data, "box")
            yield Box(kind, at, body, end)
            at = end

    def part(self, start: int, size: int) -> memoryview:
        """Bytes of a coded picture; size 0: to the end of the file. Raises Unreadable where pictures share bytes."""
        piece = memoryview(self.data)[start : start + size if size else None]
        self.coded_bytes += len(piece)
        if self.coded_bytes > 2 * len(self.data):
            raise Unreadable(Reason.CORRUPT, "the avif's pictures lie over each other")
        return piece


def coded_pictures(boxes: Boxes, box: Box) -> list[Coded]:
    """Pictures of all items of `meta`, or of the first samples of all tracks of `moov`.

    Raises Unreadable on tables that are cut or longer than a writer makes them.
    """
    parts = _items(boxes, box) if box.kind == b"meta" else _first_samples(boxes, box)
    found = (coded(part) for part in parts)
    return [picture for picture in found if picture]


@dataclass(slots=True)
class _Items:
    """What the boxes of `meta` say of items."""

    av1: set[int] = field(default_factory=set)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Start and size of the parts of each, by item."""
    inside: set[int] = field(default_factory=set)
    """Items whose parts are counted from the beginning of idat."""
    idat: Box | None = None


def _items(boxes: Boxes, meta: Box) -> Iterator[memoryview]:
    items = _Items()
    for box in boxes.children(meta, skip=4):
        if box.kind == b"iinf":
            _take_types(boxes, box, items)
        elif box.kind == b"iloc":
            _take_places(boxes, box, items)
        elif box.kind == b"idat":
            items.idat = box
        elif box.kind == b"iprp":
            _count_properties(boxes, box)
        elif box.kind in (b"iref", b"grpl"):
            must_be_few((box.end - box.body) // 4, boxes.data, "avif")
    for item in items.av1 & items.extents.keys():
        first = items.idat.body if item in items.inside and items.idat else 0
        parts = [boxes.part(first + start, size) for start, size in items.extents[item]]
        yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _take_types(boxes: Boxes, iinf: Box, items: _Items) -> None:
    version = boxes.data[iinf.body]
    (count,) = read(">I" if version else ">H", boxes.data, iinf.body + 4)
    _require_few_items(count)
    for box in boxes.children(iinf, skip=8 if version else 6):
        if box.kind == b"infe":
            number = ">I" if boxes.data[box.body] == 3 else ">H"
            item, kind = read(f"{number}2x4s", boxes.data, box.body + 4)
            if kind == b"av01":
                items.av1.add(item)


def _take_places(boxes: Boxes, iloc: Box, items: _Items) -> None:
    data = boxes.data
    version, sizes, more = read("B3xBB", data, iloc.body)
    offset_bytes, length_bytes, base_bytes = sizes >> 4, sizes & 15, more >> 4
    index_bytes = more & 15 if version in (1, 2) else 0
    at = iloc.body + 6
    number, number_bytes = (">I", 4) if version == 2 else (">H", 2)
    (count,) = read(number, data, at)
    _require_few_items(count)
    at += number_bytes
    for _ in range(count):
        (item,) = read(number, data, at)
        at += number_bytes
        if version in (1, 2):
            if read(">H", data, at)[0] & 15 == 1:
                items.inside.add(item)
            at += 2
        base, at = _number(data, at + 2, base_bytes)
        (num_extents,) = read(">H", data, at)
        at += 2
        boxes.count += num_extents
        must_be_few(boxes.count, data, "avif")
        extents = items.extents.setdefault(item, [])
        for _ in range(num_extents):
            start, at = _number(data, at + index_bytes, offset_bytes)
            size, at = _number(data, at, length_bytes)
            extents.append((base + start, size))


def _number(data: bytes, at: int, num_bytes: int) -> tuple[int, int]:
    must_reach(at + num_bytes, data, "table of places")
    return int.from_bytes(data[at : at + num_bytes], "big"), at + num_bytes


def _require_few_items(count: int) -> None:
    if count > _MOST_ITEMS:
        raise Unreadable(Reason.CORRUPT, f"the avif has {count} items, more than {_MOST_ITEMS}")


def _count_properties(boxes: Boxes, iprp: Box) -> None:
    for box in boxes.children(iprp):
        if box.kind == b"ipco":
            for _ in boxes.children(box):
                pass
        elif box.kind == b"ipma":
            must_be_few((box.end - box.body) // 4, boxes.data, "avif")


_WAY_TO_SAMPLES = frozenset({b"trak", b"mdia", b"minf", b"stbl"})
_COUNT_PLACES = {b"stsz": 8, b"stco": 4, b"co64": 4, b"stts": 4, b"stss": 4}
"""Where the number of entries stands in the bodies of the tables of samples."""
_MOST_SPANS = 1_000
"""Entries of stsc: libavif looks through all of them for each chunk. Writers make one or two."""


def _first_samples(boxes: Boxes, box: Box) -> Iterator[memoryview]:
    first, size, is_av1 = None, 0, False
    for child in boxes.children(box):
        if child.kind in _WAY_TO_SAMPLES:
            yield from _first_samples(boxes, child)
        elif child.kind in _COUNT_PLACES:
            must_be_few(read(">I", boxes.data, child.body + _COUNT_PLACES[child.kind])[0], boxes.data, "avif")
        elif child.kind == b"stsc" and read(">I", boxes.data, child.body + 4)[0] > _MOST_SPANS:
            raise Unreadable(Reason.CORRUPT, f"the avif has a table of more than {_MOST_SPANS} spans of samples")
        if child.kind == b"stsd":
            is_av1 = boxes.data.find(b"av01", child.body, child.end) >= 0
        elif child.kind == b"stsz":
            size, _, one = read(">III", boxes.data, child.body + 4)
            size = size or one
        elif child.kind in (b"stco", b"co64"):
            (first,) = read(">I" if child.kind == b"stco" else ">Q", boxes.data, child.body + 8)
    if is_av1 and first is not None and size:
        yield boxes.part(first, size)
