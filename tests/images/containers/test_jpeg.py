"""JPEGs written bit by bit, of blocks of one colour -> the pixels that they were made of, or the reason why not."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iqa_core.images import decode, read_header
from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import exif_with_orientation

TINY = ImageLimits(min_side=1)
JFIF = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


@dataclass(frozen=True)
class Plane:
    """One component: a value per block of 8 x 8 samples, and how many blocks of it each unit holds."""

    blocks: NDArray[np.int64]
    across: int = 1
    down: int = 1
    id: int = 1


class Bits:
    """Huffman codes of 4 bits for the size of a difference, one of 1 bit (0) for "no more of this block"."""

    def __init__(self) -> None:
        self.text, self.last = "", [0, 0, 0, 0]

    def block(self, component: int, value: int, first: int, last: int) -> None:
        """The coefficients `first` to `last` of a block, all of which are 0 but the first."""
        if first == 0:
            self.mean(component, value)
        if last:
            self.text += "0"

    def mean(self, component: int, value: int) -> None:
        difference, self.last[component] = value - 128 - self.last[component], value - 128
        size = abs(difference).bit_length()
        self.text += f"{size:04b}"
        if size:
            self.text += f"{difference if difference > 0 else difference + 2**size - 1:0{size}b}"

    def drain(self) -> bytes:
        padded = self.text + "1" * (-len(self.text) % 8)
        self.text, self.last = "", [0, 0, 0, 0]
        return int("1" + padded, 2).to_bytes(len(padded) // 8 + 1, "big")[1:].replace(b"\xff", b"\xff\0")


def units(planes: Sequence[Plane], width: int, height: int) -> Iterator[list[tuple[int, int]]]:
    """(component, value) of each block, unit by unit; a scan of one component has units of one block."""
    if len(planes) == 1:
        used = planes[0].blocks[: -(-height // 8), : -(-width // 8)]
        yield from ([(0, int(value))] for value in used.flat)
        return
    rows, columns = planes[0].blocks.shape[0] // planes[0].down, planes[0].blocks.shape[1] // planes[0].across
    for row, column in itertools.product(range(rows), range(columns)):
        yield [
            (place, int(plane.blocks[row * plane.down + y, column * plane.across + x]))
            for place, plane in enumerate(planes)
            for y, x in itertools.product(range(plane.down), range(plane.across))
        ]


def jpeg(
    planes: Sequence[Plane],
    width: int,
    height: int,
    *,
    head: bytes = b"",
    process: int = 0xC0,
    bits: int = 8,
    restart: int = 0,
    apart: bool = False,
    end: bytes = b"\xff\xd9",
) -> bytes:
    """apart: a scan for each component. restart: units between two restart markers."""
    frame = struct.pack(">BHHB", bits, height, width, len(planes))
    frame += b"".join(struct.pack("BBB", plane.id, plane.across << 4 | plane.down, 0) for plane in planes)
    codes = bytes([0, 0, 0, 12, *[0] * 12, *range(12)])
    parts = [b"\xff\xd8", head, segment(0xDB, b"\0" + b"\x08" * 64), segment(process, frame)]
    parts += [segment(0xC4, b"\0" + codes), segment(0xC4, b"\x10" + bytes([1, *[0] * 15, 0]))]
    parts += [segment(0xDD, struct.pack(">H", restart))] if restart else []
    together = [[plane] for plane in planes] if apart else [list(planes)]
    scans = [(scanned, 0, 0 if process == 0xC2 else 63) for scanned in together]
    scans += [([plane], 1, 63) for plane in planes] if process == 0xC2 else []
    for scanned, first, last in scans:
        names = b"".join(bytes([plane.id, 0]) for plane in scanned)
        parts.append(segment(0xDA, bytes([len(scanned)]) + names + bytes([first, last, 0])))
        coded = Bits()
        for place, unit in enumerate(units(scanned, width, height)):
            if restart and place and place % restart == 0:
                parts += [coded.drain(), bytes([0xFF, 0xD0 + (place // restart - 1) % 8])]
            for component, value in unit:
                coded.block(component, value, first, last)
        parts.append(coded.drain())
    return b"".join([*parts, end])


def flat(seed: int, rows: int = 4, columns: int = 4) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns))


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    found = decode(data, TINY)
    assert isinstance(found, RgbImage), found
    return found.pixels_HWC


def enlarged(blocks: NDArray[np.int64], width: int, height: int) -> NDArray[np.int64]:
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def reason_of(data: bytes) -> Reason:
    found = decode(data, TINY)
    assert isinstance(found, Rejection)
    return found.reason


def test_grey_is_read_in_every_process_with_any_factors_and_restarts() -> None:
    grey = flat(1)
    expected_HW = enlarged(grey, 21, 13)
    for process, restart, (across, down) in itertools.product(
        (0xC0, 0xC1, 0xC2), (0, 1, 3), ((1, 1), (2, 2), (1, 2), (4, 1))
    ):
        data = jpeg([Plane(grey, across, down)], 21, 13, process=process, restart=restart)
        np.testing.assert_array_equal(pixels_of(data), np.dstack([expected_HW] * 3))


def as_rgb(y: NDArray[np.int64], cb: NDArray[np.int64], cr: NDArray[np.int64]) -> NDArray[np.float64]:
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], -1).clip(0, 255)


COLOURS = {
    "JFIF": (JFIF, (1, 2, 3), True),
    "JFIF wins over Adobe": (JFIF + adobe(0), (1, 2, 3), True),
    "Adobe YCbCr": (adobe(1), (1, 2, 3), True),
    "Adobe RGB": (adobe(0), (1, 2, 3), False),
    "no marker": (b"", (1, 2, 3), True),
    "no marker, other names": (b"", (0, 1, 2), True),
    "no marker, named R, G, B": (b"", (82, 71, 66), False),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_what_three_components_mean_is_told_by_markers_then_by_names(kind: str) -> None:
    head, ids, is_luma = COLOURS[kind]
    planes = [Plane(100 + flat(seed) // 4, id=id) for seed, id in enumerate(ids)]
    y, cb, cr = (enlarged(plane.blocks, 30, 27) for plane in planes)
    expected_HWC = as_rgb(y, cb, cr) if is_luma else np.stack([y, cb, cr], -1)
    for process, apart, restart in itertools.product((0xC0, 0xC2), (False, True), (0, 2)):
        data = jpeg(planes, 30, 27, head=head, process=process, apart=apart, restart=restart)
        assert np.abs(pixels_of(data) - expected_HWC).max() <= (1 if is_luma else 0)


@pytest.mark.parametrize(("across", "down"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_luma_has_its_place_whatever_the_subsampling(across: int, down: int) -> None:
    grey = flat(5)
    even = np.full((4 // down, 4 // across), 128)
    planes = [Plane(grey, across, down), Plane(even, id=2), Plane(even, id=3)]
    np.testing.assert_array_equal(pixels_of(jpeg(planes, 25, 31))[..., 1], enlarged(grey, 25, 31))


@pytest.mark.parametrize("head", [b"", adobe(0), adobe(2)], ids=["no marker", "Adobe CMYK", "Adobe YCCK"])
def test_four_components_are_ink_turned_round(head: bytes) -> None:
    """255 is no ink, as Adobe writes it and browsers read it, with or without Adobe's marker."""
    planes = [Plane(100 + flat(seed) // 4, id=seed + 1) for seed in range(4)]
    first, second, third, black = (enlarged(plane.blocks, 32, 32).astype(float) for plane in planes)
    paper_HWC = np.stack([first, second, third], -1)
    if head == adobe(2):  # YCbCr of the inks; libjpeg gives 255 less them
        paper_HWC = 255 - as_rgb(first, second, third)
    expected_HWC = paper_HWC * black[..., None] / 255
    assert np.abs(pixels_of(jpeg(planes, 32, 32, head=head)) - expected_HWC).max() <= 1.5


ONE = [Plane(flat(9))]
THREE = [Plane(flat(seed), id=seed) for seed in (1, 2, 3)]


@pytest.mark.parametrize(
    "data",
    [
        jpeg(ONE, 32, 32, bits=12),
        jpeg(ONE, 32, 32, bits=12, process=0xC1),
        *(jpeg(ONE, 32, 32, process=process) for process in (0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)),
        jpeg(ONE, 32, 32, head=segment(0xDE, struct.pack(">BHHB", 8, 32, 32, 1) + b"\1\x11\0")),
        jpeg([*THREE[:2]], 32, 32),
    ],
)
def test_what_has_no_decoder_is_unsupported(data: bytes) -> None:
    assert reason_of(data) is Reason.UNSUPPORTED_FORMAT


PADDINGS = [b"", bytes(4000), b"\xff" * 4000, b" " * 4000, bytes(range(216)) * 20, b"\xff\0" * 3000, b"\0" * 2_200_001]


@pytest.mark.parametrize("planes", [ONE, THREE], ids=["grey", "colour"])
def test_a_scan_without_its_end_marker_is_truncated_whatever_fills_the_file(planes: list[Plane]) -> None:
    for process, apart in itertools.product((0xC0, 0xC2), (False, True)):
        whole = jpeg(planes, 32, 32, process=process, apart=apart, end=b"")
        scan = whole.rindex(b"\xff\xda") + 10
        for length, padding in itertools.product((len(whole), (scan + len(whole)) // 2, scan), PADDINGS):
            assert reason_of(whole[:length] + padding) is Reason.TRUNCATED, (process, apart, length, padding[:9])


def test_a_truncated_jpeg_still_has_its_size() -> None:
    found = decode(jpeg(ONE, 30, 20, end=bytes(9)), TINY)
    assert isinstance(found, Rejection)
    assert found.header is not None
    assert (found.header.width, found.header.height) == (30, 20)


@pytest.mark.parametrize("hole", [0, 1, 7000, 2**20])
def test_the_end_of_another_picture_does_not_count(hole: int) -> None:
    """Two pictures in one file (MPO), the first of them never fully written."""
    other = jpeg(THREE, 32, 32)
    assert reason_of(jpeg(THREE, 32, 32, end=bytes(hole)) + other) is Reason.TRUNCATED


def test_the_end_marker_is_found_at_any_place_of_a_large_scan() -> None:
    blocks = np.resize(np.array([[0, 255], [255, 0]]), (16, 16))
    for spare in (0, 1):
        head = segment(0xFE, bytes(spare))
        data = jpeg([Plane(blocks)], 128, 128, head=head, end=b"\xff\xd9" + bytes(2**20))
        np.testing.assert_array_equal(pixels_of(data)[..., 0], enlarged(blocks, 128, 128))


def test_scans_without_end_are_refused_before_the_decoder_draws_each() -> None:
    """2,000 of them took 20 s of 3000 x 3000 pixels, in a file of 100 kB."""
    buffer = BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    assert data.count(b"\xff\xda") == 10
    last = data[data.rindex(b"\xff\xda") : -2]
    most = data[:-2] + 90 * last + data[-2:]
    assert isinstance(decode(most, TINY), RgbImage)
    assert reason_of(data[:-2] + 91 * last + data[-2:]) is Reason.UNSUPPORTED_FORMAT
    assert isinstance(decode(most + 91 * last, TINY), RgbImage)  # behind the end there may be anything


def test_of_large_pictures_fewer_scans_are_taken() -> None:
    """All scans of one together go over 2 billion pixels at most: 100 million took 40 ms each time."""
    for side, most in ((1_000, 100), (6_000, 55), (10_000, 20)):
        head = jpeg(ONE, side, side, process=0xC2)
        head, scan = head[: head.rindex(b"\xff\xda")], head[head.rindex(b"\xff\xda") : -2]
        for num_scans, is_taken in ((most, True), (most + 1, False)):
            found = read_header(head + (num_scans - head.count(b"\xff\xda")) * scan + b"\xff\xd9", TINY)
            assert isinstance(found, ImageHeader) == is_taken, (side, num_scans, found)


def test_markers_inside_metadata_are_not_the_picture() -> None:
    thumbnail = jpeg(ONE, 8, 8)
    head = segment(0xE1, b"thumbnail" + thumbnail) + segment(0xFE, b"\xff\xd9\xff\xda")
    for spare in (b"", b"\xff\xd8", b"\xff\xff\xff", b"junk"):
        np.testing.assert_array_equal(pixels_of(jpeg(ONE, 32, 32, head=head + spare))[::8, ::8, 0], flat(9))


@pytest.mark.parametrize(
    ("orientations", "counts"),
    [((6, None), 6), ((6, 1), 6), ((None, 6), 6), ((1, 6), 1), ((0, 8), 8), ((9, None), 1), ((None, None), 1)],
)
def test_the_first_exif_block_that_has_an_orientation_counts(orientations: tuple[int | None, ...], counts: int) -> None:
    empty = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
    blocks = (empty if value is None else exif_with_orientation(value).tobytes() for value in orientations)
    head = b"".join(segment(0xE1, block) for block in blocks)
    stored_HW = enlarged(flat(9), 32, 24)
    expected_HW = {1: stored_HW, 6: np.rot90(stored_HW, -1), 8: np.rot90(stored_HW)}[counts]
    np.testing.assert_array_equal(pixels_of(jpeg(ONE, 32, 24, head=head))[..., 0], expected_HW)
