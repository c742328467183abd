"""BMPs written by hand, in every layout that there is -> the pixels that they were made of, or the reason why not."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from iqa_core.images import decode, read_header
from iqa_core.records import ImageLimits, Reason, Rejection, RgbImage

TINY = ImageLimits(min_side=1)
WIDTH, HEIGHT = 13, 5
RNG = np.random.default_rng(0)
RGB_HWC = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
HEADERS = (40, 52, 56, 64, 108, 124)


def bmp(
    rows: NDArray[np.uint8] | bytes,
    bits: int,
    *,
    header: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    colours: int = 0,
    width: int = WIDTH,
    height: int = HEIGHT,
    top_down: bool = False,
    pixels_at: int | None = None,
    data_bytes: int | None = None,
) -> bytes:
    """rows: bytes of each row from the top, unpadded, or coded data as it is."""
    if isinstance(rows, bytes):
        body = rows
    else:
        padded = [row.tobytes().ljust(-(-len(row.tobytes()) // 4) * 4, b"\0") for row in rows]
        body = b"".join(padded if top_down else reversed(padded))
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        signed = -height if top_down else height
        given = len(body) if data_bytes is None else data_bytes
        head = struct.pack("<IiiHHIIiiII", header, width, signed, 1, bits, compression, given, 0, 0, colours, 0)
        fields = b"".join(struct.pack("<I", mask) for mask in masks)
        head = head + fields if header == 40 else (head + fields).ljust(header, b"\0")
    offset = 14 + len(head) + len(palette)
    claimed = offset if pixels_at is None else pixels_at
    return struct.pack("<2sIIIHH", b"BM", offset + len(body), 0, claimed, 0, 0)[:14] + head + palette + body


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    found = decode(data, TINY)
    assert isinstance(found, RgbImage), found
    assert read_header(data, TINY) == found.header
    return found.pixels_HWC


def reason_of(data: bytes) -> Reason:
    found = decode(data, TINY)
    assert isinstance(found, Rejection)
    assert read_header(data, TINY) in (found, found.header)
    return found.reason


def packed(indices_HW: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    planes = np.unpackbits(indices_HW[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(planes.reshape(len(indices_HW), -1), axis=-1)


def table(colours: NDArray[np.uint8], entry_bytes: int) -> bytes:
    return b"".join(bytes(colour[::-1]).ljust(entry_bytes, b"\0") for colour in colours)


PALETTES = {
    "colours": lambda count: RNG.integers(0, 256, (count, 3), dtype=np.uint8),
    "0, 1, 2, ...": lambda count: np.arange(count, dtype=np.uint8)[:, None].repeat(3, 1),
    "black and white": lambda count: np.array([[0] * 3, [255] * 3] * (count // 2), dtype=np.uint8),
    "white and black": lambda count: np.array([[255] * 3, [0] * 3] * (count // 2), dtype=np.uint8),
}


@pytest.mark.parametrize("kind", PALETTES)
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes_are_looked_up_whatever_they_hold(bits: int, kind: str) -> None:
    for count, header, top_down in itertools.product({2, 2**bits, 2**bits - 2} - {0}, (12, *HEADERS), (False, True)):
        if header == 12 and (top_down or count < 2**bits):
            continue
        colours = PALETTES[kind](count)
        indices_HW = RNG.integers(0, count, (HEIGHT, WIDTH), dtype=np.uint8)
        palette = table(colours, 3 if header == 12 else 4)
        data = bmp(packed(indices_HW, bits), bits, header=header, palette=palette, colours=count, top_down=top_down)
        np.testing.assert_array_equal(pixels_of(data), colours[indices_HW])


def test_a_palette_may_be_shorter_or_longer_than_it_says() -> None:
    colours = PALETTES["colours"](256)
    indices_HW = RNG.integers(0, 40, (HEIGHT, WIDTH), dtype=np.uint8)
    for given, stored in ((0, 40), (200, 40), (300, 300), (256, 256)):
        palette = table(np.resize(colours, (stored, 3)), 4)
        data = bmp(indices_HW, 8, palette=palette, colours=given)
        np.testing.assert_array_equal(pixels_of(data), colours[indices_HW])


@pytest.mark.parametrize("pixels_at", [0, 54])
def test_a_palette_that_the_offset_forgets_is_still_there(pixels_at: int) -> None:
    colours = PALETTES["colours"](16)
    indices_HW = RNG.integers(0, 16, (HEIGHT, WIDTH), dtype=np.uint8)
    data = bmp(packed(indices_HW, 4), 4, palette=table(colours, 4), pixels_at=pixels_at)
    np.testing.assert_array_equal(pixels_of(data), colours[indices_HW])


def test_an_index_without_a_colour_is_corrupt() -> None:
    indices_HW = np.full((HEIGHT, WIDTH), 6, dtype=np.uint8)
    for bits in (4, 8):
        for colours, is_sound in ((7, True), (6, False)):
            data = bmp(packed(indices_HW, bits), bits, palette=table(PALETTES["colours"](colours), 4), colours=colours)
            assert isinstance(decode(data, TINY), RgbImage if is_sound else Rejection)


@pytest.mark.parametrize("header", [12, *HEADERS])
@pytest.mark.parametrize("top_down", [False, True])
def test_colour_without_masks_is_blue_green_red_and_the_fourth_byte_is_nothing(header: int, top_down: bool) -> None:
    if header == 12 and top_down:
        pytest.skip("OS/2's first header has no sign")
    for alpha in (0, 7, 255):
        bgrx_HWC = np.dstack([RGB_HWC[..., ::-1], np.full((HEIGHT, WIDTH), alpha, dtype=np.uint8)])
        for bits, rows in ((24, bgrx_HWC[..., :3]), (32, bgrx_HWC)):
            data = bmp(np.ascontiguousarray(rows).reshape(HEIGHT, -1), bits, header=header, top_down=top_down)
            np.testing.assert_array_equal(pixels_of(data), RGB_HWC)


MASKS_32 = [
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF << 24, 0xFF0000, 0xFF00, 0xFF),
]


@pytest.mark.parametrize("header", [56, 108, 124])
@pytest.mark.parametrize("masks", MASKS_32)
@pytest.mark.parametrize("alphas", ["0 everywhere", "255 everywhere", "0 but for one", "any"])
def test_alpha_counts_unless_it_is_0_everywhere(header: int, masks: tuple[int, ...], alphas: str) -> None:
    alpha_HW = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    alpha_HW += np.uint8(255 * (alphas == "255 everywhere"))
    alpha_HW[2, 3] += np.uint8(90 * (alphas == "0 but for one"))
    alpha_HW = RNG.integers(0, 256, alpha_HW.shape, dtype=np.uint8) if alphas == "any" else alpha_HW
    values_HW = np.zeros((HEIGHT, WIDTH), dtype="<u4")
    for mask, plane_HW in zip(masks, (*np.moveaxis(RGB_HWC, -1, 0), alpha_HW), strict=True):
        values_HW |= plane_HW.astype("<u4") << ((mask & -mask).bit_length() - 1)
    data = bmp(values_HW.view(np.uint8), 32, header=header, compression=3, masks=masks)
    part_HW1 = alpha_HW[..., None] / 255 if alphas != "0 everywhere" else 1.0
    assert np.abs(pixels_of(data) - (RGB_HWC * part_HW1 + 255 * (1 - part_HW1))).max() <= 1


@pytest.mark.parametrize("header", [40, *HEADERS[1:3], 108, 124])
def test_16_bits_are_5_5_5_or_5_6_5(header: int) -> None:
    values_HW = RNG.integers(0, 2**15, (HEIGHT, WIDTH)).astype("<u2")
    for masks, bits in (((0x7C00, 0x3E0, 0x1F), (5, 5, 5)), ((0xF800, 0x7E0, 0x1F), (5, 6, 5))):
        shifts = (bits[1] + bits[2], bits[2], 0)
        planes = [(values_HW >> shift & 2**n - 1) * 255 // (2**n - 1) for shift, n in zip(shifts, bits, strict=True)]
        files = [
            bmp(values_HW.view(np.uint8), 16, header=header, compression=3, masks=(*masks, 0)[: 3 + (header > 52)])
        ]
        files += [bmp(values_HW.view(np.uint8), 16, header=header)] if bits == (5, 5, 5) else []
        for data in files:
            np.testing.assert_array_equal(pixels_of(data), np.dstack(planes))


def test_alpha_of_16_bits_is_refused_where_it_makes_a_difference() -> None:
    values_HW = RNG.integers(0, 2**15, (HEIGHT, WIDTH)).astype("<u2")
    for alpha, is_plain in ((values_HW * 0, True), (values_HW * 0 + 0x8000, True), (values_HW << 15, False)):
        rows = (values_HW | alpha).view(np.uint8)
        data = bmp(rows, 16, header=108, compression=3, masks=(0x7C00, 0x3E0, 0x1F, 0x8000))
        if is_plain:
            assert pixels_of(data).shape == (HEIGHT, WIDTH, 3)
        else:
            assert reason_of(data) is Reason.UNSUPPORTED_FORMAT


def runs(indices_HW: NDArray[np.uint8], bits: int, *, literal: bool, spare: int = 0) -> bytes:
    """Rows from the bottom, in runs of one or in one literal run each; `spare` pixels more than a row has."""
    coded = b""
    for row in indices_HW[::-1]:
        values = [*row.tolist(), *[1] * spare]
        if literal:
            nibbles = [*values, 0]
            body = (
                bytes(values)
                if bits == 8
                else bytes(a << 4 | b for a, b in zip(nibbles[::2], nibbles[1::2], strict=False))
            )
            coded += bytes([0, len(values)]) + body + b"\0" * (len(body) % 2) + b"\0\0"
        else:
            coded += b"".join(bytes([1, value if bits == 8 else value << 4]) for value in values) + b"\0\0"
    return coded[:-2] + b"\0\1"


RLE = [(8, 1), (4, 2)]
RLE_COLOURS = PALETTES["colours"](16)
RLE_HW = RNG.integers(0, 16, (HEIGHT, WIDTH), dtype=np.uint8)


@pytest.mark.parametrize(("bits", "compression"), RLE)
def test_runs_are_expanded(bits: int, compression: int) -> None:
    for literal, spare, offset in itertools.product((False, True), (0, 3), (0, 1)):
        coded = runs(RLE_HW, bits, literal=literal, spare=spare)
        palette = table(RLE_COLOURS, 4) + bytes(offset)  # pixels may begin at an odd byte
        for data_bytes in (None, 0):
            data = bmp(coded, bits, compression=compression, palette=palette, colours=16, data_bytes=data_bytes)
            np.testing.assert_array_equal(pixels_of(data), RLE_COLOURS[RLE_HW])


@pytest.mark.parametrize(("bits", "compression"), RLE)
def test_runs_are_expanded_over_all_pieces(bits: int, compression: int) -> None:
    """Codes are read by 64 KiB; literal ones lie across the seams, and hold zeros that look like codes."""
    indices_HW = RNG.integers(0, 3, (1500, 203), dtype=np.uint8)
    literal = [runs(indices_HW[y : y + 1], bits, literal=y % 2 == 0)[:-2] for y in range(1500)]
    data = bmp(
        b"\0\0".join(literal[::-1]) + b"\0\1",
        bits,
        compression=compression,
        palette=table(RLE_COLOURS, 4),
        colours=16,
    )
    data = data[:18] + struct.pack("<ii", 203, 1500) + data[26:]
    np.testing.assert_array_equal(pixels_of(data), RLE_COLOURS[indices_HW])


def test_a_run_of_4_bits_has_two_colours_in_turn() -> None:
    coded = (bytes([WIDTH, 0x3A]) + b"\0\0") * HEIGHT + b"\0\1"
    expected = np.resize(RLE_COLOURS[[3, 10]], (WIDTH, 3))
    data = bmp(coded, 4, compression=2, palette=table(RLE_COLOURS, 4), colours=16)
    np.testing.assert_array_equal(pixels_of(data), np.stack([expected] * HEIGHT))


@pytest.mark.parametrize(("bits", "compression"), RLE)
@pytest.mark.parametrize(
    "gap", [b"\0\1", b"\0\2\0\1", b"\0\2\1\0", b"\0\0", b"\0\0\0\0"], ids=["end", "up", "right", "row", "two rows"]
)
def test_pixels_that_are_left_out_have_no_agreed_colour(bits: int, compression: int, gap: bytes) -> None:
    coded = bytes([WIDTH - 2, 0x11]) + gap + runs(RLE_HW, bits, literal=False)
    options = {"compression": compression, "palette": table(RLE_COLOURS, 4), "colours": 16}
    assert reason_of(bmp(coded, bits, **options)) is Reason.UNSUPPORTED_FORMAT  # type: ignore[arg-type]
    whole = runs(RLE_HW, bits, literal=True)
    for num_bytes in range(len(whole) - 3):  # behind the last pixel stand a byte of padding and the end code
        assert reason_of(bmp(whole[:num_bytes], bits, **options)) is Reason.TRUNCATED  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bits", "compression", "header"),
    [(0, 4, 40), (0, 5, 40), (24, 4, 124), (1, 3, 64), (24, 4, 64), (8, 3, 40), (2, 0, 40), (64, 0, 40), (32, 6, 40)],
    ids=["JPEG", "PNG", "JPEG in 24", "Huffman", "RLE24", "masks of 8", "2 bits", "64 bits", "alpha masks"],
)
def test_what_is_not_read_is_unsupported(bits: int, compression: int, header: int) -> None:
    assert reason_of(bmp(bytes(4000), bits, compression=compression, header=header)) is Reason.UNSUPPORTED_FORMAT


def test_masks_that_pillow_does_not_know_are_unsupported() -> None:
    rows = RNG.integers(0, 256, (HEIGHT, WIDTH * 2), dtype=np.uint8)
    for masks in ((0xF00, 0xF0, 0xF), (0x1F, 0x7E0, 0xF800)):
        assert reason_of(bmp(rows, 16, compression=3, masks=masks)) is Reason.UNSUPPORTED_FORMAT


def test_a_giant_in_runs_is_refused_before_it_is_expanded() -> None:
    data = bmp(b"\0\1", 8, compression=1, width=60_000, height=60_000, palette=bytes(1024))
    assert reason_of(data) is Reason.TOO_LARGE
