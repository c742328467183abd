"""Encoded bytes -> an upright RGB image, or the reason why not.

The container is walked here, in a few dozen lines per format, and the decoder (Pillow) is handed only the parts that
make pixels. So a cut is found for sure (most decoders pad), sizes are bounded before pixels are allocated, and metadata
can do no harm: Pillow parses no EXIF, ICC profile or text, so it has nothing to warn about or to inflate. No global
state is read or changed: threads may decode at once.

JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read, told apart by their first bytes, never by a name. As RGB:

    grey, 1-bit             replicated to three channels
    palette                 looked up
    alpha, tRNS, GIF key    composited on white: what a page shows behind a picture, and what most cut-outs are made for
    16-bit grey             value / 257, rounded, so that 65535 is white
    16-bit colour           high byte (PNG, TIFF)
    CMYK, YCCK              Pillow's plain (1 - C)(1 - K); Adobe's inverted JPEG is understood
    Lab                     Pillow's conversion to sRGB
    32-bit, float, signed   `unsupported_format`: such samples have no agreed white
    ICC profile             ignored: pixel values are taken as sRGB, so a broken profile changes nothing
    orientation             EXIF tag 274 (AVIF: irot, imir) is applied; orientation in XMP is not read
    animation               the first frame

`truncated` means that bytes are missing at the end, be it the two of a JPEG's end marker; bytes after the end are
ignored (but for AVIF, which has no end). `corrupt` is any other damage. Damage inside the scan of a JPEG that leaves
its markers whole is not seen: the format has no checksum, and libjpeg goes on with what it reads. The same holds for
fax-compressed TIFF; libtiff tells of it on stderr only.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection, RgbImage

_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}


def read_header(data: bytes | memoryview, limits: ImageLimits) -> ImageHeader | Rejection:
    """What the container says, without decoding or allocating pixels; finds cuts that the container shows."""
    found = _inspect(data, limits)
    return found if isinstance(found, Rejection) else found.header


def decode(data: bytes | memoryview, limits: ImageLimits) -> RgbImage | Rejection:
    """All pixels of the first frame, upright, at full size; the same bytes give the same result.

    Raises MemoryError, and nothing else: that is the machine's state and says nothing of the image.
    """
    found = _inspect(data, limits)
    if isinstance(found, Rejection):
        return found
    try:
        with _DECODERS[found.header.format](BytesIO(found.clean)) as image:
            if image.size != (found.width, found.height):
                raise _Unreadable(Reason.CORRUPT, f"the {found.header.format} header names two different sizes")
            return RgbImage(_upright_rgb(image, found.orientation), found.header)
    except MemoryError:
        raise
    except Exception as error:
        return _rejection(error, found.header)


class _Unreadable(Exception):
    """Raised by the walks below, turned into a Rejection before it leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Container:
    """What a walk found: all that decoding needs and nothing that it does not."""

    format: str
    width: int
    height: int
    """Pixels as stored, before orientation."""
    clean: bytes
    """What the decoder is given."""
    frames: int = 1
    orientation: int = 1
    """EXIF code, 1 (upright) to 8."""

    @property
    def header(self) -> ImageHeader:
        sides = (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
        return ImageHeader(*sides, self.format, self.frames)


def _inspect(data: bytes | memoryview, limits: ImageLimits) -> _Container | Rejection:
    num_bytes = data.nbytes if isinstance(data, memoryview) else len(data)
    if num_bytes == 0:
        return Rejection(Reason.EMPTY, "the file has no bytes")
    if num_bytes > limits.max_bytes:
        return Rejection(Reason.TOO_LARGE, f"{num_bytes} bytes are more than the limit of {limits.max_bytes}")
    try:
        container = _walk(bytes(data), limits)
    except MemoryError:
        raise
    except Exception as error:
        return _rejection(error, None)
    return _outside(container.header, limits) or container


def _outside(header: ImageHeader, limits: ImageLimits) -> Rejection | None:
    size = f"{header.width} x {header.height} pixels"
    if min(header.width, header.height) < 1:
        return Rejection(Reason.CORRUPT, f"the {header.format} header claims {size}")
    if header.width * header.height > limits.max_pixels:
        return Rejection(Reason.TOO_LARGE, f"{size} are more than the limit of {limits.max_pixels}", header)
    if min(header.width, header.height) < limits.min_side:
        return Rejection(Reason.TOO_SMALL, f"{size}: the shorter side is under the limit of {limits.min_side}", header)
    return None


_CUT = re.compile("truncated", re.I)
_UNKNOWN_KIND = re.compile(r"unsupported|unknown pixel mode|cannot handle|not (yet )?supported|not installed", re.I)


def _rejection(error: Exception, header: ImageHeader | None) -> Rejection:
    """The image's fault, whatever a decoder calls it."""
    if isinstance(error, _Unreadable):
        return Rejection(error.reason, str(error), header)
    message = str(error)[:200] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        reason = Reason.TOO_LARGE
    elif _CUT.search(message):
        reason = Reason.TRUNCATED
    elif _UNKNOWN_KIND.search(message):
        reason = Reason.UNSUPPORTED_FORMAT
    else:
        reason = Reason.CORRUPT
    return Rejection(reason, f"the {header.format if header else 'image'} does not decode: {message}", header)


# Pixels


_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright_rgb(image: ImageFile.ImageFile, orientation: int) -> NDArray[np.uint8]:
    """Shape (H, W, 3), C-contiguous."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow's TIFF reader warns above 89 million pixels when it allocates; the size is bounded here already.
        image.im = Image.new(image.mode, image.size).im
    image.load()
    rgb = _rgb(image)
    if orientation != 1:
        rgb = rgb.transpose(_TRANSPOSES[orientation])
    return np.asarray(rgb)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey_from_16_bit(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise _Unreadable(Reason.UNSUPPORTED_FORMAT, "32-bit samples have no agreed white")
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


# Containers


def _walk(data: bytes, limits: ImageLimits) -> _Container:
    for magic, walk in _WALKS:
        if magic.match(data):
            return walk(data)
    if data[4:8] == b"ftyp" and re.search(rb"avi[fs]", data[8 : max(16, int.from_bytes(data[:4], "big"))]):
        return _walk_avif(data, limits)
    if data[4:12] == b"ftyp" or (len(data) < 18 and any(start.startswith(data[: len(start)]) for start in _STARTS)):
        raise _Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, inside its first marker")
    raise _Unreadable(Reason.UNSUPPORTED_FORMAT, f"not an image of a supported format: it seems to be {_look(data)}")


_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF", b"II*\0", b"MM\0*", b"BM")

_LOOKS = (
    (re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", re.I | re.DOTALL), "an HTML page"),
    (re.compile(rb"\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)*<(!doctype )?svg", re.I | re.DOTALL), "an SVG drawing"),
    (re.compile(rb"\s*<\?xml", re.I), "an XML document"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"%!PS"), "a PostScript document"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer instead of its file"),
    (re.compile(rb"\s*[{\[]\s*[\"{\[]"), "a JSON document"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"\x1f\x8b"), "gzip data"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), "a JPEG XL image"),
    (re.compile(rb"....ftyp(hei|hev|mif|msf)", re.DOTALL), "an HEIC image"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{4,}\Z"), "plain text"),
)


def _look(data: bytes) -> str:
    start = data[:1024].removeprefix(b"\xef\xbb\xbf")
    return next((name for look, name in _LOOKS if look.match(start)), "binary data")


def _read(layout: str, data: bytes, at: int) -> tuple[Any, ...]:
    """`struct.unpack_from`, where a read past the end is what it means: the file was cut."""
    if at + struct.calcsize(layout) > len(data):
        raise _Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, where more should follow")
    return struct.unpack_from(layout, data, at)


def _must_reach(end: int, data: bytes, part: str) -> None:
    if end > len(data):
        raise _Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, but its {part} ends at {end}")


def _exif_orientation(exif: bytes) -> int:
    """Tag 274 of the first directory; 1 where there is none, or the block is broken."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        if order is None:
            return 1
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (num_entries,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(num_entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, at + 2 + 12 * entry)
            if tag == 274 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
"""All but JFIF (E0) and Adobe (EE), which say what colours the components are."""


def _walk_jpeg(data: bytes) -> _Container:
    """Segments up to the first scan. What follows is left to libjpeg, which waits for the end marker."""
    width = height = 0
    orientation, kept, at = 1, [b"\xff\xd8"], 2
    while True:
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1 : at + 2] == b"\xff":
            at += 1
        (marker,) = _read("B", data, at + 1 if at >= 0 else len(data))
        if marker == 0 or marker in _JPEG_BARE:
            at += 2
            continue
        if marker == 0xD9:
            raise _Unreadable(Reason.CORRUPT, "the jpeg ends before its first scan")
        (length,) = _read(">H", data, at + 2)
        end = at + 2 + length
        _must_reach(end, data, "header")
        if marker in _JPEG_FRAMES:
            height, width = _read(">HH", data, at + 5)
        if marker == 0xDA:
            break
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
            orientation = _exif_orientation(data[at + 4 : end])
        if marker not in _JPEG_METADATA:
            kept.append(data[at:end])
        at = end
    return _Container("jpeg", width, height, b"".join([*kept, memoryview(data)[at:]]), orientation=orientation)


_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_USED = _PNG_PIXELS | {b"eXIf", b"acTL"}


def _walk_png(data: bytes) -> _Container:
    """Every chunk up to IEND; those that are used must match their checksum, which Pillow does not ask of IDAT."""
    width, height = _read(">II", data, 16)
    frames = orientation = 1
    kept, at, kind = [memoryview(data)[:8]], 8, b""
    while kind != b"IEND":
        length, kind = _read(">I4s", data, at)
        if not kind.isalpha() or (at == 8) != (kind == b"IHDR"):
            raise _Unreadable(Reason.CORRUPT, f"the png has no valid chunk at byte {at}")
        end = at + 12 + length
        _must_reach(end, data, f"chunk {kind.decode()}")
        chunk = memoryview(data)[at:end]
        if kind in _PNG_USED and zlib.crc32(chunk[4:-4]) != _read(">I", data, end - 4)[0]:
            raise _Unreadable(Reason.CORRUPT, f"the png's chunk {kind.decode()} at byte {at} fails its checksum")
        if kind == b"tRNS":
            chunk = memoryview(_png_key_in_8_bit(data[at:end], bits=data[24], colour=data[25]))
        if kind in _PNG_PIXELS:
            kept.append(chunk)
        if kind == b"eXIf":
            orientation = _exif_orientation(bytes(chunk[8:-4]))
        if kind == b"acTL":
            frames = max(1, _read(">I", data, at + 8)[0])
        at = end
    return _Container("png", width, height, b"".join(kept), frames, orientation)


def _png_key_in_8_bit(chunk: bytes, bits: int, colour: int) -> bytes:
    """The colour that counts as transparent, as Pillow will see it: it compares samples after it made them 8-bit."""
    body = chunk[8:-4]
    if colour == 0 and bits in (2, 4):
        largest = 2**bits - 1
        body = struct.pack(">H", (_read(">H", body, 0)[0] & largest) * (255 // largest))
    elif colour == 2 and bits == 16:
        body = struct.pack(">3H", *(value >> 8 for value in _read(">3H", body, 0)))
    else:
        return chunk
    return struct.pack(">I4s", len(body), b"tRNS") + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))


def _walk_webp(data: bytes) -> _Container:
    end = 8 + _read("<I", data, 4)[0]
    _must_reach(end, data, "RIFF container")
    width = height = frames = 0
    orientation, at = 1, 12
    while at + 8 <= end:
        kind, length = _read("<4sI", data, at)
        body, at = at + 8, at + 8 + length + length % 2
        if body + length > end:
            raise _Unreadable(Reason.CORRUPT, f"the webp's chunk at byte {body - 8} is longer than the file says it is")
        if kind == b"VP8X":
            width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (body + 4, body + 7))
        elif kind == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in _read("<HH", data, body + 6))
        elif kind == b"VP8L" and not width:
            (bits,) = _read("<I", data, body + 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            orientation = _exif_orientation(data[body : body + length])
    return _Container("webp", width, height, data[:end], max(1, frames), orientation)


def _walk_gif(data: bytes) -> _Container:
    """Every block up to the trailer; the decoder gets the first frame on a screen that it fits on."""
    width, height, flags = _read("<HHB", data, 6)
    at = screen_end = 13 + _colour_table_bytes(flags)
    first, control, frames = b"", b"", 0
    while (kind := _read("B", data, at)[0]) != 0x3B:
        if kind == 0x21:
            if data[at + 1 : at + 3] == b"\xf9\x04" and not frames:
                has_key, _, key = _read("<BHB", data, at + 3)
                control = struct.pack("<3sBHBx", b"!\xf9\x04", has_key & 1, 0, key)
            at = _after_sub_blocks(data, at + 2)
        elif kind == 0x2C:
            left, top, frame_width, frame_height, flags = _read("<HHHHB", data, at + 1)
            start, at = at, _after_sub_blocks(data, at + 11 + _colour_table_bytes(flags))
            frames += 1
            if frames == 1:
                first = data[start:at]
                width, height = max(width, left + frame_width), max(height, top + frame_height)
        elif kind == 0:
            at += 1
        else:
            raise _Unreadable(Reason.CORRUPT, f"the gif has no valid block at byte {at}")
    if not frames:
        raise _Unreadable(Reason.CORRUPT, "the gif has no frame")
    screen = data[:6] + struct.pack("<HH", min(width, 65535), min(height, 65535)) + data[10:screen_end]
    return _Container("gif", width, height, screen + control + first + b";", frames)


def _colour_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    """May lie past the end of a cut file: the next read tells."""
    num_bytes = len(data)
    while at < num_bytes and data[at]:
        at += data[at] + 1
    return at + 1


def _walk_bmp(data: bytes) -> _Container:
    pixels_at, header_bytes = _read("<II", data, 10)
    if header_bytes == 12:
        width, height, _, bits = _read("<HHHH", data, 18)
        compression = data_bytes = 0
    else:
        width, height, _, bits, compression, data_bytes = _read("<iiHHII", data, 18)
    if compression in (1, 2):
        _must_reach(pixels_at + data_bytes, data, "pixel data")
    else:
        _must_reach(pixels_at + (width * bits + 31) // 32 * 4 * abs(height), data, "pixel data")
    return _Container("bmp", width, abs(height), data)


_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Unsigned integers, by type code."""
_TIFF_OPAQUE_BYTES = {5: 8, 7: 1}
"""Fractions and undefined bytes, for the few tags that are not integers: JPEG tables, luma weights, black and white."""
_TIFF_OPAQUE_TAGS = frozenset({347, 529, 532})
_TIFF_ORIENTATION = 274
_TIFF_SCALARS = frozenset({256, 257, 259, 262, 266, 274, 277, 278, 284, 292, 293, 317, 322, 323, *range(512, 516), 531})
_TIFF_ARRAYS = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 347, 519, 520, 521, 529, 530, 532})
"""Tags that make pixels: size, samples, compression, strips, tiles, colour map, tables. No metadata."""


@dataclass(frozen=True, slots=True)
class _TiffLayout:
    """How numbers lie in this file: byte order, classic (4-byte offsets) or BigTIFF (8-byte)."""

    order: str
    offset: str
    count: str

    def entry(self) -> str:
        return f"{self.order}HH{self.offset}"


def _walk_tiff(data: bytes) -> _Container:
    """All pages' directories and strips; the decoder gets a directory of its own that has only what makes pixels."""
    order = "<" if data[:2] == b"II" else ">"
    big = _read(order + "H", data, 2)[0] == 43
    layout = _TiffLayout(order, "Q", "Q") if big else _TiffLayout(order, "I", "H")
    pointer_at = 8 if big else 4
    (at,) = _read(order + layout.offset, data, pointer_at)
    pages: list[_TiffPage] = []
    seen: set[int] = set()
    budget_bytes = len(data)
    while at and at not in seen:
        seen.add(at)
        pages.append(page := _tiff_page(data, at, layout, budget_bytes))
        budget_bytes -= page.num_bytes
        at = page.next_at
    if not pages:
        raise _Unreadable(Reason.CORRUPT, "the tiff has no page")
    first = pages[0].tags
    _check_tiff_samples(first)
    padding = bytes(len(data) % 2)
    pointer = struct.pack(order + layout.offset, len(data) + len(padding))
    after_pointer = memoryview(data)[pointer_at + len(pointer) :]
    directory = struct.pack(order + layout.count, len(pages[0].entries)) + b"".join(pages[0].entries) + bytes(8)
    clean = b"".join([data[:pointer_at], pointer, after_pointer, padding, directory])
    orientation = first.get(_TIFF_ORIENTATION, (1,))[0]
    width, height = (first.get(tag, (0,))[0] for tag in (256, 257))
    return _Container("tiff", width, height, clean, len(pages), orientation if 1 <= orientation <= 8 else 1)


@dataclass(frozen=True, slots=True)
class _TiffPage:
    tags: dict[int, tuple[int, ...]]
    """Integer tags that matter here."""
    entries: list[bytes]
    """Directory entries for the decoder."""
    num_bytes: int
    next_at: int
    """Where the next page's directory is; 0 after the last."""


def _tiff_page(data: bytes, at: int, layout: _TiffLayout, budget_bytes: int) -> _TiffPage:
    """Raises when the directory and its values take more than the budget: overlapping pages cost time without end."""
    (num_entries,) = _read(layout.order + layout.count, data, at)
    entry_bytes = struct.calcsize(layout.entry()) + struct.calcsize(layout.offset)
    at += struct.calcsize(layout.count)
    num_bytes = num_entries * entry_bytes
    end = at + num_bytes
    _must_reach(end, data, "directory")
    tags: dict[int, tuple[int, ...]] = {}
    entries = []
    for entry_at in range(at, end, entry_bytes):
        (tag,) = _read(layout.order + "H", data, entry_at)
        if tag in tags or tag not in _TIFF_SCALARS | _TIFF_ARRAYS:
            continue
        tags[tag], value_bytes, entry = _tiff_value(data, entry_at, layout)
        num_bytes += value_bytes
        if num_bytes > budget_bytes:
            raise _Unreadable(Reason.CORRUPT, "the tiff's directories overlap")
        if tag != _TIFF_ORIENTATION:
            entries.append(entry)
    _check_tiff_strips(tags, data)
    return _TiffPage(tags, entries, num_bytes, _read(layout.order + layout.offset, data, end)[0])


def _tiff_value(data: bytes, at: int, layout: _TiffLayout) -> tuple[tuple[int, ...], int, bytes]:
    """Of the entry at `at`: its integers (none if opaque), its bytes that lie elsewhere, the entry for the decoder."""
    tag, kind, count = _read(layout.entry(), data, at)
    unit = _TIFF_TYPES.get(kind, "")
    num_bytes = count * (struct.calcsize(unit) or _TIFF_OPAQUE_BYTES.get(kind, 0))
    if not num_bytes or not (unit or tag in _TIFF_OPAQUE_TAGS):
        raise _Unreadable(Reason.CORRUPT, f"the tiff's tag {tag} has an impossible type or length")
    value_at = at + struct.calcsize(layout.entry())
    field = data[value_at : value_at + struct.calcsize(layout.offset)]
    outside_bytes = num_bytes if num_bytes > len(field) else 0
    if outside_bytes:
        (value_at,) = _read(layout.order + layout.offset, field, 0)
        _must_reach(value_at + num_bytes, data, f"tag {tag}")
    values = _read(f"{layout.order}{count}{unit}", data, value_at) if unit else ()
    if tag in _TIFF_SCALARS:
        # One value each, whatever the file claims: Pillow warns of a second one.
        field = struct.pack(f"{layout.order}{unit}", values[0]).ljust(len(field), b"\0")
        count = 1
    return values, outside_bytes, struct.pack(layout.entry(), tag, kind, count) + field


def _check_tiff_strips(tags: dict[int, tuple[int, ...]], data: bytes) -> None:
    """Pillow reads past a strip's end and libtiff pads a cut one; so every strip or tile must lie inside the file."""
    starts = tags.get(273) or tags.get(324) or ()
    sizes = tags.get(279) or tags.get(325) or ()
    if not starts or len(starts) != len(sizes):
        raise _Unreadable(Reason.CORRUPT, "the tiff does not say where its strips begin and end")
    _must_reach(max(start + size for start, size in zip(starts, sizes, strict=True)), data, "last strip")
    compression, photometric, samples = (tags.get(tag, (1,))[0] for tag in (259, 262, 277))
    bits = tags.get(258, (1,))
    bits_per_pixel = sum(bits) if len(bits) == samples else bits[0] * samples
    needed_bytes = tags.get(256, (0,))[0] * tags.get(257, (0,))[0] * bits_per_pixel // 8
    if compression == 1 and photometric != 6 and sum(sizes) < needed_bytes:
        raise _Unreadable(Reason.TRUNCATED, f"the tiff's strips hold {sum(sizes)} bytes of {needed_bytes}")


def _check_tiff_samples(tags: dict[int, tuple[int, ...]]) -> None:
    bits, formats = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    if not bits <= {1, 2, 4, 8, 16} or formats != {1}:
        kind = f"{max(bits)} bits, sample format {max(formats)}"
        raise _Unreadable(Reason.UNSUPPORTED_FORMAT, f"tiff samples of {kind} have no agreed white; save 8 or 16 bits")


_AVIF_EXIF_ITEM = re.compile(rb"(infe[\x02\x03]...(?:.{4}|.{6}))Exif", re.DOTALL)
_AVIF_EXTENT = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)


def _walk_avif(data: bytes, limits: ImageLimits) -> _Container:
    """Boxes must lie inside the file. EXIF is renamed away: Pillow parses it, and irot and imir are what counts."""
    clean, has_pixels = data, False
    for kind, start, end in _boxes(data):
        has_pixels = has_pixels or kind == b"mdat" or b"idat" in data[start:end]
        if kind != b"meta":
            continue
        meta = data[start:end]
        for match in _AVIF_EXTENT.finditer(meta):
            width, height = (int.from_bytes(side, "big") for side in match.groups())
            if width * height > limits.max_pixels:
                return _Container("avif", width, height, data)
        clean = data[:start] + _AVIF_EXIF_ITEM.sub(rb"\1none", meta) + data[end:]
    if not has_pixels:
        raise _Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, before the avif's pixel data")
    with AvifImagePlugin.AvifImageFile(BytesIO(clean)) as image:
        orientation = image.getexif().get(274, 1)
        return _Container("avif", *image.size, clean, image.n_frames, orientation)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each outermost box."""
    at = 0
    while at < len(data):
        size, kind = _read(">I4s", data, at)
        if size == 1:
            (size,) = _read(">Q", data, at + 8)
        end = at + size if size else len(data)
        if size and size < 8:
            raise _Unreadable(Reason.CORRUPT, f"the avif has no valid box at byte {at}")
        _must_reach(end, data, "box")
        yield kind, at, end
        at = end


_WALKS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], _Container]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _walk_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _walk_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _walk_webp),
    (re.compile(rb"GIF8[79]a"), _walk_gif),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _walk_tiff),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), _walk_bmp),
)
