"""Every layout of a TIFF: its true pixels, known beforehand, or `unsupported_format`; nothing else of a sound file.

Tests iqa_core/images/containers/tiff_layouts.py.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from dataclasses import replace
from functools import lru_cache
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from iqa_core.images import decode, read_header
from iqa_core.images.containers.container import Container
from iqa_core.images.inspection import Inspected, inspect
from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import encoded
from tests.tiffs import (
    ASSOCIATED,
    BLACK_IS_ZERO,
    CMYK,
    DEFLATE,
    FAX4,
    HEIGHT,
    JPEG,
    LAB,
    LZW,
    PALETTE,
    RAW,
    ROWS_PER_STRIP,
    THUNDERSCAN,
    TILE,
    UNASSOCIATED,
    UNSPECIFIED,
    WHITE_IS_ZERO,
    WIDTH,
    YCBCR,
    Changes,
    Layout,
    file_of,
    layouts,
    pixels_of,
    samples_of,
    tiff,
)

LIMITS = ImageLimits()


@lru_cache
def picture(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    samples_HWS = samples_of(layout)
    return samples_HWS, pixels_of(samples_HWS, layout)


def written(layout: Layout) -> tuple[bytes, np.ndarray]:
    """A file, and its pixels; both depend on the colours alone, not on how they are stored."""
    kind = replace(layout, planes=False, blocks="strip", order="<", big=False, predictor=1, fill_order=1)
    samples_HWS, pixels_HWC = picture(replace(kind, compression=JPEG if layout.compression == JPEG else RAW))
    return tiff(samples_HWS, layout), pixels_HWC


def most_apart(layout: Layout) -> int:
    """Grey levels between the true pixels and ours: rounding of alpha, of colours in 8 bits, of a JPEG."""
    if layout.compression == JPEG or layout.photometric == LAB:
        return 3
    return 2 if ASSOCIATED in layout.extra else int(bool(layout.extra) or layout.photometric in (CMYK, YCBCR))


def pixels_or_refusal(layout: Layout) -> np.ndarray | None:
    """None: refused, and by name."""
    data, true_HWC = written(layout)
    image = decode(data, LIMITS)
    if isinstance(image, Rejection):
        assert image.reason is Reason.UNSUPPORTED_FORMAT, (layout, image)
        assert "save it as" in image.detail
        assert read_header(data, LIMITS) == image
        return None
    assert np.abs(image.pixels_HWC.astype(int) - true_HWC).max() <= most_apart(layout), layout
    return image.pixels_HWC


@pytest.mark.chaos
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("blocks", ["strip", "strips", "tiles"])
def test_every_layout_has_its_pixels_or_is_refused(blocks: str, order: str) -> None:
    some = [layout for layout in layouts() if (layout.blocks, layout.order) == (blocks, order)]
    assert sum(pixels_or_refusal(layout) is not None for layout in some) > 1000


@pytest.mark.slow
def test_layouts_have_their_pixels_or_are_refused() -> None:
    """So many of 450 are read, and to these very pixels: a change that refuses or rounds otherwise is noticed."""
    drawn = random.Random(1).sample([layout for layout in layouts() if layout.compression != JPEG], 450)
    read = [pixels_HWC for layout in drawn if (pixels_HWC := pixels_or_refusal(layout)) is not None]
    assert len(read) == 143
    digest = hashlib.sha256(b"".join(pixels_HWC.tobytes() for pixels_HWC in read)).hexdigest()
    assert digest.startswith("bfac12d1344042bd")


GREY = Layout(BLACK_IS_ZERO)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(WHITE_IS_ZERO, 16),
        Layout(WHITE_IS_ZERO, 16, order=">"),
        Layout(WHITE_IS_ZERO, 16, compression=DEFLATE, predictor=2, blocks="tiles"),
        Layout(WHITE_IS_ZERO, 8, fill_order=2, blocks="strips"),
        Layout(WHITE_IS_ZERO, 4, planes=True),
        Layout(BLACK_IS_ZERO, 16, planes=True),
        Layout(PALETTE, 8, map_bits=8),
        Layout(PALETTE, 4, map_bits=8, compression=LZW, order=">"),
        Layout(PALETTE, 2, planes=True),
        Layout(order=">", big=True),
        Layout(YCBCR, order=">", big=True, compression=JPEG, blocks="tiles"),
        Layout(extra=(UNSPECIFIED,), planes=True),
        Layout(BLACK_IS_ZERO, extra=(UNSPECIFIED,), planes=True, blocks="tiles"),
        Layout(CMYK, extra=(UNSPECIFIED, UNSPECIFIED), planes=True, blocks="strips"),
        Layout(extra=(UNASSOCIATED, UNSPECIFIED), planes=True, compression=LZW),
        Layout(extra=(ASSOCIATED,)),
    ],
    ids=str,
)
def test_what_pillow_alone_reads_wrongly_or_not_at_all_is_read(layout: Layout) -> None:
    assert pixels_or_refusal(layout) is not None


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        (Layout(bits=16, planes=True), "16-bit RGB in planes without compression"),
        (Layout(CMYK, 16, planes=True, order=">"), "16-bit CMYK in planes"),
        (Layout(extra=(ASSOCIATED,), planes=True), "8-bit RGB with multiplied alpha in planes"),
        (Layout(BLACK_IS_ZERO, extra=(UNASSOCIATED,), planes=True, compression=LZW), "8-bit grey with alpha in planes"),
        (Layout(WHITE_IS_ZERO, extra=(UNASSOCIATED,)), "8-bit grey with alpha"),
        (Layout(planes=True, fill_order=2), "fill order 2"),
        (Layout(LAB, planes=True, compression=DEFLATE), "8-bit Lab in planes"),
        (Layout(BLACK_IS_ZERO, 4, compression=LZW, predictor=2), "4-bit grey under predictor 2"),
        (Layout(bits=2), "2-bit RGB"),
        (Layout(BLACK_IS_ZERO, 1, blocks="tiles", tile=10), "rows end inside a byte"),
    ],
)
def test_what_is_refused_is_named(layout: Layout, named: str) -> None:
    image = decode(written(layout)[0], LIMITS)
    assert isinstance(image, Rejection)
    assert image.reason is Reason.UNSUPPORTED_FORMAT
    assert named in image.detail


def changed(layout: Layout, changes: Changes) -> RgbImage | Rejection:
    return decode(tiff(picture(layout)[0], layout, changes), LIMITS)


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        (Layout(), Changes(kinds={256: 1, 257: 1, 258: 1, 259: 1, 262: 1, 277: 1, 278: 1, 284: 1})),
        (Layout(), Changes(kinds={256: 3, 257: 3, 278: 3, 273: 3, 279: 3})),
        (Layout(order=">"), Changes(kinds={256: 9, 257: 8, 278: 6, 258: 9, 259: 4})),
        (Layout(big=True), Changes(kinds=dict.fromkeys((256, 257, 258, 259, 262, 273, 277, 278, 279, 284), 16))),
        (Layout(blocks="tiles", compression=LZW), Changes(kinds=dict.fromkeys((322, 323, 324, 325), 4))),
        (Layout(), Changes({278: [2**32 - 1]})),
        (Layout(compression=DEFLATE), Changes({278: [2**32 - 1]})),
        (Layout(), Changes({278: None, 284: None})),
        (Layout(), Changes({258: [8]})),
        (Layout(), Changes({279: None})),
        (Layout(blocks="strips"), Changes({279: None})),
        (Layout(BLACK_IS_ZERO, 1), Changes({258: None, 259: None, 277: None})),
        (Layout(extra=(UNASSOCIATED,)), Changes({338: None})),
        (Layout(extra=(UNASSOCIATED,), planes=True, compression=LZW), Changes({338: None})),
        (Layout(extra=(UNASSOCIATED,), compression=DEFLATE, bits=16), Changes({338: [999]})),
        (Layout(BLACK_IS_ZERO, compression=DEFLATE), Changes({262: [6]})),
        (Layout(WHITE_IS_ZERO, 1, compression=FAX4), Changes({262: None})),
        (Layout(YCBCR), Changes({530: None})),
        (Layout(YCBCR, compression=JPEG), Changes({530: None})),
    ],
    ids=str,
)
def test_other_ways_to_say_the_same_make_the_same_pixels(layout: Layout, changes: Changes) -> None:
    image = changed(layout, changes)
    assert isinstance(image, RgbImage), image
    assert np.abs(image.pixels_HWC.astype(int) - picture(layout)[1]).max() <= most_apart(layout)


@pytest.mark.parametrize(
    ("blocks", "starts", "sizes"),
    [("strip", [8], [WIDTH * HEIGHT]), ("strips", [8, 114, 220, 326], [105, 105, 105, 84])],
)
def test_a_strip_too_many_is_not_read(blocks: str, starts: list[int], sizes: list[int]) -> None:
    """Pillow begins anew at the top with it, or reads it alone."""
    layout = replace(GREY, blocks=blocks)
    image = changed(layout, Changes({273: [*starts, 20], 279: [*sizes, 105]}))
    assert isinstance(image, RgbImage), image
    np.testing.assert_array_equal(image.pixels_HWC, picture(layout)[1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (Changes({278: [5]}), Reason.CORRUPT),
        (Changes({278: [0]}), Reason.CORRUPT),
        (Changes({273: None}), Reason.CORRUPT),
        (Changes({262: None}), Reason.CORRUPT),
        (Changes({279: [WIDTH * HEIGHT - 1]}), Reason.TRUNCATED),
        (Changes({279: [1 << 20]}), Reason.TRUNCATED),
        (Changes({256: [-WIDTH]}, {256: 9}), Reason.CORRUPT),
        (Changes({322: [0], 323: [0]}), Reason.CORRUPT),
        (Changes({262: [2]}), Reason.CORRUPT),
        (Changes({262: [3]}), Reason.CORRUPT),
        (Changes({262: [3], 320: [0] * 767}), Reason.CORRUPT),
        (Changes({256: [1], 257: [10**8], 278: [1]}), Reason.CORRUPT),
        (Changes({258: [12]}), Reason.UNSUPPORTED_FORMAT),
        (Changes({339: [3]}), Reason.UNSUPPORTED_FORMAT),
        (Changes({262: [4]}), Reason.UNSUPPORTED_FORMAT),
        (Changes({262: [32803]}), Reason.UNSUPPORTED_FORMAT),
        (Changes({262: [34892]}), Reason.UNSUPPORTED_FORMAT),
        (Changes({277: [9], 258: [8] * 9}), Reason.UNSUPPORTED_FORMAT),
        *(
            (Changes({259: [compression]}), Reason.UNSUPPORTED_FORMAT)
            for compression in (9, 32771, 34661, 34712, 50001, 50002)
        ),
        (Changes({259: [FAX4]}), Reason.UNSUPPORTED_FORMAT),
        (Changes({254: [1], 50706: [1, 7, 0, 0]}, {50706: 1}), Reason.UNSUPPORTED_FORMAT),
    ],
    ids=str,
)
def test_what_makes_no_picture_gets_its_reason(changes: Changes, reason: Reason) -> None:
    image = changed(GREY, changes)
    assert isinstance(image, Rejection)
    assert image.reason is reason


def test_inks_other_than_cmyk_are_refused() -> None:
    assert isinstance(changed(Layout(CMYK), Changes({332: [1]})), RgbImage)
    image = changed(Layout(CMYK), Changes({332: [2]}))
    assert isinstance(image, Rejection)
    assert "inks" in image.detail


def test_a_strip_shorter_than_its_rows_is_not_read_into_the_next() -> None:
    sizes = [WIDTH * ROWS_PER_STRIP] * 3 + [WIDTH * 4]
    sizes[0] -= 1
    image = changed(replace(GREY, blocks="strips"), Changes({279: sizes}))
    assert isinstance(image, Rejection)
    assert image.reason is Reason.TRUNCATED


@pytest.mark.parametrize("tile", [7, 10, WIDTH, 32])
@pytest.mark.parametrize("layout", [GREY, Layout(compression=LZW, planes=True), Layout(bits=16, compression=DEFLATE)])
def test_tiles_of_any_size_are_read(layout: Layout, tile: int) -> None:
    assert pixels_or_refusal(replace(layout, blocks="tiles", tile=tile)) is not None


def test_tiles_under_the_tags_of_strips_are_read() -> None:
    layout = replace(GREY, blocks="tiles")
    starts = [8 + TILE * TILE * tile for tile in range(4)]
    image = changed(layout, Changes({324: None, 325: None, 273: starts, 279: [TILE * TILE] * 4}))
    assert isinstance(image, RgbImage), image
    np.testing.assert_array_equal(image.pixels_HWC, picture(layout)[1])


@pytest.mark.parametrize("blocks", ["strip", "tiles"])
def test_a_jpeg_in_a_tiff_that_was_cut_and_filled_with_zeros_is_truncated(blocks: str) -> None:
    data = bytearray(written(Layout(YCBCR, compression=JPEG, blocks=blocks))[0])
    end_at = data.rindex(b"\xff\xd9")
    data[end_at - 100 : end_at + 2] = bytes(102)
    image = decode(bytes(data), LIMITS)
    assert isinstance(image, Rejection)
    assert image.reason is Reason.TRUNCATED


def subsampled(across: int, down: int, compression: int, planes: bool = False) -> tuple[bytes, np.ndarray]:
    """YCbCr with one pair of colours for `across` x `down` pixels, in the data units of TIFF 6.0, section 21."""
    layout = Layout(YCBCR, compression=compression, planes=planes)
    y_HW = picture(Layout(YCBCR))[0][..., 0] // 2 + 60
    height, width = -(-HEIGHT // down), -(-WIDTH // across)
    colours_HW2 = (np.arange(height * width * 2).reshape(height, width, 2) % 40 + 108).astype(np.uint8)
    padded_HW = np.pad(y_HW, ((0, -HEIGHT % down), (0, -WIDTH % across)), mode="edge")
    units = padded_HW.reshape(height, down, width, across).swapaxes(1, 2).reshape(height, width, -1)
    chunky = np.concatenate([units, colours_HW2], axis=2).astype(np.uint8).tobytes()
    parts = [y_HW.tobytes(), *(colours_HW2[..., at].tobytes() for at in (0, 1))] if planes else [chunky]
    tags: dict[int, list[int] | None] = {256: [WIDTH], 257: [HEIGHT], 258: [8] * 3, 259: [compression], 262: [YCBCR]}
    tags |= {277: [3], 278: [HEIGHT], 284: [1 + planes], 530: [across, down]}
    whole_HW2 = colours_HW2.repeat(down, axis=0).repeat(across, axis=1)[:HEIGHT, :WIDTH]
    pixels_HWC = pixels_of(np.concatenate([y_HW[..., None], whole_HW2], axis=2), Layout(YCBCR))
    return file_of(
        tags, [zlib.compress(part) if compression == DEFLATE else part for part in parts], layout
    ), pixels_HWC


@pytest.mark.parametrize(("across", "down"), [(2, 1), (2, 2), (4, 2), (1, 2)])
def test_subsampled_colours_are_read_where_they_are_compressed(across: int, down: int) -> None:
    data, true_HWC = subsampled(across, down, DEFLATE)
    image = decode(data, LIMITS)
    assert isinstance(image, RgbImage), image
    assert np.abs(image.pixels_HWC.astype(int) - true_HWC).max() <= 1
    for refused in (subsampled(across, down, RAW), subsampled(across, down, DEFLATE, planes=True)):
        result = decode(refused[0], LIMITS)
        assert isinstance(result, Rejection)
        assert result.reason is Reason.UNSUPPORTED_FORMAT


def test_thunderscan_is_read() -> None:
    layout = Layout(BLACK_IS_ZERO, 4, compression=THUNDERSCAN)
    assert pixels_or_refusal(layout) is not None


def jpeg_420() -> tuple[bytes, np.ndarray]:
    """A JPEG whose colours are halved, and its pixels as a JPEG."""
    y_HW1, x_HW1 = np.mgrid[0:48, 0:64][..., None]
    smooth = np.concatenate([50 + 3 * y_HW1, 100 + x_HW1, 140 - y_HW1], axis=2).astype(np.uint8)
    buffer = BytesIO()
    Image.frombytes("YCbCr", (64, 48), smooth.tobytes()).save(buffer, "JPEG", quality=95)
    image = decode(buffer.getvalue(), LIMITS)
    assert isinstance(image, RgbImage)
    return buffer.getvalue(), image.pixels_HWC


@pytest.mark.parametrize(
    ("tags", "most"),
    [
        ({259: [7], 530: [2, 2]}, 0),
        ({259: [7]}, 0),
        ({259: [6], 530: [2, 2], 512: [1], 513: [8], 514: [0]}, 3),
        ({259: [6], 530: [2, 2], 512: [1], 513: [8], 514: [0], 277: None, 262: [2], 284: [2]}, 3),
    ],
    ids=["new", "new, subsampling unsaid", "old", "old, as some cameras write it"],
)
def test_a_jpeg_with_halved_colours_is_read_in_both_ways(tags: dict[int, list[int] | None], most: int) -> None:
    data, true_HWC = jpeg_420()
    if 514 in tags:
        tags = tags | {514: [len(data)]}
    size: dict[int, list[int] | None] = {256: [64], 257: [48], 258: [8] * 3, 262: [6], 277: [3], 278: [48]}
    image = decode(file_of(size | tags, [data], Layout()), LIMITS)
    assert isinstance(image, RgbImage), image
    assert np.abs(image.pixels_HWC.astype(int) - true_HWC).max() <= most


def directory(tags: dict[int, int]) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<H", len(tags)) + entries + bytes(4)


def after_a_block(block: bytes, tags: dict[int, list[int] | None]) -> tuple[bytes, np.ndarray]:
    """A grey picture behind `block`, which lies at byte 8; its directory is the last in the file."""
    samples_HWS, pixels_HWC = picture(GREY)
    grey: dict[int, list[int] | None] = {256: [WIDTH], 257: [HEIGHT], 258: [8], 262: [1], 277: [1], 278: [HEIGHT]}
    places: dict[int, list[int] | None] = {273: [8 + len(block)], 279: [WIDTH * HEIGHT]}
    return file_of(grey, [block, samples_HWS.tobytes()], GREY, Changes(tags | places)), pixels_HWC


@pytest.mark.parametrize("photometric", [32803, 34892])
def test_a_preview_above_what_a_camera_saw_is_not_the_picture(photometric: int) -> None:
    raw = directory({256: 6000, 257: 4000, 262: photometric})
    data, pixels_HWC = after_a_block(raw, {254: [1], 330: [8]})
    image = decode(data, LIMITS)
    assert isinstance(image, Rejection)
    assert image.reason is Reason.UNSUPPORTED_FORMAT
    assert "raw" in image.detail
    other, _ = after_a_block(directory({256: 6000, 257: 4000, 262: 2}), {254: [1], 330: [8]})
    read = decode(other, LIMITS)
    assert isinstance(read, RgbImage), "a small first page is the first page"
    np.testing.assert_array_equal(read.pixels_HWC, pixels_HWC)


def test_a_cr2_is_refused() -> None:
    """Its first page is a large preview, at byte 16. Pixels that begin with the same bytes are no sign of one."""
    data, pixels_HWC = after_a_block(b"CR\2\0" + bytes(4) + directory({256: 9, 257: 9, 262: 1}), {})
    read = decode(data, LIMITS)
    assert isinstance(read, RgbImage), read
    np.testing.assert_array_equal(read.pixels_HWC, pixels_HWC)
    image = decode(data[:4] + struct.pack("<I", 16) + data[8:], LIMITS)
    assert isinstance(image, Rejection)
    assert image.reason is Reason.UNSUPPORTED_FORMAT
    assert "raw" in image.detail


def test_a_second_page_that_is_a_cameras_small_jpeg_is_sound() -> None:
    """It has no strips (Exif 2.3, 4.6.2); but what it has must be there."""
    for size, reason in ((20, None), (1 << 20, Reason.TRUNCATED)):
        data, pixels_HWC = after_a_block(directory({259: 6, 513: 8, 514: size}), {})
        image = decode(data[:-4] + struct.pack("<I", 8), LIMITS)
        if reason is None:
            assert isinstance(image, RgbImage), image
            assert image.header == ImageHeader(WIDTH, HEIGHT, "tiff", 2)
            np.testing.assert_array_equal(image.pixels_HWC, pixels_HWC)
        else:
            assert isinstance(image, Rejection)
            assert image.reason is reason


def refused(data: bytes, max_pixels: int) -> Rejection:
    found = read_header(data, ImageLimits(max_pixels=max_pixels))
    assert isinstance(found, Rejection), found
    return found


def page(width: int, height: int, block: bytes, **tags: list[int] | None) -> bytes:
    """Of one strip or tile of 8-bit grey."""
    named: dict[int, list[int] | None] = {256: [width], 257: [height], 258: [8], 262: [BLACK_IS_ZERO], 277: [1]}
    layout = Layout(BLACK_IS_ZERO, blocks="tiles" if "t322" in tags else "strip")
    return file_of(named, [block], layout, Changes({int(tag[1:]): values for tag, values in tags.items()}))


def test_tiles_count_with_all_their_pixels() -> None:
    """One of 26,000 x 26,000 took 2 GB to show 64 x 64 of it."""
    tiled = page(64, 64, zlib.compress(bytes(128 * 128)), t259=[DEFLATE], t322=[128], t323=[128])
    assert isinstance(decode(tiled, ImageLimits(max_pixels=128 * 128)), RgbImage)
    found = refused(tiled, 128 * 128 - 1)
    assert found.reason is Reason.TOO_LARGE
    assert found.header == ImageHeader(64, 64, "tiff", 1)
    assert "128 x 128" in found.detail
    many = page(64, 640, zlib.compress(b""), t259=[DEFLATE], t322=[512], t323=[64])
    assert refused(many, 64 * 640).reason is Reason.TOO_LARGE, "eight times the pixels that are seen"
    thin = page(2, 40_000, bytes(8), t259=[RAW], t322=[1], t323=[1])
    assert "80000 tiles of 1 x 1" in decode(thin, ImageLimits(min_side=1)).detail  # type: ignore[union-attr]


def test_more_rows_per_strip_than_there_are_cost_nothing() -> None:
    data = page(64, 64, zlib.compress(bytes(64 * 64)), t259=[DEFLATE], t278=[2**32 - 2])
    assert isinstance(decode(data, LIMITS), RgbImage)
    assert inspected(data).decoder_bytes == 64 * 64


def inspected(data: bytes) -> Container:
    found = inspect(data, LIMITS)
    assert isinstance(found, Inspected), found
    return found.container


def test_a_jpeg_in_a_strip_is_no_larger_than_is_taken() -> None:
    """libtiff takes one of more rows than the strip has, if it is the last."""
    tall = encoded(Image.new("L", (64, 128)), "JPEG", progressive=True)
    data = page(64, 64, tall, t259=[JPEG], t278=[64])
    assert isinstance(decode(data, ImageLimits(max_pixels=64 * 128)), RgbImage)
    assert refused(data, 64 * 128 - 1).reason is Reason.TOO_LARGE
    scan = tall[tall.rindex(b"\xff\xda") : -2]
    often = page(4_000, 4_000, tall[:-2] + 130 * scan + tall[-2:], t259=[JPEG], t278=[4_000])
    found = read_header(often, LIMITS)
    assert isinstance(found, Rejection)
    assert "136 scans of 4000 x 4000" in found.detail


@pytest.mark.parametrize("planes", [False, True])
def test_uncompressed_strips_are_given_as_one(planes: bool) -> None:
    """Each took 12 microseconds, whatever its size."""
    for order in "<>":
        layout = Layout(blocks="strips", planes=planes, order=order)
        data, pixels_HWC = written(layout)
        read = decode(data, LIMITS)
        assert isinstance(read, RgbImage)
        np.testing.assert_array_equal(read.pixels_HWC, pixels_HWC)
        assert inspected(data).clean_bytes < WIDTH * HEIGHT * 3 + 400


def test_strips_may_share_bytes_as_far_as_their_pixels_go() -> None:
    row = bytes(range(64))
    shared = {273: [8] * 64, 279: [64] * 64, 278: [1]}
    image = decode(page(64, 64, row, t259=[RAW], **{f"t{tag}": value for tag, value in shared.items()}), LIMITS)
    assert isinstance(image, RgbImage)
    assert (image.pixels_HWC == np.arange(64)[None, :, None]).all()
    packed = zlib.compress(row) + bytes(4_000)
    greedy = {273: [8] * 64, 279: [len(packed)] * 64, 278: [1]}
    found = read_header(page(64, 64, packed, t259=[DEFLATE], **{f"t{tag}": v for tag, v in greedy.items()}), LIMITS)
    assert isinstance(found, Rejection)
    assert found.reason is Reason.CORRUPT
