"""Every file of tests/bad_images.py, every format, every place to cut it: a picture, or the right reason.

Tests iqa_core/records.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from iqa_core.images import decode, read_header
from iqa_core.images.inspection import rejection
from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import (
    HEIGHT,
    WIDTH,
    BadImage,
    after_png_header,
    bad_images,
    encoded,
    exif_with_orientation,
    picture,
    png_chunk,
    png_claiming,
    png_with_colour_of_16_bit,
    sound_images,
    with_flipped_byte,
)

LIMITS = ImageLimits()
SOUND = sound_images()
BAD = bad_images()
TINY = ImageLimits(min_side=1)
FORMATS = {"jpg": "jpeg", "png": "png", "webp": "webp", "gif": "gif", "bmp": "bmp", "tif": "tiff", "avif": "avif"}
FORMATS_WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
DATA = Path(__file__).parent.parent / "data"
ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels_of(data: bytes, limits: ImageLimits = LIMITS) -> np.ndarray:
    image = decode(data, limits)
    assert isinstance(image, RgbImage), image
    assert image.pixels_HWC.dtype == np.uint8
    assert image.pixels_HWC.flags.c_contiguous
    assert image.pixels_HWC.shape == (image.header.height, image.header.width, 3)
    assert read_header(data, limits) == image.header
    return image.pixels_HWC


def assert_same(left: RgbImage | Rejection, right: RgbImage | Rejection) -> None:
    if isinstance(left, RgbImage) and isinstance(right, RgbImage):
        assert left.header == right.header
        np.testing.assert_array_equal(left.pixels_HWC, right.pixels_HWC)
    else:
        assert isinstance(left, Rejection)
        assert left == right
        assert not ADDRESS.search(left.detail)


def png(width: int, height: int, bits: int, colour: int, rows: bytes, key: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: ascii(bad.name))
def test_every_bad_image_gets_its_reason_or_its_score(bad: BadImage) -> None:
    result = decode(bad.data, LIMITS)
    if bad.reason is None:
        pixels_of(bad.data)
    else:
        assert isinstance(result, Rejection)
        assert result.reason is bad.reason
        assert 10 < len(result.detail) < 300
    assert_same(decode(memoryview(bad.data), LIMITS), result)


def test_bad_images_are_the_same_at_every_call_and_fit_on_a_file_system() -> None:
    assert bad_images() == BAD
    names = [bad.name.encode() for bad in BAD]
    assert len(set(names)) == len(names) >= 40
    assert all(0 < len(name) <= 255 and b"/" not in name and b"\0" not in name for name in names)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_file_has_the_pixels_that_its_decoder_gives(name: str) -> None:
    with Image.open(BytesIO(SOUND[name])) as image:
        expected_HWC = np.asarray(image.convert("RGB"))
    frames = 2 if name.startswith("animated") else 1
    assert read_header(SOUND[name], LIMITS) == ImageHeader(WIDTH, HEIGHT, FORMATS[name.split(".")[1]], frames)
    np.testing.assert_array_equal(pixels_of(SOUND[name]), expected_HWC)


def test_the_pixels_of_sound_files_are_what_they_have_always_been() -> None:
    """Of 75 small files of all formats, as programs write them: width, height, frames, SHA-256 of the pixels."""
    expected = json.loads((DATA / "sound_images.json").read_text("utf-8"))
    found = {}
    with zipfile.ZipFile(DATA / "sound_images.zip") as files:
        for name in files.namelist():
            image = decode(files.read(name), LIMITS)
            assert isinstance(image, RgbImage), (name, image)
            digest = hashlib.sha256(image.pixels_HWC.tobytes()).hexdigest()[:16]
            found[name] = f"{image.header.width}x{image.header.height} {image.header.frames} {digest}"
    assert found == expected


@pytest.mark.parametrize("name", SOUND)
def test_a_file_cut_anywhere_is_never_scored(name: str) -> None:
    data = SOUND[name]
    lengths = chain(range(0, len(data), max(1, len(data) // 150)), range(max(0, len(data) - 25), len(data)))
    for num_bytes in lengths:
        result = decode(data[:num_bytes], LIMITS)
        assert isinstance(result, Rejection), f"scored with {num_bytes} of {len(data)} bytes"
        if num_bytes >= 12:
            assert result.reason is Reason.TRUNCATED, f"{result} with {num_bytes} of {len(data)} bytes"
        if not name.endswith(".jpg"):
            assert read_header(data[:num_bytes], LIMITS) == result


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(SOUND)), share=st.floats(0, 1, exclude_max=True))
def test_any_prefix_is_rejected(name: str, share: float) -> None:
    """No file of `sound_images` ends in padding, so a cut always removes something."""
    assert isinstance(decode(SOUND[name][: int(share * len(SOUND[name]))], LIMITS), Rejection)


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from([b"", *(data[:40] for data in SOUND.values())]),
    noise=st.binary(max_size=200),
)
def test_noise_is_answered_without_an_exception(start: bytes, noise: bytes) -> None:
    assert_same(decode(start + noise, LIMITS), decode(start + noise, LIMITS))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(SOUND)), data=st.data())
def test_damage_is_answered_without_an_exception_and_the_same_each_time(name: str, data: st.DataObject) -> None:
    encoded_bytes = SOUND[name]
    at = data.draw(st.integers(0, min(len(encoded_bytes), 800) - 1))
    damaged = with_flipped_byte(encoded_bytes, at)
    assert_same(decode(damaged, LIMITS), decode(damaged, LIMITS))


@pytest.mark.parametrize("format", FORMATS_WITH_EXIF)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_come_out_upright(format: str, orientation: int) -> None:
    upright_HWC = np.asarray(picture().resize((48, 24)))
    stored_HWC = {
        1: upright_HWC,
        2: upright_HWC[:, ::-1],
        3: upright_HWC[::-1, ::-1],
        4: upright_HWC[::-1],
        5: upright_HWC.transpose(1, 0, 2),
        6: upright_HWC.transpose(1, 0, 2)[::-1],
        7: upright_HWC.transpose(1, 0, 2)[::-1, ::-1],
        8: upright_HWC.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    options = {"quality": 100, "subsampling": "4:4:4"} if format in ("JPEG", "AVIF") else {}
    options |= {"lossless": True} if format == "WEBP" else {}
    image = Image.fromarray(np.ascontiguousarray(stored_HWC))
    pixels_HWC = pixels_of(encoded(image, format, exif=exif_with_orientation(orientation), **options))
    error = np.abs(pixels_HWC.astype(int) - upright_HWC).mean()
    assert error == 0 if not options.get("quality") else error < 3


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_is_upright(orientation: int) -> None:
    assert pixels_of(encoded(picture(), "JPEG", exif=exif_with_orientation(orientation))).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x0f\x01\x02\0\xff\xff\xff\x7f\xff\xff\xff\xff",
        b"Exif\0\0noise",
    ],
)
def test_broken_exif_neither_warns_nor_matters(format: str, exif: bytes) -> None:
    if format == "AVIF":
        # Pillow's writer refuses broken EXIF, so it is put in afterwards, over sound EXIF of more bytes.
        sound_exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 271, 2, 20, 26) + bytes(4) + b"m" * 20
        sound = encoded(picture(), format, exif=sound_exif)
        start, block = sound.index(b"II*\0\x08\0"), exif[6:]
        assert b"Exif" in sound
        data = sound[:start] + block + sound[start + len(block) :]
    else:
        data = encoded(picture(), format, exif=exif)
    np.testing.assert_array_equal(pixels_of(data), pixels_of(encoded(picture(), format)))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_icc_profile_changes_nothing(format: str) -> None:
    with_profile = encoded(picture(), format, icc_profile=b"\xff" * 300)
    np.testing.assert_array_equal(pixels_of(with_profile), pixels_of(encoded(picture(), format)))


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values_HW = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        pixels_HWC = pixels_of(encoded(Image.fromarray(values_HW), format), TINY)
        assert pixels_HWC[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]
        assert (pixels_HWC[..., :1] == pixels_HWC).all()


def test_16_bit_colour_keeps_its_high_byte() -> None:
    values_HWC = np.array([[[0, 256, 65535], [513, 1024, 40000]]], dtype=np.uint16)
    assert pixels_of(png_with_colour_of_16_bit(values_HWC), TINY).tolist() == [[[0, 1, 255], [2, 4, 156]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_an_agreed_white_are_not_guessed(mode: str) -> None:
    result = read_header(encoded(Image.new(mode, (9, 9)), "TIFF"), LIMITS)
    assert isinstance(result, Rejection)
    assert result.reason is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_alpha_lies_on_white(format: str) -> None:
    rgba_HWC = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 128]]], dtype=np.uint8)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    pixels_HWC = pixels_of(encoded(Image.fromarray(rgba_HWC), format, **options), TINY)
    assert pixels_HWC.tolist() == [[[10, 20, 30], [255, 255, 255], [127, 177, 227]]]


@pytest.mark.parametrize(
    ("data", "grey"),
    [
        (png(8, 1, 1, 0, b"\0\xf0", b"\0\0"), [255] * 8),
        (png(4, 1, 2, 0, b"\0\x1b", b"\0\2"), [0, 85, 255, 255]),
        (png(2, 1, 4, 0, b"\0\x52", b"\0\5"), [255, 34]),
        (png(2, 1, 8, 0, b"\0\7\x08", b"\0\7"), [255, 8]),
        (png(2, 1, 16, 0, b"\0\x07\x00\x08\x00", b"\x07\x00"), [255, 8]),
        (png(2, 1, 8, 2, b"\0\1\1\1\2\2\2", b"\0\1\0\1\0\1"), [255, 2]),
        (png(2, 1, 16, 2, b"\0\1\0\1\0\1\0\2\0\2\0\2\0", b"\1\0\1\0\1\0"), [255, 2]),
    ],
    ids=["1 bit", "2 bit", "4 bit", "8 bit", "16 bit", "colour", "16-bit colour"],
)
def test_the_transparent_colour_of_a_png_is_white(data: bytes, grey: list[int]) -> None:
    assert pixels_of(data, TINY)[0, :, 1].tolist() == grey


def test_palette_transparency_lies_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 0), 1)
    for data in (encoded(image, "PNG", transparency=bytes([0, 255])), encoded(image, "GIF", transparency=0)):
        assert pixels_of(data, TINY).tolist() == [[[255, 255, 255], [0, 200, 0]]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"])
def test_every_mode_of_tiff_becomes_the_same_picture(mode: str) -> None:
    image = Image.new("RGB", (16, 16), "white")
    image.paste("black", (0, 0, 8, 16))
    pixels_HWC = pixels_of(encoded(image.convert(mode), "TIFF"))
    assert pixels_HWC[:, :8].max() <= 2
    assert pixels_HWC[:, 8:].min() >= 253


def test_big_and_multipage_tiffs_are_read() -> None:
    big = encoded(picture(), "TIFF", big_tiff=True)
    np.testing.assert_array_equal(pixels_of(big), np.asarray(picture()))
    pages = encoded(picture(), "TIFF", save_all=True, append_images=[picture(), picture()])
    assert read_header(pages, LIMITS) == ImageHeader(WIDTH, HEIGHT, "tiff", 3)


def tiff_directory(data: bytes | bytearray) -> tuple[int, dict[int, int]]:
    """Where a classic little-endian file has the pointer to its second page, and each entry of its first, by tag."""
    (at,) = struct.unpack_from("<I", data, 4)
    (num_entries,) = struct.unpack_from("<H", data, at)
    entries = range(at + 2, at + 2 + 12 * num_entries, 12)
    return at + 2 + 12 * num_entries, {struct.unpack_from("<H", data, entry)[0]: entry for entry in entries}


def test_tiff_pages_in_a_circle_are_counted_once() -> None:
    data = bytearray(encoded(picture(), "TIFF"))
    next_at, _ = tiff_directory(data)
    data[next_at : next_at + 4] = data[4:8]
    assert read_header(bytes(data), LIMITS) == ImageHeader(WIDTH, HEIGHT, "tiff", 1)


def test_tiff_pages_that_share_a_long_table_are_corrupt() -> None:
    """Else a few kilobytes could hold thousands of pages, each with the same million strips to look at."""
    num_strips = 400
    offsets = struct.pack("<HHII", 273, 4, num_strips, 8)
    sizes = struct.pack("<HHII", 279, 4, num_strips, 8)
    page = (
        struct.pack("<H", 4) + struct.pack("<HHII", 256, 4, 1, 9) + struct.pack("<HHII", 257, 4, 1, 9) + offsets + sizes
    )
    first_at = 8 + 4 * num_strips
    second_at = first_at + len(page) + 4
    pages = page + struct.pack("<I", second_at) + page + bytes(4)
    result = read_header(struct.pack("<2sHI", b"II", 42, first_at) + bytes(4 * num_strips) + pages, LIMITS)
    assert isinstance(result, Rejection)
    assert result.reason is Reason.CORRUPT
    assert "overlap" in result.detail


def test_a_tiff_tag_with_a_value_too_many_neither_warns_nor_matters() -> None:
    data = bytearray(encoded(picture(), "TIFF"))
    _, entries = tiff_directory(data)
    struct.pack_into("<HIHH", data, entries[277] + 2, 3, 2, 3, 3)
    np.testing.assert_array_equal(pixels_of(bytes(data)), np.asarray(picture()))


def test_a_gif_frame_larger_than_its_screen_sets_the_size() -> None:
    data = SOUND["plain.gif"]
    small_screen = data[:6] + struct.pack("<HH", 10, 10) + data[10:]
    np.testing.assert_array_equal(pixels_of(small_screen), pixels_of(data))


@pytest.mark.parametrize("name", ["baseline.jpg", "plain.png", "lossy.webp", "plain.gif", "plain.bmp", "raw.tif"])
def test_bytes_after_the_end_are_ignored(name: str) -> None:
    np.testing.assert_array_equal(pixels_of(SOUND[name] + b"tail \xff\xd8" * 9), pixels_of(SOUND[name]))


def test_an_avif_cut_between_its_boxes_is_truncated() -> None:
    data = SOUND["plain.avif"]
    result = decode(data[: data.index(b"mdat") - 4], LIMITS)
    assert isinstance(result, Rejection)
    assert result.reason is Reason.TRUNCATED


def test_a_webp_that_names_two_sizes_is_corrupt() -> None:
    """The canvas of the second header is not what the decoder would allocate."""
    webp = SOUND["lossy.webp"] + b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x1f\0\0\x1f\0\0"
    result = decode(webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:], LIMITS)
    assert isinstance(result, Rejection)
    assert result.reason is Reason.CORRUPT
    assert result.header == ImageHeader(32, 32, "webp", 1)


def test_a_jpeg_without_its_end_marker_is_truncated() -> None:
    for name in ("baseline.jpg", "progressive.jpg"):
        for lost_bytes in (1, 2):
            result = decode(SOUND[name][:-lost_bytes], LIMITS)
            assert isinstance(result, Rejection)
            assert result.reason is Reason.TRUNCATED


@pytest.mark.slow
def test_text_that_inflates_without_end_is_never_inflated() -> None:
    profile = b"bomb\0\0" + zlib.compress(bytes(200_000_000 // 4))
    text = b"Comment\0\0" + zlib.compress(bytes(200_000_000 // 4))
    data = after_png_header(SOUND["plain.png"], png_chunk(b"iCCP", profile) + png_chunk(b"zTXt", text))
    np.testing.assert_array_equal(pixels_of(data), np.asarray(picture()))


def claims_of_a_giant() -> dict[str, bytes]:
    jpeg, webp, gif = SOUND["baseline.jpg"], encoded(picture().convert("RGBA"), "WEBP", exif=b"x"), SOUND["plain.gif"]
    avif, tiff, bmp = SOUND["plain.avif"], bytearray(SOUND["lzw.tif"]), SOUND["palette.bmp"]
    frame_at, canvas_at, extent_at = jpeg.index(b"\xff\xc0") + 5, webp.index(b"VP8X") + 12, avif.index(b"ispe") + 8
    _, entries = tiff_directory(tiff)
    for tag in (256, 257):
        struct.pack_into("<HII", tiff, entries[tag] + 2, 4, 1, 60_000)
    return {
        "jpeg": jpeg[:frame_at] + struct.pack(">HH", 60_000, 60_000) + jpeg[frame_at + 4 :],
        "png": png_claiming(60_000, 60_000),
        "webp": webp[:canvas_at] + b"\xff\x3f\0\xff\x3f\0" + webp[canvas_at + 6 :],
        "gif": gif[:6] + struct.pack("<HH", 60_000, 60_000) + gif[10:],
        "tiff": bytes(tiff),
        "bmp": bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:30] + struct.pack("<II", 1, 0) + bmp[38:],
        "avif": avif[:extent_at] + struct.pack(">II", 60_000, 60_000) + avif[extent_at + 8 :],
    }


@pytest.mark.parametrize("format", FORMATS.values())
def test_a_giant_is_too_large_by_its_header(format: str) -> None:
    data = claims_of_a_giant()[format]
    side = 16_384 if format == "webp" else 60_000
    for result in (decode(data, LIMITS), read_header(data, LIMITS)):
        assert isinstance(result, Rejection)
        assert result.reason is Reason.TOO_LARGE
        assert result.header == ImageHeader(side, side, format, 1)


PEAK_OF_GIANTS = """
import resource, sys
from pathlib import Path
from iqa_core.images import decode
from iqa_core.records import ImageLimits
peak_kib = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
before = peak_kib()
results = [decode(data, ImageLimits()) for data in files]
print(peak_kib() - before, *(result.reason for result in results))
"""


def test_giants_take_no_memory(tmp_path: Path) -> None:
    giants = claims_of_a_giant()
    for format, data in giants.items():
        (tmp_path / format).write_bytes(data)
    run = subprocess.run([sys.executable, "-c", PEAK_OF_GIANTS, tmp_path], capture_output=True, text=True, check=True)
    grown_kib, *reasons = run.stdout.split()
    assert reasons == ["too_large"] * len(giants)
    assert int(grown_kib) < 32_768, "the smallest of them would take 768 MiB"


@pytest.mark.parametrize("name", ["baseline.jpg", "plain.png", "lossy.webp", "plain.gif", "plain.bmp", "lzw.tif"])
def test_only_our_own_limit_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would warn at its own bound; between that and ours, nothing is said and pixels are the same."""
    expected_HWC = pixels_of(SOUND[name])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    np.testing.assert_array_equal(pixels_of(SOUND[name]), expected_HWC)


