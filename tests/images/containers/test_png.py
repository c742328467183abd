"""PNGs and animated PNGs written sample by sample, in every kind -> the pixels they were made of, or the reason."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from iqa_core.images import decode, read_header
from iqa_core.records import ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import exif_with_orientation, png_chunk

TINY = ImageLimits(min_side=1)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
KINDS += [(4, 8), (4, 16), (6, 8), (6, 16)]
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""Adam7: first column and row, step across and down."""
PALETTE = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)


def packed_rows(samples_HWC: NDArray[np.int64], bits: int, filtering: int) -> bytes:
    """Each row with its filter: 0 none, 1 what is left of a byte is taken from it."""
    step = max(1, samples_HWC.shape[2] * bits // 8)
    coded = b""
    for row in samples_HWC.reshape(len(samples_HWC), -1):
        if bits == 16:
            values = np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
        else:
            values = np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :])
        if filtering:
            values = values - np.concatenate([np.zeros(step, np.uint8), values])[: len(values)]
        coded += bytes([filtering]) + values.tobytes()
    return coded


def compressed(samples_HWC: NDArray[np.int64], bits: int, interlace: bool = False, filtering: int = 0) -> bytes:
    if not interlace:
        return zlib.compress(packed_rows(samples_HWC, bits, filtering))
    passes = (samples_HWC[y::down, x::across] for x, y, across, down in PASSES)
    return zlib.compress(b"".join(packed_rows(part, bits, filtering) for part in passes if part.size))


def header(samples_HWC: NDArray[np.int64], bits: int, colour: int, interlace: bool = False) -> bytes:
    height, width = samples_HWC.shape[:2]
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def samples(colour: int, bits: int, width: int, height: int) -> NDArray[np.int64]:
    return np.random.default_rng(bits).integers(0, 2**bits, (height, width, CHANNELS[colour]))


def tables(colour: int, bits: int, key: bytes | None) -> bytes:
    palette = png_chunk(b"PLTE", PALETTE[: 2**bits].tobytes()) if colour == 3 else b""
    return palette + (b"" if key is None else png_chunk(b"tRNS", key))


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    found = decode(data, TINY)
    assert isinstance(found, RgbImage), found
    assert read_header(data, TINY) == found.header
    return found.pixels_HWC


