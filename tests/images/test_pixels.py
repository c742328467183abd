"""Pictures of more than one strip -> the pixels that they have as a whole, and no more memory than was said before."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iqa_core.images import decode
from iqa_core.images.containers.container import WHOLE_PIXELS
from iqa_core.images.in_memory import as_file
from iqa_core.records import ImageLimits, RgbImage
from tests.bad_images import after_png_header, encoded, exif_with_orientation, png_chunk, png_with_colour_of_16_bit

WIDTH, HEIGHT = 1_100, 1_000
"""Five strips, the last shorter."""


def samples(width: int, height: int, bands: int) -> np.ndarray:
    """Shape (H, W, bands): noise in its upper bits only, so that it is soon written."""
    return np.random.default_rng(3).integers(0, 4, (height, width, bands)).astype(np.uint8) * 85


def image_of(mode: str, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    if mode == "LA":
        return image_of("RGBA", width, height).convert("LA")
    if mode == "P":
        image = Image.fromarray(samples(width, height, 1)[..., 0] // 85).convert("P")
        image.putpalette([10, 20, 30, 90, 80, 70, 120, 130, 150, 255, 0, 5])
        return image
    bands = samples(width, height, len(Image.new(mode, (1, 1)).getbands()))
    return Image.fromarray(bands if bands.shape[2] > 1 else bands[..., 0])


def on_white(image: Image.Image) -> np.ndarray:
    """As Pillow puts the whole of it on a white picture."""
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_strips_are_turned_to_their_places(orientation: int) -> None:
    assert WIDTH * HEIGHT > WHOLE_PIXELS
    stored_HWC = samples(WIDTH, HEIGHT, 3)
    image = decode(
        encoded(Image.fromarray(stored_HWC), "PNG", exif=exif_with_orientation(orientation), compress_level=1),
        ImageLimits(),
    )
    assert isinstance(image, RgbImage)
    turned_HWC = {
        1: stored_HWC,
        2: stored_HWC[:, ::-1],
        3: stored_HWC[::-1, ::-1],
        4: stored_HWC[::-1],
        5: stored_HWC.swapaxes(0, 1),
        6: np.rot90(stored_HWC, -1),
        7: stored_HWC[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored_HWC),
    }[orientation]
    np.testing.assert_array_equal(image.pixels_HWC, turned_HWC)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA"])
def test_strips_of_every_mode_lie_on_white(mode: str) -> None:
    picture = image_of(mode)
    options: dict[str, Any] = {"transparency": bytes([0, 100, 255])} if mode == "P" else {}
    data = encoded(picture, "PNG", compress_level=1, **options)
    image = decode(data, ImageLimits())
    assert isinstance(image, RgbImage)
    with Image.open(BytesIO(data)) as whole:
        assert np.abs(image.pixels_HWC - on_white(whole)).max() <= 1
    in_memory = as_file(Image.open(BytesIO(data)).copy(), 1)
    assert isinstance(in_memory, bytes)
    again = decode(in_memory, ImageLimits())
    assert isinstance(again, RgbImage)
    np.testing.assert_array_equal(again.pixels_HWC, image.pixels_HWC)


@pytest.mark.slow
def test_a_key_of_16_bits_is_white_in_every_strip() -> None:
    values_HWC = samples(WIDTH, HEIGHT, 3).astype(np.uint16) * 257
    values_HWC[::2, 0, :] = 255 * 257 - 1  # its high bytes are those of the key
    plain = png_with_colour_of_16_bit(values_HWC)
    key = struct.pack(">3H", 85 * 257, 85 * 257, 170 * 257)
    image = decode(after_png_header(plain, png_chunk(b"tRNS", key)), ImageLimits())
    assert isinstance(image, RgbImage)
    is_key_HW = (values_HWC == struct.unpack(">3H", key)).all(axis=2)
    assert 100 < is_key_HW.sum() < WIDTH * HEIGHT / 10
    np.testing.assert_array_equal(image.pixels_HWC, np.where(is_key_HW[..., None], 255, values_HWC >> 8))


def test_a_frame_in_a_wide_canvas_is_drawn_with_what_it_has() -> None:
    """Strips are of the frame: of the canvas, one of 32,768 rows would have 10 million pixels."""
    data = bytearray(encoded(image_of("P", 8, 40_000), "GIF"))
    struct.pack_into("<HH", data, 6, 300, 40_010)
    image = decode(bytes(data), ImageLimits())
    assert isinstance(image, RgbImage)
    assert image.pixels_HWC.shape == (40_010, 300, 3)
    assert (image.pixels_HWC[:, 8:] == 255).all()
    assert (image.pixels_HWC[:40_000, :8, 0] != 255).any()


def large_files(width: int, height: int, names: set[str] | None) -> Iterator[tuple[str, bytes]]:
    """One for each way in which a decoder holds a picture, or those that are named."""
    rgb, rgba, palette, grey = (image_of(mode, width, height) for mode in ("RGB", "RGBA", "P", "L"))
    fast: dict[str, Any] = {"compress_level": 1}
    little: dict[str, Any] = {"quality": 30}
    writers: dict[str, Callable[[], bytes]] = {
        "jpeg": lambda: encoded(rgb, "JPEG", **little),
        "jpeg grey": lambda: encoded(grey, "JPEG", **little),
        "jpeg turned": lambda: encoded(rgb, "JPEG", **little, exif=exif_with_orientation(6)),
        "jpeg progressive": lambda: encoded(rgb, "JPEG", **little, progressive=True, subsampling="4:4:4"),
        "jpeg ink": lambda: encoded(rgb.convert("CMYK"), "JPEG", **little, progressive=True),
        "png": lambda: encoded(rgb, "PNG", **fast),
        "png alpha": lambda: encoded(rgba, "PNG", **fast),
        "png grey alpha": lambda: encoded(rgba.convert("LA"), "PNG", **fast),
        "png palette": lambda: encoded(palette, "PNG", transparency=bytes(3), **fast),
        "png key": lambda: encoded(rgb, "PNG", transparency=(85, 85, 170), **fast),
        "png bits": lambda: encoded(grey.convert("1"), "PNG", **fast),
        "png deep grey": lambda: encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG", **fast),
        "png deep": lambda: deep(rgb),
        "png deep key": lambda: with_key(deep(rgb)),
        "gif": lambda: encoded(palette, "GIF"),
        "gif box": lambda: on_larger_screen(encoded(palette, "GIF")),
        "bmp": lambda: encoded(rgb, "BMP"),
        "bmp alpha": lambda: encoded(rgba, "BMP"),
        "bmp palette": lambda: encoded(palette, "BMP"),
        "tiff": lambda: encoded(rgb, "TIFF"),
        "tiff lzw": lambda: encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": lambda: encoded(rgb, "TIFF", compression="jpeg"),
        "tiff one strip": lambda: encoded(rgb, "TIFF", compression="tiff_deflate", strip_size=2**30),
        "tiff negative": lambda: encoded(grey, "TIFF", compression="tiff_lzw", tiffinfo={262: 0}),
        "tiff ink": lambda: encoded(rgb.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "webp": lambda: encoded(rgb, "WEBP", method=0, quality=10),
        "webp lossless": lambda: encoded(rgb, "WEBP", lossless=True, method=0, quality=0),
        "webp alpha": lambda: encoded(rgba, "WEBP", method=0, quality=10),
        "avif": lambda: encoded(rgb, "AVIF", speed=10, quality=20),
        "avif full": lambda: encoded(rgb, "AVIF", speed=10, quality=20, subsampling="4:4:4"),
        "avif alpha": lambda: encoded(rgba, "AVIF", speed=10, quality=20),
        "avif grey": lambda: encoded(grey, "AVIF", speed=10, quality=20),
    }
    for name, write in writers.items():
        if names is None or name in names:
            yield name, write()


def deep(image: Image.Image) -> bytes:
    return png_with_colour_of_16_bit(np.asarray(image).astype(np.uint16) * 257)


def with_key(png: bytes) -> bytes:
    return after_png_header(png, png_chunk(b"tRNS", bytes(6)))


def on_larger_screen(gif: bytes) -> bytes:
    sides = (side + 9 for side in struct.unpack_from("<HH", gif, 6))
    return gif[:6] + struct.pack("<HH", *sides) + gif[10:]


MEASURE = """
import sys
from pathlib import Path
from iqa_core.images import decode
from iqa_core.images.inspection import inspect
from iqa_core.records import ImageLimits
def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
for path in map(Path, sys.argv[1:]):
    data = path.read_bytes()
    found = inspect(data, ImageLimits())
    said = found.container.peak_bytes
    del found
    Path("/proc/self/clear_refs").write_text("5")
    before = kib("VmRSS")
    decode(data, ImageLimits())
    print(said, (kib("VmHWM") - before) * 1024)
"""
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured as Linux tells it")


def peaks(files: dict[str, bytes], tmp_path: Path) -> Iterator[tuple[str, int, int]]:
    """What was said and what was measured of each, in bytes; in one process."""
    paths = [tmp_path / name.replace(" ", "_") for name in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    for name, line in zip(files, run.stdout.splitlines(), strict=True):
        said, measured = map(int, line.split())
        yield name, said, measured


@pytest.mark.slow
@ON_LINUX
def test_decoding_holds_no_more_than_was_said_of_it(tmp_path: Path) -> None:
    some = {"png palette", "jpeg progressive", "webp alpha", "avif"}
    files = dict(large_files(1_200, 1_000, some))
    for name, said, measured in peaks(files, tmp_path):
        assert measured <= said, name


@ON_LINUX
@pytest.mark.chaos
def test_what_is_said_of_large_pictures_is_at_most_a_third_more_than_they_hold(tmp_path: Path) -> None:
    found = [next(peaks({name: data}, tmp_path)) for name, data in large_files(4_000, 3_000, None)]
    assert [one for one in found if not one[2] <= one[1] <= 1.3 * one[2]] == []
