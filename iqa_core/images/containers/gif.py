"""A GIF's blocks -> its size, its frames, and its first frame on a screen that holds it."""

from __future__ import annotations

import struct

from iqa_core.images.containers.container import Container, Unreadable, read
from iqa_core.records import Reason


def walk_gif(data: bytes) -> Container:
    """Every block up to the trailer; the decoder gets the first frame on a screen that it fits on."""
    width, height, flags = read("<HHB", data, 6)
    at = screen_end = 13 + _colour_table_bytes(flags)
    first, control, frames = b"", b"", 0
    while (kind := read("B", data, at)[0]) != 0x3B:
        if kind == 0x21:
            if data[at + 1 : at + 3] == b"\xf9\x04" and not frames:
                has_key, _, key = read("<BHB", data, at + 3)
                control = struct.pack("<3sBHBx", b"!\xf9\x04", has_key & 1, 0, key)
            at = _after_sub_blocks(data, at + 2)
        elif kind == 0x2C:
            left, top, frame_width, frame_height, flags = read("<HHHHB", data, at + 1)
            start, at = at, _after_sub_blocks(data, at + 11 + _colour_table_bytes(flags))
            frames += 1
            if frames == 1:
                first = data[start:at]
                width, height = max(width, left + frame_width), max(height, top + frame_height)
        elif kind == 0:
            at += 1
        else:
            raise Unreadable(Reason.CORRUPT, f"the gif has no valid block at byte {at}")
    if not frames:
        raise Unreadable(Reason.CORRUPT, "the gif has no frame")
    screen = data[:6] + struct.pack("<HH", min(width, 65535), min(height, 65535)) + data[10:screen_end]
    return Container("gif", width, height, screen + control + first + b";", frames)


def _colour_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    """May lie past the end of a cut file: the next read tells."""
    num_bytes = len(data)
    while at < num_bytes and data[at]:
        at += data[at] + 1
    return at + 1