def expected(samples_HWC: NDArray[np.int64], colour: int, bits: int, clear_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """On white; of 16 bits grey is rounded, of all else the high byte counts."""
    if colour == 3:
        rgb_HWC = PALETTE[samples_HWC[..., 0]].astype(np.int64)
    else:
        grey = (samples_HWC + 128) // 257 if colour == 0 else samples_HWC >> 8
        scaled_HWC = grey if bits == 16 else samples_HWC * 255 // (2**bits - 1)
        rgb_HWC = scaled_HWC[..., :3] if colour in (2, 6) else scaled_HWC[..., :1].repeat(3, -1)
        if colour in (4, 6):
            alpha_HW1 = scaled_HWC[..., -1:]
            rgb_HWC = np.rint((rgb_HWC * alpha_HW1 + 255 * (255 - alpha_HW1)) / 255).astype(np.int64)
    return np.where(clear_HW[..., None], 255, rgb_HWC).astype(np.uint8)


SIZES = [(1, 1), (3, 2), (5, 9), (13, 11)]


@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_every_kind_is_read_as_it_was_written(colour: int, bits: int) -> None:
    for (width, height), interlace, filtering in itertools.product(SIZES, (False, True), (0, 1)):
        image_HWC = samples(colour, bits, width, height)
        pixels = compressed(image_HWC, bits, interlace, filtering)
        idat = png_chunk(b"IDAT", pixels[:9]) + png_chunk(b"IDAT", b"") + png_chunk(b"IDAT", pixels[9:])
        data = png(header(image_HWC, bits, colour, interlace), tables(colour, bits, None), idat)
        wanted_HWC = expected(image_HWC, colour, bits, np.zeros((height, width), bool))
        assert np.abs(pixels_of(data).astype(int) - wanted_HWC).max() <= (colour in (4, 6))


@pytest.mark.parametrize(("colour", "bits"), [kind for kind in KINDS if kind[0] in (0, 2)])
@pytest.mark.parametrize("spare", [0, 0xFF00], ids=["plain", "bits above those of a sample"])
def test_the_transparent_colour_is_compared_in_all_its_bits(colour: int, bits: int, spare: int) -> None:
    for interlace, near in itertools.product((False, True), (0, 1, 256)):
        image_HWC = samples(colour, bits, 13, 11)
        key = image_HWC[5, 7]
        image_HWC[3, 2:9] = key ^ (near & (2**bits - 1))  # in the low byte, in the high one, or the key itself
        body = b"".join(struct.pack(">H", value | (spare if bits <= 8 else 0)) for value in key)
        data = png(
            header(image_HWC, bits, colour, interlace),
            tables(colour, bits, body),
            png_chunk(b"IDAT", compressed(image_HWC, bits, interlace)),
        )
        wanted_HWC = expected(image_HWC, colour, bits, (image_HWC == key).all(-1))
        np.testing.assert_array_equal(pixels_of(data), wanted_HWC)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_entries_have_their_alpha(bits: int) -> None:
    image_HWC = samples(3, bits, 13, 11)
    for alphas in ([0], [255, 0], [0, 128], list(range(2**bits))):
        alpha_HW1 = np.array(alphas + [255] * 256)[image_HWC]
        for interlace in (False, True):
            pixels = png_chunk(b"IDAT", compressed(image_HWC, bits, interlace))
            data = png(header(image_HWC, bits, 3, interlace), tables(3, bits, bytes(alphas)), pixels)
            wanted_HWC = (PALETTE[image_HWC[..., 0]] * alpha_HW1 + 255 * (255 - alpha_HW1)) / 255
            assert np.abs(pixels_of(data) - wanted_HWC).max() <= 1


def bad_headers() -> Iterator[bytes]:
    legal = {*KINDS}
    for colour, bits in itertools.product(range(8), (0, 1, 2, 3, 4, 8, 16, 32)):
        if (colour, bits) not in legal:
            yield struct.pack(">IIBBBBB", 8, 8, bits, colour, 0, 0, 0)
    for methods in ((1, 0, 0), (0, 1, 0), (0, 0, 2)):
        yield struct.pack(">IIBBBBB", 8, 8, 8, 0, *methods)
    yield struct.pack(">IIBBBB", 8, 8, 8, 0, 0, 0)


def reason_of(data: bytes) -> Reason:
    found = decode(data, TINY)
    assert isinstance(found, Rejection)
    return found.reason


def test_a_header_that_cannot_be_is_corrupt() -> None:
    for body in bad_headers():
        data = png(png_chunk(b"IHDR", body), tables(3, 8, None), png_chunk(b"IDAT", zlib.compress(bytes(9000))))
        assert reason_of(data) is Reason.CORRUPT, body


GREY = samples(0, 8, 4, 4)
INDEX = np.arange(16).reshape(4, 4, 1)
GREY_IDAT, INDEX_IDAT = (png_chunk(b"IDAT", compressed(image_HWC, 8)) for image_HWC in (GREY, INDEX))
PLTE, KEY = png_chunk(b"PLTE", PALETTE[:16].tobytes()), png_chunk(b"tRNS", b"\0\1")
GREY_HEAD, INDEX_HEAD = header(GREY, 8, 0), header(INDEX, 8, 3)


@pytest.mark.parametrize(
    "data",
    [
        png(INDEX_HEAD, INDEX_IDAT),
        png(INDEX_HEAD, INDEX_IDAT, PLTE),
        png(INDEX_HEAD, PLTE, PLTE, INDEX_IDAT),
        png(INDEX_HEAD, KEY, PLTE, INDEX_IDAT),
        png(INDEX_HEAD, PLTE, INDEX_IDAT, KEY),
        png(INDEX_HEAD, png_chunk(b"PLTE", b""), INDEX_IDAT),
        png(INDEX_HEAD, png_chunk(b"PLTE", bytes(47)), INDEX_IDAT),
        png(INDEX_HEAD, png_chunk(b"PLTE", bytes(771)), INDEX_IDAT),
        png(INDEX_HEAD, png_chunk(b"PLTE", bytes(45)), INDEX_IDAT),
        png(INDEX_HEAD, PLTE, png_chunk(b"tRNS", bytes(17)), INDEX_IDAT),
        png(GREY_HEAD, KEY, KEY, GREY_IDAT),
        png(GREY_HEAD, GREY_IDAT, KEY),
        png(GREY_HEAD, png_chunk(b"tRNS", b"\0"), GREY_IDAT),
        png(GREY_HEAD, png_chunk(b"tRNS", bytes(6)), GREY_IDAT),
        png(header(GREY, 8, 2), png_chunk(b"tRNS", bytes(2)), GREY_IDAT),
        png(GREY_HEAD),
    ],
    ids=[
        "no palette", "late palette", "two palettes", "key before palette", "late alphas", "empty palette",
        "47 bytes", "257 colours", "index 15 of 15", "17 alphas of 16", "two keys", "late key", "short key", "long key",
        "grey key of RGB", "no pixels",
    ],
)  # fmt: skip
def test_tables_that_viewers_disagree_on_are_corrupt(data: bytes) -> None:
    assert reason_of(data) is Reason.CORRUPT


def test_tables_that_a_kind_does_not_have_are_not_used() -> None:
    for colour in (0, 2, 4, 6):
        image_HWC = samples(colour, 8, 5, 5)
        pixels = png_chunk(b"IDAT", compressed(image_HWC, 8))
        key = KEY if colour in (4, 6) else b""
        plain, odd = png(header(image_HWC, 8, colour), pixels), png(header(image_HWC, 8, colour), key, PLTE, pixels)
        np.testing.assert_array_equal(pixels_of(odd), pixels_of(plain))


def test_the_first_exif_chunk_that_has_an_orientation_counts() -> None:
    six, one = (png_chunk(b"eXIf", exif_with_orientation(value).tobytes()[6:]) for value in (6, 1))
    empty = png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
    turned_HW = np.rot90(GREY[..., 0], -1)
    for exif in (six + empty, empty + six, six + one):
        np.testing.assert_array_equal(pixels_of(png(GREY_HEAD, GREY_IDAT, exif))[..., 0], turned_HW)


def control(sequence: int, width: int, height: int, left: int = 0, top: int = 0, blend: int = 0) -> bytes:
    return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, width, height, left, top, 1, 10, 0, blend))


