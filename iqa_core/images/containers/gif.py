"""A GIF's blocks -> its size, its frames, and its first frame on a screen that holds it."""

from __future__ import annotations

import re
import struct
from dataclasses import replace

from PIL import GifImagePlugin

from iqa_core.images.containers.container import Box, Container, Format, Unreadable, read
from iqa_core.records import ImageLimits, Reason

_NO_ZERO = re.compile(rb"[^\0]")


def _walk(data: bytes, _: ImageLimits) -> Container:
    """Every block up to the trailer; the decoder gets the first frame, as a GIF of its own."""
    (flags,) = read("B", data, 10)
    at = screen_end = 13 + _colour_table_bytes(flags)
    control, first, frames = b"", None, 0
    while (kind := read("B", data, at)[0]) != 0x3B:
        if kind == 0x21:
            if not frames and data.startswith(b"\xf9\x04", at + 1):
                control = data[at : at + 7]
            at = _after_sub_blocks(data, at + 2)
        elif kind == 0x2C:
            start, flags = at, read("<HHHHB", data, at + 1)[4]
            at = _after_sub_blocks(data, at + 11 + _colour_table_bytes(flags))
            first = first or _first_frame(data[:screen_end], control, memoryview(data)[start:at])
            frames += 1
        elif kind == 0:
            block = _NO_ZERO.search(data, at)
            at = block.start() if block else len(data)
        else:
            raise Unreadable(Reason.CORRUPT, f"the gif has no valid block at byte {at}")
    if not first:
        raise Unreadable(Reason.CORRUPT, "the gif has no frame")
    return replace(first, frames=frames)


def _first_frame(screen: bytes, control: bytes, frame: memoryview) -> Container:
    """The picture is the screen, or what of it and the frame is larger; around the frame nothing is drawn.

    The one table of colours that counts becomes the screen's: Pillow overlooks a frame's own that is 0, 1, 2, ...
    """
    left, top, width, height, flags = struct.unpack_from("<HHHHB", frame, 1)
    screen_width, screen_height = read("<HH", screen, 6)
    size = max(screen_width, left + width), max(screen_height, top + height)
    pixels_at = 10 + _colour_table_bytes(flags)
    table, length = (frame[10:pixels_at], flags) if flags & 0x80 else (screen[13:], screen[10])
    if not table:
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, "the gif has no table of colours for its first frame")
    if not width or not height:
        raise Unreadable(Reason.CORRUPT, f"the gif's first frame has {width} x {height} pixels")
    has_key, key = (control[3] & 1, control[6]) if control else (0, 0)
    head = screen[:6] + struct.pack("<HHBH", width, height, 0x80 | length & 7, 0)
    control = struct.pack("<3sBHBx", b"!\xf9\x04", has_key, 0, key)
    start = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, flags & 0x40)
    parts = (head, table, control + start, frame[pixels_at:], b";")
    box = None if size == (width, height) else Box(left, top, width, height)
    colours = len(table) // 3
    used_key = key if has_key else None
    return Container("gif", *size, parts, box=box, colours=colours, key=used_key, pixel_bytes=1)


def _colour_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    """May lie past the end of a cut file: the next read tells."""
    num_bytes = len(data)
    while at < num_bytes and data[at]:
        at += data[at] + 1
    return at + 1


GIF = Format(
    re.compile(rb"GIF8[79]a").match,
    _walk,
    GifImagePlugin.GifImageFile,
    starts=(b"GIF87a", b"GIF89a"),
)