def test_limits_are_inclusive() -> None:
    data = SOUND["plain.png"]
    exact = ImageLimits(min_side=HEIGHT, max_pixels=WIDTH * HEIGHT, max_bytes=len(data))
    assert isinstance(decode(data, exact), RgbImage)
    for limits, reason in (
        (ImageLimits(min_side=HEIGHT + 1), Reason.TOO_SMALL),
        (ImageLimits(max_pixels=WIDTH * HEIGHT - 1), Reason.TOO_LARGE),
        (ImageLimits(max_bytes=len(data) - 1), Reason.TOO_LARGE),
    ):
        result = read_header(data, limits)
        assert isinstance(result, Rejection)
        assert result.reason is reason


def test_threads_get_what_one_thread_gets() -> None:
    files = [*SOUND.values(), *(bad.data for bad in BAD if bad.reason)] * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, files, repeat(LIMITS)))
    for data, result in zip(files, together, strict=True):
        assert_same(result, decode(data, LIMITS))


def test_nothing_global_is_changed() -> None:
    for bad in BAD:
        decode(bad.data, LIMITS)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3


def test_a_claim_beyond_the_bytes_of_the_file_is_corrupt() -> None:
    plain = SOUND["plain.png"]
    for frames, reason in ((2, None), (len(plain) + 20, None), (2**16, Reason.CORRUPT), (2**31 + 1, Reason.CORRUPT)):
        data = after_png_header(plain, png_chunk(b"acTL", struct.pack(">II", frames, 0)))
        found = read_header(data, LIMITS)
        if reason is None:
            assert found == ImageHeader(WIDTH, HEIGHT, "png", frames)
        else:
            assert found == decode(data, LIMITS)
            assert found == Rejection(reason, f"the png claims {frames} frames in {len(data)} bytes")


def test_a_side_that_no_table_holds_is_too_large_whatever_the_limit() -> None:
    for limits in (LIMITS, ImageLimits(max_pixels=2**40)):
        found = read_header(png_claiming(2**31, 16), limits)
        assert found == Rejection(Reason.TOO_LARGE, "2147483648 x 16 pixels: a side is more than 2147483647")


def test_a_message_that_is_no_text_is_written_as_one() -> None:
    assert rejection(ValueError("tag \udce9"), None).detail == "the image does not decode: tag \\udce9"