def frame(sequence: int, body: bytes) -> bytes:
    return png_chunk(b"fdAT", struct.pack(">I", sequence) + body)


def frames(count: int) -> bytes:
    return png_chunk(b"acTL", struct.pack(">II", count, 0))


@pytest.mark.parametrize(("colour", "bits"), KINDS)
def test_an_image_before_the_first_frame_is_no_frame(colour: int, bits: int) -> None:
    """The frame lies on a transparent canvas, at its own place."""
    stand_in, image_HWC = samples(colour, bits, 13, 11) * 0, samples(colour, bits, 6, 5)
    for interlace, blend, (left, top) in itertools.product((False, True), (0, 1), ((0, 0), (7, 6), (3, 2))):
        coded = compressed(image_HWC, bits, interlace)
        data = png(
            header(stand_in, bits, colour, interlace),
            frames(2),
            tables(colour, bits, None),
            png_chunk(b"IDAT", compressed(stand_in, bits, interlace)),
            control(0, 6, 5, left, top, blend),
            *(frame(place + 1, piece) for place, piece in enumerate((coded[:7], b"", coded[7:]))),
            control(4, 13, 11),
            frame(5, b"is not looked at"),
        )
        wanted_HWC = np.full((11, 13, 3), 255)
        inner_HWC = expected(image_HWC, colour, bits, np.zeros((5, 6), bool))
        wanted_HWC[top : top + 5, left : left + 6] = inner_HWC
        found = decode(data, TINY)
        assert isinstance(found, RgbImage), found
        assert (found.header.frames, found.header.width, found.header.height) == (2, 13, 11)
        assert np.abs(found.pixels_HWC - wanted_HWC).max() <= (colour in (4, 6))


