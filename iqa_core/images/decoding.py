"""Encoded bytes -> an upright RGB image, or the reason why not.

Each container is walked in `containers/`, which has a file for each format and a line for it in `formats`, and the
decoder (Pillow) is handed only the parts that make pixels. So a cut is found for sure (most decoders pad), sizes are
bounded before pixels are allocated, and metadata can do no harm: Pillow parses no EXIF, ICC profile or text, so it has
nothing to warn about or to inflate. No global state is read or changed: threads may decode at once.

JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read, told apart by their first bytes, never by a name. As RGB:

    grey, 1-bit             replicated to three channels
    palette                 looked up
    alpha, tRNS, GIF key    composited on white: what a page shows behind a picture, and what most cut-outs are made for
    alpha 0 all over a BMP  no alpha: its writer left the fourth byte unused
    16-bit grey             value / 257, rounded, so that 65535 is white
    16-bit colour           high byte (PNG, TIFF)
    CMYK, YCCK              Pillow's plain (1 - C)(1 - K); 255 is no ink in a JPEG, with Adobe's marker or without
    Lab                     Pillow's conversion to sRGB
    32-bit, float, signed   `unsupported_format`: such samples have no agreed white
    WhiteIsZero (TIFF)      turned around
    colour map (TIFF)       its high bytes; values that are all under 256 are taken as 8-bit ones
    other layouts of TIFF   `unsupported_format` where Pillow is not known to be right: `containers/tiff_layouts.py`
    ICC profile             ignored: pixel values are taken as sRGB, so a broken profile changes nothing
    orientation             EXIF tag 274 of the first block that has one (AVIF: irot, imir); in XMP it is not read
    animation, pages        the first frame or page, at its place on white

What viewers show in different colours is not guessed: an index that the palette does not have is `corrupt`, a BMP in
runs that leave pixels out, a GIF without colours and a cropped AVIF (clap) are `unsupported_format`.

`truncated` means that bytes are missing at the end, be it the two of a JPEG's end marker, whatever fills the file up;
bytes after the end are ignored (but for AVIF, which has no end). `corrupt` is any other damage. What is overwritten
inside the pixels and leaves the structure whole is seen in PNG, which has checksums, and mostly in GIF, whose codes run
out. The scan of a JPEG, WebP, AVIF, fax-compressed TIFF, uncompressed BMP and TIFF have nothing of the kind.
"""

from __future__ import annotations

from iqa_core.images.inspection import inspect
from iqa_core.records import ImageHeader, ImageLimits, Rejection, RgbImage


def read_header(data: bytes | memoryview, limits: ImageLimits) -> ImageHeader | Rejection:
    """What the container says, without decoding; finds cuts that the container shows. Raises MemoryError alone."""
    found = inspect(data, limits)
    return found if isinstance(found, Rejection) else found.header


def decode(data: bytes | memoryview, limits: ImageLimits) -> RgbImage | Rejection:
    """All pixels of the first frame, upright, at full size; the same bytes give the same result.

    Raises MemoryError, and nothing else: that is the machine's state and says nothing of the image.
    """
    found = inspect(data, limits)
    return found if isinstance(found, Rejection) else found.decode()
