"""What is no image -> its name in words; files made to cost much -> time in proportion to their bytes.

Tests iqa_core/images/containers/container.py and iqa_core/images/containers/formats.py.
"""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image

from iqa_core.images import read_header
from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection
from tests.clock import least_cpu_s

LIMITS = ImageLimits()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"<!DOCTYPE html><p>", "an HTML page"),
        (b"\xef\xbb\xbf \n<!-- a --> <!----><HTML>", "an HTML page"),
        (b"<!-- a <svg> --><body>", "an HTML page"),
        (b"<?xml version='1.0'?><html>", "an XML document"),
        (b" <?XML version='1.0'?>\n<!-- a --><svg>", "an SVG drawing"),
        (b"<!-- a --><!DOCTYPE svg>", "an SVG drawing"),
        (b"<?xml version='1.0'?><a/>", "an XML document"),
        (b"<?xml version='1.0'", "an XML document"),
        (b"<!-- never closed <html>", "plain text"),
        (b"<!-- a --><p>some</p>", "plain text"),
    ],
)
def test_text_is_named_behind_comments_and_declarations(text: bytes, name: str) -> None:
    found = read_header(text, LIMITS)
    assert isinstance(found, Rejection)
    assert found.detail.endswith(f"it seems to be {name}")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def image(format: str) -> bytes:
    buffer = BytesIO()
    Image.new("P", (64, 64)).convert("P" if format in ("PNG", "GIF") else "RGB").save(buffer, format)
    return buffer.getvalue()


JPEG, PNG, GIF, WEBP, AVIF = (image(format) for format in ("JPEG", "PNG", "GIF", "WEBP", "AVIF"))
EXIF = b"II*\0\x08\0\0\0" + struct.pack("<H", 600) + struct.pack("<HHII", 1, 3, 1, 0) * 600
"""As many entries as the time to look for the one that it does not have."""
BEFORE_IDAT = PNG.index(b"IDAT") - 4
CONTROL, PIECE = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 64, 64, 0, 0, 1, 1, 0, 0)), 4_000