def test_a_transparent_colour_holds_for_the_first_frame_too() -> None:
    for colour, bits in ((0, 8), (2, 16)):
        image_HWC = samples(colour, bits, 6, 5)
        key = b"".join(struct.pack(">H", value) for value in image_HWC[1, 2])
        data = png(
            header(samples(colour, bits, 9, 9), bits, colour),
            frames(1),
            tables(colour, bits, key),
            png_chunk(b"IDAT", compressed(samples(colour, bits, 9, 9), bits)),
            control(0, 6, 5, 2, 3),
            frame(1, compressed(image_HWC, bits)),
        )
        clear_HW = (image_HWC == image_HWC[1, 2]).all(-1)
        np.testing.assert_array_equal(pixels_of(data)[3:8, 2:8], expected(image_HWC, colour, bits, clear_HW))
        assert (pixels_of(data)[:3] == 255).all()


BOX = compressed(GREY, 8)


@pytest.mark.parametrize(
    "data",
    [
        png(GREY_HEAD, GREY_IDAT),
        png(GREY_HEAD, frames(1), control(0, 4, 4), GREY_IDAT),
        png(GREY_HEAD, frames(2), control(0, 4, 4), GREY_IDAT, control(1, 1, 1), frame(2, b"")),
        png(GREY_HEAD, frames(0), GREY_IDAT, control(0, 4, 4), frame(1, b"")),
        png(GREY_HEAD, GREY_IDAT, control(0, 4, 4), frame(1, b"")),
        png(GREY_HEAD, GREY_IDAT, frames(1), control(0, 4, 4), frame(1, b"")),
        png(GREY_HEAD, frames(1), GREY_IDAT),
    ],
    ids=["still", "frame", "two frames", "of no frames", "not animated", "animated too late", "without a frame"],
)
def test_an_image_that_is_a_frame_or_all_there_is_is_scored(data: bytes) -> None:
    np.testing.assert_array_equal(pixels_of(data)[..., :1], GREY)


@pytest.mark.parametrize(
    "tail",
    [
        [control(0, 4, 4)],
        [control(0, 4, 4), frame(2, BOX)],
        [control(0, 4, 4), frame(1, BOX[:5]), frame(3, BOX[5:])],
        [control(0, 4, 4, 1, 0), frame(1, BOX)],
        [control(0, 4, 4, 0, 2**32 - 1), frame(1, BOX)],
        [control(0, 0, 4), frame(1, BOX)],
        [control(0, 4, 4), frame(1, BOX[:-1])[:-1] + b"!"],
        [png_chunk(b"fcTL", bytes(9)), frame(1, BOX)],
        [control(0, 4, 4), png_chunk(b"fdAT", b"\0\1")],
    ],
    ids=[
        "no pixels", "begins at 2", "a piece is missing", "too far right", "too far down", "no width", "checksum",
        "short control", "short piece",
    ],
)  # fmt: skip
def test_a_first_frame_that_is_broken_is_not_replaced_by_the_stand_in(tail: list[bytes]) -> None:
    assert reason_of(png(GREY_HEAD, frames(1), GREY_IDAT, *tail)) is Reason.CORRUPT
