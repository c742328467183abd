"""A picture that Pillow has opened -> its pixels, upright, as 8-bit RGB on white.

Converted in strips into the one array that is handed out: beside the picture as it is decoded, 1 to 4 bytes a pixel,
and that array of 3, a strip is all that is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from iqa_core.images.containers.container import STRIP_PIXELS, WHOLE_PIXELS, Box, Container, Unreadable
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
_UPSIDE_DOWN, _MIRRORED = frozenset({3, 4, 6, 7}), frozenset({2, 3, 7, 8})
"""Orientations in which rows, columns are counted from their other end."""


def upright_rgb(image: ImageFile.ImageFile, found: Container, clean: bytes) -> NDArray[np.uint8]:
    """Pixels, shape (H, W, 3), C-contiguous. clean: the file that the image was opened from.

    Raises Unreadable on a mode that has no agreed white, and on a pixel that names a colour that there is not.
    """
    is_key_HW = _is_key(found.key_16, clean) if found.key_16 else None
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow's TIFF reader warns above 89 million pixels when it allocates; the size is bounded here already.
        image.im = Image.new(image.mode, image.size).im
    image.load()
    _require_colours(image, found)
    if not found.box:
        pixels_HWC = upright(image, found.orientation, is_key_HW)
        in_place = pixels_HWC if pixels_HWC.flags.writeable else None
        return np.invert(pixels_HWC, out=in_place) if found.negative else pixels_HWC
    pixels_HWC = np.full((found.header.height, found.header.width, 3), 255, np.uint8)
    _draw(pixels_HWC, image, found.orientation, found.box, is_key_HW)
    return pixels_HWC


def upright(image: Image.Image, orientation: int, is_key_HW: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Pixels, shape (H, W, 3). Raises Unreadable where the mode has no agreed white.

    orientation: EXIF code, 1 to 8. is_key_HW: pixels that are white whatever they hold.
    """
    if image.width * image.height <= WHOLE_PIXELS:
        [(_, rgb)] = _rgb_strips(image, image.height, is_key_HW)
        return np.asarray(_turned(rgb, orientation))
    sides = image.size if orientation >= 5 else image.size[::-1]
    pixels_HWC = np.empty((*sides, 3), np.uint8)
    _draw(pixels_HWC, image, orientation, Box(0, 0, *image.size), is_key_HW)
    return pixels_HWC


def _draw(
    pixels_HWC: NDArray[np.uint8],
    image: Image.Image,
    orientation: int,
    box: Box,
    is_key_HW: NDArray[np.bool_] | None,
) -> None:
    """Draws the image into its box, which is counted before the picture is turned; the key's pixels become white."""
    for row, rgb in _rgb_strips(image, _strip_rows(image), is_key_HW):
        place = replace(box, top=box.top + row, height=rgb.height)
        _part(pixels_HWC, orientation, place)[...] = np.asarray(_turned(rgb, orientation))


def _rgb_strips(
    image: Image.Image, num_rows: int, is_key_HW: NDArray[np.bool_] | None
) -> Iterator[tuple[int, Image.Image]]:
    """The first row of each strip, and the strip in mode RGB, on white."""
    is_opaque = not image.has_transparency_data or _has_empty_alpha(image)
    for row, strip in _strips(image, num_rows):
        rgb = _on_white(strip, is_opaque)
        if is_key_HW is not None:
            rgb.paste("white", mask=Image.fromarray(is_key_HW[row : row + rgb.height]))
        yield row, rgb


def _strip_rows(image: Image.Image) -> int:
    return STRIP_PIXELS // max(1, image.width) or 1


def _strips(image: Image.Image, num_rows: int) -> Iterator[tuple[int, Image.Image]]:
    """The first row of each, and the strip."""
    if num_rows >= image.height:
        yield 0, image
        return
    for row in range(0, image.height, num_rows):
        yield row, image.crop((0, row, image.width, min(row + num_rows, image.height)))


def _part(pixels_HWC: NDArray[np.uint8], orientation: int, box: Box) -> NDArray[np.uint8]:
    """View of an upright picture where the box is, which is counted before the picture is turned."""
    stored_HWC = pixels_HWC.swapaxes(0, 1) if orientation >= 5 else pixels_HWC
    height, width = stored_HWC.shape[:2]
    top = height - box.top - box.height if orientation in _UPSIDE_DOWN else box.top
    left = width - box.left - box.width if orientation in _MIRRORED else box.left
    part_HWC = stored_HWC[top : top + box.height, left : left + box.width]
    return part_HWC.swapaxes(0, 1) if orientation >= 5 else part_HWC


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_TRANSPOSES[orientation])


def _require_colours(image: Image.Image, found: Container) -> None:
    """Raises where a pixel names a colour that the palette does not have: some viewers show black, others nothing."""
    if found.colours is None or image.mode not in ("P", "L"):
        return
    used = [index for index, count in enumerate(image.histogram()) if count and index != found.key]
    if used and used[-1] >= found.colours:
        raise Unreadable(Reason.CORRUPT, f"a pixel has colour {used[-1]} of a palette of {found.colours}")


def _is_key(key: tuple[int, ...], png: bytes) -> NDArray[np.bool_]:
    """Shape (H, W): where all 16 bits of all samples are those of the key.

    Pillow gives the high bytes; the low ones are read as if the file's samples lay the other way round. One after the
    other, so that there are never two pictures.
    """
    is_key_HW = None
    for args, shift in (("RGB;16B", 8), ("RGB;16L", 0)):
        with PngImagePlugin.PngImageFile(BytesIO(png)) as image:
            image.tile = [tile._replace(args=args) for tile in image.tile]
            image.load()
            if is_key_HW is None:
                is_key_HW = np.ones(image.size[::-1], dtype=bool)
            for row, strip in _strips(image, _strip_rows(image)):
                for band, value in zip(strip.split(), key, strict=True):
                    is_key_HW[row : row + strip.height] &= np.asarray(band) == (value >> shift & 255)
    assert is_key_HW is not None
    return is_key_HW


def _on_white(image: Image.Image, is_opaque: bool) -> Image.Image:
    """Mode RGB, from any mode that has an agreed white."""
    if image.mode.startswith("I;16"):
        return _grey_from_16_bit(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, "32-bit samples have no agreed white")
    if not is_opaque:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")  # La has no way to RGBA
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _has_empty_alpha(image: Image.Image) -> bool:
    """A BMP whose alpha is 0 everywhere has none: its writer left the fourth byte unused."""
    return image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)


_FROM_16_BIT = ((np.arange(65_536) + 128) // 257).astype(np.uint8)
"""A table, since arithmetic on 100 million pixels would need 32-bit copies of them."""


def _grey_from_16_bit(image: Image.Image) -> Image.Image:
    grey_HW = np.asarray(image)
    scaled_HW = _FROM_16_BIT[grey_HW]
    if "transparency" in image.info:
        scaled_HW[grey_HW == image.info["transparency"]] = 255
    return Image.fromarray(scaled_HW)