NO_IMAGES = ("comments", "tiff pages", "tiff values", "tiff strips")
COSTLY: dict[str, Callable[[int], bytes]] = {
    "comments": lambda n: b"<!---->" * n + b"x",
    "jpeg fill bytes": lambda n: JPEG[:2] + b"\xff" * 8 * n + JPEG[2:],
    "jpeg restart markers": lambda n: JPEG[:2] + b"\xff\xd0" * 4 * n + JPEG[2:],
    "jpeg segments": lambda n: JPEG[:2] + b"\xff\xdb\0\2" * n + JPEG[2:],
    "png chunks": lambda n: PNG[:BEFORE_IDAT] + chunk(b"IDAT", b"") * n + PNG[BEFORE_IDAT:],
    "png pieces": lambda n: (
        PNG[:33]
        + chunk(b"acTL", struct.pack(">II", 1, 0))
        + PNG[33:-12]
        + CONTROL
        + b"".join(chunk(b"fdAT", struct.pack(">I", place + 1) + b"x") for place in range(n))
        + PNG[-12:]
    ),
    "tiff pages": lambda n: (
        struct.pack("<2sHI", b"II", 42, 8)
        + b"".join(struct.pack("<HI", 0, 8 + 6 * (place + 1)) for place in range(n))
        + bytes(6)
    ),
    "gif zeros": lambda n: GIF[:-1] + bytes(8 * n) + b";",
    "gif blocks": lambda n: GIF[:-1] + b"!\xfe\0" * 2 * n + b";",
    "gif frames": lambda n: GIF[:-1] + b",\0\0\0\0\1\0\1\0\0\2\1\0\0" * n + b";",
    "gif small blocks": lambda n: GIF[:-1] + b"!\xfe" + b"\1x" * 4 * n + b"\0;",
    "webp chunks": lambda n: webp(b"note\0\0\0\0" * n),
    "webp orientations": lambda n: webp(b"EXIF" + struct.pack("<I", len(EXIF)) + EXIF, n // 100),
    "jpeg orientations": lambda n: (
        JPEG[:2] + (b"\xff\xe1" + struct.pack(">H", 8 + len(EXIF)) + b"Exif\0\0" + EXIF) * (n // 100) + JPEG[2:]
    ),
    "tiff values": lambda n: tiff(n, 258, 1),
    "tiff strips": lambda n: tiff(n, 273, 4),
    "avif boxes": lambda n: AVIF + struct.pack(">I4s", 8, b"free") * n,
    "bmp runs": lambda n: bmp_of_runs(b"\x01\x05" * 4 * n),
    "bmp literals": lambda n: bmp_of_runs(b"\0\3\0\2\0\0" * n),
}


def webp(chunk: bytes, count: int = 1) -> bytes:
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x3f\0\0\x3f\0\0"
    body = b"WEBP" + canvas + WEBP[12:] + chunk * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(count: int, tag: int, kind: int) -> bytes:
    """One tag of so many values, 16 times as many where they are a byte each, and no strip."""
    values = bytes(16 * count)
    sides = b"".join(struct.pack("<HHII", number, 3, 1, 64) for number in (256, 257))
    entry = struct.pack("<HHII", tag, kind, len(values) // kind, 8)
    return struct.pack("<2sHI", b"II", 42, 8 + len(values)) + values + struct.pack("<H", 3) + sides + entry + bytes(4)


def bmp_of_runs(codes: bytes) -> bytes:
    """All of them beyond the end of the first row."""
    head = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 0, 0, 1078, 40, 8, 8, 1, 8, 1, 0, 0, 0, 256, 0)
    return head + bytes(1024) + b"\x08\0" + codes + (b"\0\0\x08\0") * 7


def cost_s(data: bytes, enough_s: float = 0.0, tries: int = 3) -> float:
    """Of the processor, the least of a few tries: other processes do not count."""
    return least_cpu_s(lambda: read_header(data, LIMITS), enough_s, tries)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COSTLY)
def test_time_grows_with_the_bytes_and_no_faster(kind: str) -> None:
    once, twice = COSTLY[kind](PIECE), COSTLY[kind](2 * PIECE)
    if kind not in NO_IMAGES:
        assert isinstance(read_header(twice, LIMITS), ImageHeader)
    floor_s = 0.002  # below that a clock says little
    # one of a few tries: a busy machine is no growth, and growth by the square is seen in all
    assert any(cost_s(twice) <= 2.5 * max(cost_s(once), floor_s) for _ in range(6))


@pytest.mark.parametrize("kind", ["jpeg fill bytes", "jpeg restart markers", "gif zeros", "bmp runs"])
def test_what_takes_2_bytes_takes_no_turn_of_a_loop(kind: str) -> None:
    """1 MB in 10 to 40 ms; in turns it was 0.3 to 1 s, and 268 MB are taken."""
    assert cost_s(COSTLY[kind](125_000), 0.15, tries=8) <= 0.15


@pytest.mark.parametrize("kind", ["tiff values", "tiff strips", "webp chunks", "avif boxes"])
def test_a_walk_holds_a_few_times_the_file_at_most(kind: str) -> None:
    """Numbers of a TIFF took 9 to 18 times their bytes."""
    data = COSTLY[kind](10 * PIECE)
    tracemalloc.start()
    try:
        read_header(data, LIMITS)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 4 * len(data) + 2**20


@pytest.mark.parametrize("kind", ["png chunks", "jpeg segments", "tiff pages", "webp chunks", "avif boxes"])
def test_a_file_of_nothing_but_the_heads_of_parts_is_damage(kind: str) -> None:
    found = read_header(COSTLY[kind](20_000), LIMITS)
    assert isinstance(found, Rejection)
    assert found.reason is Reason.CORRUPT
    assert "parts" in found.detail
