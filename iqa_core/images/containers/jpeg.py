"""A JPEG's segments -> its size, its orientation, and what makes pixels."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from iqa_core.images.containers.container import (
    Container,
    Format,
    Unreadable,
    exif_orientation,
    must_be_few,
    must_reach,
    read,
)
from iqa_core.records import ImageLimits, Reason

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xDE}
_JPEG_PROGRESSIVE = frozenset({0xC2, 0xCA})
_JPEG_READ = frozenset({0xC0, 0xC1, 0xC3, 0xC9}) | _JPEG_PROGRESSIVE
"""Sequential, lossless (C3), arithmetic (C9, CA); hierarchical ones (C5 to C7, CD to DE) have no decoder."""
_JPEG_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A marker with a segment behind it: not those that have no length (01, restart markers, D8), not fill bytes (FF)."""
_JPEG_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
"""Markers of metadata, without JFIF (E0) and Adobe (EE), which say what colours the components are."""


def _walk(data: bytes, _: ImageLimits) -> Container:
    """Segments up to the first scan; in it, the end marker."""
    width = height = components = process = num_segments = coefficient_bytes = 0
    orientation, kept, at = None, bytearray(b"\xff\xd8"), 2
    while True:
        segment = _JPEG_SEGMENT.search(data, at)
        at = segment.start() if segment else len(data)
        (marker,) = read("B", data, at + 1)
        num_segments += 1
        must_be_few(num_segments, data, "jpeg")
        if marker == 0xD9:
            raise Unreadable(Reason.CORRUPT, "the jpeg ends before its first scan")
        (length,) = read(">H", data, at + 2)
        end = at + 2 + length
        must_reach(end, data, "header")
        if marker in _JPEG_FRAMES:
            process = marker
            bits, height, width, components = read(">BHHB", data, at + 4)
            _check_process(process, bits)
            coefficient_bytes = _coefficient_bytes(width, height, data[at + 11 : at + 10 + 3 * components : 3])
        if marker == 0xDA:
            break
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = orientation or exif_orientation(data[at + 4 : end])
        if marker not in _JPEG_METADATA:
            kept += memoryview(data)[at:end]
        at = end
    # libjpeg waits for the end marker where there is more than one scan; where one holds all, it stops at its last row
    has_one_scan = process not in _JPEG_PROGRESSIVE and data[at + 4] == components
    found = Container(
        "jpeg",
        width,
        height,
        (kept, memoryview(data)[at:]),
        orientation=orientation or 1,
        pixel_bytes=1 if components == 1 else 4,
        decoder_bytes=0 if has_one_scan else coefficient_bytes,
    )
    if has_one_scan:
        _require_end_marker(data, end, found)
    else:
        _require_few_scans(data, end, found)
    return found


def _coefficient_bytes(width: int, height: int, factors: bytes) -> int:
    """Bytes of all coefficients, two per sample: libjpeg holds them until the last scan where there is more than one.

    factors: of sampling, one byte for each component.
    """
    sides = [(factor >> 4 or 1, factor & 15 or 1) for factor in factors] or [(1, 1)]
    most_across, most_down = (max(side) for side in zip(*sides, strict=True))
    num_units = -(-width // (8 * most_across)) * -(-height // (8 * most_down))
    return 2 * 64 * num_units * sum(across * down for across, down in sides)


def frame_size(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Width and height of the frame that begins between two places; 0 and 0 where there is none."""
    while (segment := _JPEG_SEGMENT.search(data, at, end)) and segment[0][1] not in (0xD9, 0xDA):
        at = segment.end()
        if segment[0][1] in _JPEG_FRAMES:
            height, width = read(">HH", data, at + 3)
            return width, height
        at += read(">H", data, at)[0]
    return 0, 0


def _check_process(process: int, bits: int) -> None:
    if process not in _JPEG_READ:
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"jpeg process {process:#x} is not read; save it as baseline")
    if bits != 8:
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"jpeg samples of {bits} bits are not read; save 8 bits")


_MOST_SCANS, USUAL_SCANS = 100, 20
"""Scans of any picture at most, and of a large one. Encoders write 6 to 10, Photoshop 3 to 5, mozjpeg up to 18."""
MOST_PIXELS_SCANNED = 20 * 100_000_000
"""Pixels times scans at most. A scan may have a dozen bytes, but it goes over the whole picture: 0.04 to 0.1 s for 100
million pixels."""


def _require_few_scans(data: bytes, at: int, jpeg: Container) -> None:
    """Raises where a picture has more scans than these bounds allow. at: inside or behind its first scan."""
    most = max(USUAL_SCANS, min(_MOST_SCANS, MOST_PIXELS_SCANNED // max(1, jpeg.width * jpeg.height)))
    num_scans = 1
    while num_scans <= most:
        segment = _JPEG_SEGMENT.search(data, at)
        if not segment or segment[0] == b"\xff\xd9":
            return
        num_scans += segment[0] == b"\xff\xda"
        at = segment.end() + int.from_bytes(data[segment.end() : segment.end() + 2], "big")
    detail = f"the jpeg has more than {most} scans of {jpeg.width} x {jpeg.height} pixels; save it as baseline"
    raise Unreadable(Reason.UNSUPPORTED_FORMAT, detail, jpeg.header)


_BLOCK_BYTES = 2**20


def _require_end_marker(data: bytes, at: int, jpeg: Container) -> None:
    """Raises unless the scan at `at` is closed before the file ends and before another picture begins.

    Inside a scan no FF stands before anything but 00 and restart markers, so the first pair of bytes that is FF D9 ends
    it. Pairs are compared by the mebibyte, which takes 0.6 % of the time of decoding.
    """
    for start in range(at, len(data), _BLOCK_BYTES):
        block = np.frombuffer(data, np.uint8, min(_BLOCK_BYTES + 1, len(data) - start), start)
        found = min((place for shift in (0, 1) for place in _ends_and_starts(block, shift)), default=None)
        if found is not None and block[found + 1] == 0xD9:
            return
        if found is not None:
            detail = f"the jpeg has no end marker before byte {start + found}, where another picture begins"
            raise Unreadable(Reason.TRUNCATED, detail, jpeg.header)
    raise Unreadable(Reason.TRUNCATED, f"the jpeg has no end marker in its {len(data)} bytes", jpeg.header)


def _ends_and_starts(block: NDArray[np.uint8], shift: int) -> list[int]:
    """Place of the first FF D8 or FF D9 whose place is even (shift 0) or odd (shift 1), if there is one."""
    pairs = block[shift : shift + (len(block) - shift) // 2 * 2].view("<u2")
    found = (pairs & 0xFEFF) == 0xD8FF
    return [2 * int(found.argmax()) + shift] if found.any() else []


JPEG = Format(
    re.compile(rb"\xff\xd8\xff").match,
    _walk,
    JpegImagePlugin.JpegImageFile,
    starts=(b"\xff\xd8\xff",),
)
