"""AVIFs whose boxes are changed by hand -> the pixels that are to be seen, or the reason why not."""

from __future__ import annotations

import itertools
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_core.images import decode
from iqa_core.records import ImageLimits, Reason, Rejection, RgbImage
from tests.bad_images import encoded, exif_with_orientation

LIMITS = ImageLimits()
SOUND = Path(__file__).parents[2] / "data" / "sound_images.zip"
Y_HW, X_HW = np.mgrid[0:16, 0:24]
RGB_HWC = np.stack([X_HW * 10, Y_HW * 15, (X_HW + Y_HW) * 6], -1).astype(np.uint8)


def avif(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "AVIF", quality=100, subsampling="4:4:4", **options)


def error(data: bytes, expected_HWC: np.ndarray) -> float:
    found = decode(data, LIMITS)
    assert isinstance(found, RgbImage), found
    assert found.pixels_HWC.shape == expected_HWC.shape
    return float(np.abs(found.pixels_HWC.astype(float) - expected_HWC).max())


def test_turns_and_mirrors_are_applied_in_this_order() -> None:
    """irot counts quarter turns against the clock; imir 0 swaps top and bottom, 1 left and right."""
    data = avif(Image.fromarray(RGB_HWC), exif=exif_with_orientation(5))
    turn_at, mirror_at = data.index(b"irot") + 4, data.index(b"imir") + 4
    for turns, mirror in itertools.product(range(4), (0, 1)):
        changed = bytearray(data)
        changed[turn_at], changed[mirror_at] = turns, mirror
        turned_HWC = np.rot90(RGB_HWC, turns)
        assert error(bytes(changed), turned_HWC[:, ::-1] if mirror else turned_HWC[::-1]) <= 3


def with_property(data: bytes, box: bytes) -> bytes:
    """The only item gets one property more, as the last of five."""
    for name in (b"meta", b"iprp", b"ipco"):
        at = data.index(name) - 4
        (size,) = struct.unpack_from(">I", data, at)
        grown = len(box) + (name != b"ipco")
        data = data[:at] + struct.pack(">I", size + grown) + data[at + 4 :]
    table_at = data.index(b"ipma") - 4
    (table_bytes,) = struct.unpack_from(">I", data, table_at)
    table = data[table_at : table_at + table_bytes]
    assert table[-5:-4] == b"\4"
    table = struct.pack(">I", table_bytes + 1) + table[4:-5] + b"\5" + table[-4:] + b"\x85"
    place_at = data.index(b"iloc") + 18
    (place,) = struct.unpack_from(">I", data, place_at)
    data = data[:place_at] + struct.pack(">I", place + len(box) + 1) + data[place_at + 4 :]
    return data[:table_at] + box + table + data[table_at + table_bytes :]


def aperture(width: int, height: int, right: int = 0, down: int = 0) -> bytes:
    return struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, right, 1, down, 1)


def test_a_cropped_picture_is_refused() -> None:
    data = avif(Image.fromarray(RGB_HWC))
    assert error(with_property(data, aperture(24, 16)), RGB_HWC) <= 3
    for box in (aperture(20, 16), aperture(24, 10), aperture(20, 16, 2, 0), aperture(20, 12, -1, 1)):
        found = decode(with_property(data, box), LIMITS)
        assert isinstance(found, Rejection)
        assert found.reason is Reason.UNSUPPORTED_FORMAT
        assert "clap" in found.detail


@pytest.mark.parametrize("range", ["full", "limited"])
def test_colour_grey_and_alpha_are_read(range: str) -> None:
    colour = Image.fromarray(RGB_HWC)
    grey_HW = RGB_HWC[..., 0]
    alpha_HW1 = RGB_HWC[..., 1:2] / 255
    see_through = Image.fromarray(np.dstack([RGB_HWC, RGB_HWC[..., 1]]))
    assert error(avif(colour, range=range), RGB_HWC) <= 3
    assert error(avif(see_through, range=range), RGB_HWC * alpha_HW1 + 255 * (1 - alpha_HW1)) <= 3
    assert error(encoded(Image.fromarray(grey_HW), "AVIF", quality=100, range=range), np.dstack([grey_HW] * 3)) <= 3


def test_the_first_picture_of_a_sequence_is_read() -> None:
    colour = Image.fromarray(RGB_HWC)
    data = avif(colour, save_all=True, append_images=[colour.rotate(180), colour.rotate(180)])
    assert error(data, RGB_HWC) <= 3


@pytest.mark.parametrize("bits", [10, 12])
def test_10_and_12_bits_are_scaled(bits: int) -> None:
    """Written by libavif without loss: of each sample the upper 8 bits are those of the picture, the lowest is 1."""
    y_HW, x_HW = np.mgrid[0:14, 0:21]
    upper_HWC = np.stack([x_HW * 11, y_HW * 17, (x_HW * y_HW * 3 + x_HW * 5) % 256], -1)
    with zipfile.ZipFile(SOUND) as files:
        data = files.read(f"{bits}_bit.avif")
    assert error(data, (upper_HWC * 2 ** (bits - 8) + 1) / (2**bits - 1) * 255) <= 0.5
