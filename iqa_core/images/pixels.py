"""A picture that Pillow has opened -> its pixels, upright, as 8-bit RGB on white."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from iqa_core.images.containers.container import Unreadable
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


def upright_rgb(image: ImageFile.ImageFile, orientation: int, negative: bool = False) -> NDArray[np.uint8]:
    """Shape (H, W, 3), C-contiguous; `negative` pixels are turned around."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow's TIFF reader warns above 89 million pixels when it allocates; the size is bounded here already.
        image.im = Image.new(image.mode, image.size).im
    image.load()
    rgb = _rgb(image)
    if orientation != 1:
        rgb = rgb.transpose(_TRANSPOSES[orientation])
    pixels_HWC = np.asarray(rgb)
    return np.invert(pixels_HWC) if negative else pixels_HWC


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey_from_16_bit(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, "32-bit samples have no agreed white")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


_FROM_16_BIT = ((np.arange(65_536) + 128) // 257).astype(np.uint8)
"""A table, since arithmetic on 100 million pixels would need 32-bit copies of them."""


def _grey_from_16_bit(image: Image.Image) -> Image.Image:
    grey_HW = np.asarray(image)
    scaled_HW = _FROM_16_BIT[grey_HW]
    if "transparency" in image.info:
        scaled_HW[grey_HW == image.info["transparency"]] = 255
    return Image.fromarray(scaled_HW)
