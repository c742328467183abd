"""Headers of AV1 written bit by bit -> the size of the frames behind them, and how many there are."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from PIL import Image

from iqa_core.images.containers.av1 import coded

SEQUENCE, DELIMITER, FRAME_HEADER, FRAME, PADDING = 1, 2, 3, 6, 15


def bits(*fields: tuple[int, int]) -> bytes:
    """Values, each with the number of its bits; filled up with a one and zeros, as the format does."""
    text = "".join(f"{value:0{count}b}" for value, count in fields) + "1"
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def unit(kind: int, body: bytes) -> bytes:
    size, rest = len(body) & 127, len(body) >> 7
    return bytes([kind << 3 | 2]) + (bytes([size | 128, rest]) if rest else bytes([size])) + body


def still(width: int, height: int, *tail: tuple[int, int], profile: int = 0) -> bytes:
    """A sequence header of one still picture, reduced."""
    size = ((15, 4), (15, 4), (width - 1, 16), (height - 1, 16))
    return unit(SEQUENCE, bits((profile, 3), (1, 1), (1, 1), (0, 5), *size, (0, 6), *(tail or ((0, 2),))))


def video(width: int, height: int, *, timed: bool = False, numbered: bool = False) -> bytes:
    """A sequence header with frames that may say their own size, as long as it can be where it is timed."""
    timing: tuple[tuple[int, int], ...] = ((0, 1), (0, 1), (0, 5), (0, 12), (0, 5))
    if timed:
        model = ((9, 5), (1, 32), (9, 5), (6, 5))
        timing = ((1, 1), (1, 32), (1, 32), (0, 1), (1, 1), *model, (1, 1), (31, 5))
        timing += 32 * ((0, 12), (8, 5), (0, 1), (1, 1), (0, 10), (0, 10), (0, 1), (1, 1), (3, 4))
    ids = ((1, 1), (1, 4), (2, 3)) if numbered else ((0, 1),)
    size = ((11, 4), (11, 4), (width - 1, 12), (height - 1, 12))
    tools = ((0, 4), (1, 1), (0, 2), (1, 1), (1, 1), (6, 3))
    return unit(SEQUENCE, bits((0, 3), (0, 2), *timing, *size, *ids, (0, 3), *tools, (0, 3), (0, 2)))


def frame(*, own_size: bool, timed: bool = False, numbered: bool = False, kind: int = 0, shown: int = 1) -> bytes:
    fields = [(0, 1), (kind, 2), (shown, 1)]
    fields += [(0, 7)] * (timed and shown == 1) + [(0, 1)] * (not shown)
    fields += [(0, 1)] * (kind != 3 and not (kind == 0 and shown))
    fields += [(0, 1), (1, 1), (0, 1)] + [(5, 6)] * numbered
    return unit(FRAME, bits(*fields, *([(int(own_size), 1)] if kind != 3 else [])))


def test_a_still_picture_has_the_size_of_its_sequence() -> None:
    data = unit(DELIMITER, b"") + still(26_000, 300) + unit(FRAME, bytes(200)) + unit(PADDING, bytes(9))
    found = coded(memoryview(data))
    assert found is not None
    assert (found.width, found.height, found.num_frames) == (26_000, 300, 1)
    assert (found.sample_bytes, found.planes) == (1, 1.5)


@pytest.mark.parametrize(
    ("profile", "tail", "expected"),
    [
        (0, ((0, 1), (1, 1)), (1, 1.0)),
        (1, ((1, 1),), (2, 3.0)),
        (2, ((0, 1), (0, 1)), (1, 2.0)),
        (2, ((3, 2), (0, 1)), (2, 3.0)),
    ],
)
def test_colours_and_bits_tell_what_planes_take(
    profile: int, tail: tuple[tuple[int, int], ...], expected: tuple[int, float]
) -> None:
    found = coded(memoryview(still(9, 9, *tail, profile=profile) + unit(FRAME_HEADER, b"")))
    assert found is not None
    assert (found.sample_bytes, found.planes) == expected


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize(("kind", "shown"), [(0, 1), (0, 0), (1, 1), (1, 0), (2, 1)])
def test_a_frame_that_says_its_own_size_counts_as_the_largest(
    timed: bool, numbered: bool, kind: int, shown: int
) -> None:
    head = video(64, 48, timed=timed, numbered=numbered)
    for own_size, size in ((False, (64, 48)), (True, (4_096, 4_096))):
        one = frame(own_size=own_size, timed=timed, numbered=numbered, kind=kind, shown=shown)
        found = coded(memoryview(head + one + one))
        assert found is not None
        assert (found.width, found.height, found.num_frames) == (*size, 2)


def test_a_switch_frame_says_its_own_size() -> None:
    found = coded(memoryview(video(64, 48) + frame(own_size=True, kind=3)))
    assert found is not None
    assert found.num_pixels == 4_096**2


def test_the_largest_sequence_counts_and_what_cannot_be_decoded_does_not() -> None:
    one = unit(FRAME, bytes(4))
    found = coded(memoryview(one + still(64, 64) + one + still(8_000, 16) + one))
    assert found is not None
    assert (found.width, found.height, found.num_frames) == (8_000, 64, 2)
    for data in (b"", one, still(64, 64), b"\x0a\xff\xff\xff", bytes(40), b"\xff" * 40):
        assert coded(memoryview(data)) is None


@pytest.mark.parametrize(
    ("mode", "subsampling", "planes"), [("L", "4:0:0", 1), ("RGB", "4:2:0", 1.5), ("RGB", "4:4:4", 3)]
)
def test_what_an_encoder_writes_is_read(mode: str, subsampling: str, planes: float) -> None:
    buffer = BytesIO()
    Image.new(mode, (70, 50)).save(buffer, "AVIF", subsampling=subsampling)
    data = buffer.getvalue()
    (size,) = struct.unpack_from(">I", data, data.index(b"mdat") - 4)
    at = data.index(b"mdat") + 4
    found = coded(memoryview(data)[at : at + size - 8])
    assert found is not None
    assert (found.width, found.height, found.num_frames, found.sample_bytes, found.planes) == (70, 50, 1, 1, planes)
