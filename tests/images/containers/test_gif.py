"""GIFs written code by code, in every layout -> the pixels that they were made of, on white, or the reason why not."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from iqa_core.images import decode, read_header
from iqa_core.records import ImageLimits, Reason, Rejection, RgbImage

TINY = ImageLimits(min_side=1)
RNG = np.random.default_rng(2)
COLOURS = RNG.integers(0, 255, (256, 3), dtype=np.uint8)
RAMP = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
OTHER = COLOURS[::-1].copy()


def coded(indices_HW: NDArray[np.int64], bits: int, *, interlace: bool = False, end: bool = True) -> bytes:
    """LZW of single pixels: a clear code comes before codes could grow."""
    height = len(indices_HW)
    order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
    pixels = (indices_HW[order] if interlace else indices_HW).reshape(-1)
    size, clear = max(2, bits), 1 << max(2, bits)
    codes = []
    for place, pixel in enumerate(pixels):
        codes += [clear] if place % (clear - 2) == 0 else []
        codes.append(int(pixel))
    codes += [clear + 1] if end else []
    value = sum(code << place * (size + 1) for place, code in enumerate(codes))
    body = value.to_bytes((len(codes) * (size + 1) + 7) // 8, "little")
    blocks = (body[at : at + 255] for at in range(0, len(body), 255))
    return bytes([size]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def control(key: int | None, disposal: int = 0) -> bytes:
    return b"!\xf9\4" + struct.pack("<BHB", disposal << 2 | (key is not None), 9, key or 0) + b"\0"


def frame(
    indices_HW: NDArray[np.int64],
    bits: int,
    place: tuple[int, int] = (0, 0),
    *,
    colours: NDArray[np.uint8] | None = None,
    interlace: bool = False,
    end: bool = True,
) -> bytes:
    """colours: a table of its own, of 2 to the power of `bits` entries."""
    height, width = indices_HW.shape
    flags = interlace << 6 | (0 if colours is None else 0x80 | bits - 1)
    local = b"" if colours is None else colours[: 2**bits].tobytes()
    head = struct.pack("<BHHHHB", 0x2C, *place, width, height, flags)
    return head + local + coded(indices_HW, bits, interlace=interlace, end=end)


def gif(size: tuple[int, int], *blocks: bytes, bits: int = 0, colours: NDArray[np.uint8] = COLOURS) -> bytes:
    """bits: of the table for all frames; 0 for none. Its last entry is the background, which nobody draws."""
    head = struct.pack("<6sHHBBB", b"GIF89a", *size, 0x80 | bits - 1 if bits else 0, max(0, 2**bits - 1), 0)
    return head + (colours[: 2**bits].tobytes() if bits else b"") + b"".join(blocks) + b";"


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    found = decode(data, TINY)
    assert isinstance(found, RgbImage), found
    assert read_header(data, TINY) == found.header
    return found.pixels_HWC


def reason_of(data: bytes) -> Reason:
    found = decode(data, TINY)
    assert isinstance(found, Rejection), found.header
    return found.reason


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("table", ["global", "local", "both"])
@pytest.mark.parametrize("colours", [COLOURS, RAMP], ids=["colours", "ramp"])
def test_the_first_frame_lies_on_white_at_its_place(bits: int, table: str, colours: NDArray[np.uint8]) -> None:
    indices_HW = RNG.integers(0, 2**bits, (9, 7))
    own = None if table == "global" else colours
    whole = {"global": (bits, colours), "local": (0, colours), "both": (3, OTHER)}[table]
    for place, interlace, key in itertools.product(((0, 0), (5, 2)), (False, True), (None, 0, 2**bits - 1)):
        # disposal 2 and 3 take the frame away when it has been seen
        first = control(key, disposal=2 + interlace) + frame(indices_HW, bits, place, colours=own, interlace=interlace)
        second = control(None) + frame(indices_HW * 0, bits, colours=own)
        inner_HWC = np.where((indices_HW == key)[..., None], 255, colours[indices_HW])
        for size in ((7, 9), (12, 11), (13, 20)):
            wanted_HWC = np.full((max(size[1], 9 + place[1]), max(size[0], 7 + place[0]), 3), 255)
            wanted_HWC[place[1] : place[1] + 9, place[0] : place[0] + 7] = inner_HWC
            data = gif(size, first, second, bits=whole[0], colours=whole[1])
            np.testing.assert_array_equal(pixels_of(data), wanted_HWC)


def test_without_a_table_there_are_no_colours() -> None:
    assert reason_of(gif((7, 9), frame(RNG.integers(0, 4, (9, 7)), 2))) is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("colours", [COLOURS, RAMP], ids=["colours", "ramp"])
def test_an_index_without_a_colour_is_corrupt_unless_it_is_the_transparent_one(colours: NDArray[np.uint8]) -> None:
    indices_HW = np.array([[0, 3, 6, 2]])
    assert reason_of(gif((4, 1), frame(indices_HW, 3), bits=2, colours=colours)) is Reason.CORRUPT
    data = gif((4, 1), control(6), frame(indices_HW, 3), bits=2, colours=colours)
    wanted_WC = [*colours[[0, 3]].tolist(), [255] * 3, colours[2].tolist()]
    assert pixels_of(data)[0].tolist() == wanted_WC


def test_the_last_control_before_the_first_frame_counts() -> None:
    indices_HW = RNG.integers(0, 4, (3, 5))
    data = gif((5, 3), control(1), control(2), frame(indices_HW, 2), control(3), frame(indices_HW, 2), bits=2)
    wanted_HWC = np.where((indices_HW == 2)[..., None], 255, COLOURS[indices_HW])
    np.testing.assert_array_equal(pixels_of(data), wanted_HWC)


@pytest.mark.parametrize("missing", [1, 8, 30])
def test_a_frame_whose_codes_end_early_is_not_filled_up(missing: int) -> None:
    indices_HW = RNG.integers(0, 4, (9, 7))
    whole = struct.pack("<BHHHHB", 0x2C, 0, 0, 7, 9, 0)
    for end in (False, True):
        short = coded(indices_HW.reshape(1, -1)[:, :-missing], 2, end=end)
        for padding in (b"", bytes(3000)):
            assert isinstance(decode(gif((7, 9), whole + short, padding, bits=2), TINY), Rejection)


def test_a_frame_without_pixels_is_corrupt() -> None:
    empty = struct.pack("<BHHHHB", 0x2C, 0, 0, 0, 5, 0) + coded(np.zeros((1, 1), np.int64), 2)
    assert reason_of(gif((7, 9), empty, bits=2)) is Reason.CORRUPT
