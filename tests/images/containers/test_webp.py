"""WebPs put together chunk by chunk around lossless pixels -> the pixels that they were made of, on white."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iqa_core.images import decode, read_header
from iqa_core.records import ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import encoded, exif_with_orientation

TINY = ImageLimits(min_side=1)
RNG = np.random.default_rng(3)
RGBA_HWC = RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8)
RGB_HWC = RGBA_HWC[..., :3]
ANIMATED, EXIF, ALPHA = 2, 8, 16


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def three_bytes(*values: int) -> bytes:
    return b"".join(value.to_bytes(3, "little") for value in values)


def canvas(flags: int, width: int, height: int) -> bytes:
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + three_bytes(width - 1, height - 1))


def pixels(image_HWC: NDArray[np.uint8]) -> bytes:
    """A VP8L chunk, as Pillow writes it behind 12 bytes of RIFF."""
    return encoded(Image.fromarray(image_HWC), "WEBP", lossless=True, exact=True)[12:]


def frame(left: int, top: int, image_HWC: NDArray[np.uint8], flags: int = 0) -> bytes:
    height, width = image_HWC.shape[:2]
    return chunk(
        b"ANMF", three_bytes(left // 2, top // 2, width - 1, height - 1, 90) + bytes([flags]) + pixels(image_HWC)
    )


def animation(flags: int, size: tuple[int, int], *frames: bytes, background: int = 0xFF0000FF) -> bytes:
    return webp(canvas(flags, *size), chunk(b"ANIM", struct.pack("<IH", background, 0)), *frames)


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    found = decode(data, TINY)
    assert isinstance(found, RgbImage), found
    assert read_header(data, TINY) == found.header
    return found.pixels_HWC


def on_white(rgba_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    alpha_HW1 = rgba_HWC[..., 3:] / 255
    return rgba_HWC[..., :3] * alpha_HW1 + 255 * (1 - alpha_HW1)


def test_lossless_pixels_lie_on_white() -> None:
    np.testing.assert_array_equal(pixels_of(webp(pixels(RGB_HWC))), RGB_HWC)
    for data in (webp(pixels(RGBA_HWC)), webp(canvas(ALPHA, 8, 6), pixels(RGBA_HWC))):
        assert np.abs(pixels_of(data) - on_white(RGBA_HWC)).max() <= 1


def test_alpha_beside_lossy_pixels_counts() -> None:
    grey = Image.new("RGB", (8, 6), (100, 100, 100))
    alpha_HW = RGBA_HWC[..., 3]
    data = webp(canvas(ALPHA, 8, 6), chunk(b"ALPH", b"\0" + alpha_HW.tobytes()), encoded(grey, "WEBP")[12:])
    wanted_HWC = on_white(np.dstack([np.full((6, 8, 3), 100, np.uint8), alpha_HW]))
    assert np.abs(pixels_of(data) - wanted_HWC).max() <= 3


def test_the_first_frame_lies_on_white_at_its_place_whatever_the_background() -> None:
    other = frame(0, 0, RGB_HWC[::-1])
    for (left, top), blend, image_HWC in itertools.product(((0, 0), (4, 2), (2, 6)), (0, 1, 2, 3), (RGB_HWC, RGBA_HWC)):
        # whether the header tells of alpha makes no difference
        data = animation(ANIMATED | ALPHA * (top == 2), (14, 13), frame(left, top, image_HWC, blend), other)
        wanted_HWC = np.full((13, 14, 3), 255.0)
        rgba_HWC = image_HWC if image_HWC.shape[2] == 4 else np.dstack([image_HWC, np.full((6, 8), 255, np.uint8)])
        wanted_HWC[top : top + 6, left : left + 8] = on_white(rgba_HWC)
        found = decode(data, TINY)
        assert isinstance(found, RgbImage)
        assert found.header.frames == 2
        assert np.abs(found.pixels_HWC - wanted_HWC).max() <= 1


def test_the_first_exif_chunk_that_has_an_orientation_counts() -> None:
    six, one = (chunk(b"EXIF", exif_with_orientation(value).tobytes()) for value in (6, 1))
    empty = chunk(b"EXIF", b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
    for exif in (six + empty, empty + six, six + one):
        data = webp(canvas(EXIF, 8, 6), pixels(RGB_HWC), exif)
        np.testing.assert_array_equal(pixels_of(data), np.rot90(RGB_HWC, -1))


@pytest.mark.parametrize("num_bytes", range(4, 40, 3))
def test_a_first_frame_that_is_cut_inside_a_whole_file_is_not_filled_up(num_bytes: int) -> None:
    short = pixels(RGB_HWC)[8:-num_bytes]
    head = three_bytes(0, 0, 7, 5, 90) + b"\0"
    for data in (
        webp(chunk(b"VP8L", short)),
        animation(ANIMATED, (8, 6), chunk(b"ANMF", head + chunk(b"VP8L", short))),
    ):
        found = decode(data, TINY)
        assert isinstance(found, Rejection)
        assert found.reason in (Reason.CORRUPT, Reason.TRUNCATED)


def test_frames_and_later_headers_may_name_no_other_size() -> None:
    large = pixels(RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    for size in ((7, 5), (31, 23)):
        head = three_bytes(0, 0, *size, 90) + b"\0"
        found = decode(animation(ANIMATED, (8, 6), chunk(b"ANMF", head + large)), TINY)
        assert isinstance(found, Rejection)
    assert isinstance(decode(webp(canvas(0, 8, 6), large), TINY), Rejection)
    assert isinstance(decode(webp(large, canvas(0, 32, 24)), TINY), RgbImage)
    for data in (webp(canvas(0, 32, 24), large, canvas(0, 8, 6)), webp(large, canvas(0, 8, 6))):
        header = read_header(data, TINY)
        assert isinstance(header, Rejection)
        assert header.reason is Reason.CORRUPT
