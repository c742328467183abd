"""A picture that Pillow has opened -> its pixels, upright, as 8-bit RGB on white."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from iqa_core.images.containers.container import Container, Unreadable
from iqa_core.records import Reason

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_rgb(image: ImageFile.ImageFile, found: Container) -> NDArray[np.uint8]:
    """Shape (H, W, 3), C-contiguous."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow's TIFF reader warns above 89 million pixels when it allocates; the size is bounded here already.
        image.im = Image.new(image.mode, image.size).im
    image.load()
    _require_colours(image, found)
    rgb = on_white(image, image.format)
    if found.key_16:
        rgb = _without_key(rgb, found.key_16, found.clean)
    if found.box:
        whole = Image.new("RGB", (found.width, found.height), "white")
        whole.paste(rgb, (found.box.left, found.box.top))
        rgb = whole
    pixels_HWC = np.asarray(turned(rgb, found.orientation))
    return np.invert(pixels_HWC) if found.negative else pixels_HWC


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Upright; orientation: EXIF code, 1 to 8."""
    return image if orientation == 1 else image.transpose(_TRANSPOSES[orientation])


def _require_colours(image: Image.Image, found: Container) -> None:
    """Raises where a pixel names a colour that the palette does not have: some viewers show black, others nothing."""
    if found.colours is None or image.mode not in ("P", "L"):
        return
    used = [index for index, count in enumerate(image.histogram()) if count and index != found.key]
    if used and used[-1] >= found.colours:
        raise Unreadable(Reason.CORRUPT, f"a pixel has colour {used[-1]} of a palette of {found.colours}")


def _without_key(rgb: Image.Image, key: tuple[int, ...], png: bytes) -> Image.Image:
    """White where all 16 bits of all samples are those of the key.

    `rgb` has the high bytes; the low ones are read from the file as if its samples lay the other way round.
    """
    is_key_HW = np.ones(rgb.size[::-1], dtype=bool)
    with PngImagePlugin.PngImageFile(BytesIO(png)) as low:
        low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
        low.load()
        for band, value in enumerate(key):
            is_key_HW &= np.asarray(rgb.getchannel(band)) == value >> 8
            is_key_HW &= np.asarray(low.getchannel(band)) == value & 255
    white = rgb.copy()
    white.paste("white", mask=Image.fromarray(is_key_HW))
    return white


def on_white(image: Image.Image, format: str | None) -> Image.Image:
    """Mode RGB, from any mode that has an agreed white. format: of the file that the pixels are from, if they are."""
    if image.mode.startswith("I;16"):
        return _grey_from_16_bit(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, "32-bit samples have no agreed white")
    if image.mode == "La":
        image = image.convert("LA")  # has no way to RGBA
    if image.has_transparency_data and not _has_empty_alpha(image, format):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _has_empty_alpha(image: Image.Image, format: str | None) -> bool:
    """A BMP whose alpha is 0 everywhere has none: its writer left the fourth byte unused."""
    return format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)


_FROM_16_BIT = ((np.arange(65_536) + 128) // 257).astype(np.uint8)
"""A table, since arithmetic on 100 million pixels would need 32-bit copies of them."""


def _grey_from_16_bit(image: Image.Image) -> Image.Image:
    grey_HW = np.asarray(image)
    scaled_HW = _FROM_16_BIT[grey_HW]
    if "transparency" in image.info:
        scaled_HW[grey_HW == image.info["transparency"]] = 255
    return Image.fromarray(scaled_HW)
