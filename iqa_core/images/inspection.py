"""Encoded bytes -> the container that they are, inside the limits, or a rejection; no pixel is decoded."""

from __future__ import annotations

import re
from collections.abc import Callable

from PIL import Image

from iqa_core.images.containers.avif import walk_avif
from iqa_core.images.containers.bmp import walk_bmp
from iqa_core.images.containers.container import Container, Unreadable
from iqa_core.images.containers.gif import walk_gif
from iqa_core.images.containers.jpeg import walk_jpeg
from iqa_core.images.containers.png import walk_png
from iqa_core.images.containers.tiff import walk_tiff
from iqa_core.images.containers.webp import walk_webp
from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection

MAX_COUNT = 2**31 - 1
"""Pixels of a side and frames at most: score tables have int32 for them."""


def inspect(data: bytes | memoryview, limits: ImageLimits) -> Container | Rejection:
    num_bytes = data.nbytes if isinstance(data, memoryview) else len(data)
    if num_bytes == 0:
        return Rejection(Reason.EMPTY, "the file has no bytes")
    if num_bytes > limits.max_bytes:
        return Rejection(Reason.TOO_LARGE, f"{num_bytes} bytes are more than the limit of {limits.max_bytes}")
    try:
        container = _walk(bytes(data), limits)
        return _outside(container.header, num_bytes, limits) or container
    except MemoryError:
        raise
    except Exception as error:
        return rejection(error, None)


def _outside(header: ImageHeader, num_bytes: int, limits: ImageLimits) -> Rejection | None:
    size = f"{header.width} x {header.height} pixels"
    if min(header.width, header.height) < 1:
        return Rejection(Reason.CORRUPT, f"the {header.format} header claims {size}")
    if max(header.width, header.height) > MAX_COUNT:  # without the header, which no table can hold
        return Rejection(Reason.TOO_LARGE, f"{size}: a side is more than {MAX_COUNT}")
    if header.frames > min(num_bytes, MAX_COUNT):  # a frame is a byte at least
        return Rejection(Reason.CORRUPT, f"the {header.format} claims {header.frames} frames in {num_bytes} bytes")
    if header.width * header.height > limits.max_pixels:
        return Rejection(Reason.TOO_LARGE, f"{size} are more than the limit of {limits.max_pixels}", header)
    if min(header.width, header.height) < limits.min_side:
        return Rejection(Reason.TOO_SMALL, f"{size}: the shorter side is under the limit of {limits.min_side}", header)
    return None


_CUT = re.compile("truncated", re.I)
_UNKNOWN_KIND = re.compile(r"unsupported|unknown pixel mode|cannot handle|not (yet )?supported|not installed", re.I)


def rejection(error: Exception, header: ImageHeader | None) -> Rejection:
    """The image's fault, whatever a decoder calls it."""
    if isinstance(error, Unreadable):
        return Rejection(error.reason, str(error), header or error.header)
    # of a decoder's message nothing is known, and what is no UTF-8 goes into no table
    message = str(error)[:200].encode("utf-8", "backslashreplace").decode() or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        reason = Reason.TOO_LARGE
    elif _CUT.search(message):
        reason = Reason.TRUNCATED
    elif _UNKNOWN_KIND.search(message):
        reason = Reason.UNSUPPORTED_FORMAT
    else:
        reason = Reason.CORRUPT
    return Rejection(reason, f"the {header.format if header else 'image'} does not decode: {message}", header)


_WALKS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Container]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), walk_jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), walk_png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), walk_webp),
    (re.compile(rb"GIF8[79]a"), walk_gif),
)
_BOUNDED_WALKS: tuple[tuple[re.Pattern[bytes], Callable[[bytes, ImageLimits], Container]], ...] = (
    (re.compile(rb"II[*+]\0|MM\0[*+]"), walk_tiff),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), walk_bmp),
)
"""Those whose cost is in the size that the header claims."""


def _walk(data: bytes, limits: ImageLimits) -> Container:
    for magic, walk in _WALKS:
        if magic.match(data):
            return walk(data)
    for magic, bounded in _BOUNDED_WALKS:
        if magic.match(data):
            return bounded(data, limits)
    if data[4:8] == b"ftyp" and re.search(rb"avi[fs]", data[8 : max(16, int.from_bytes(data[:4], "big"))]):
        return walk_avif(data, limits)
    if data[4:12] == b"ftyp" or (len(data) < 18 and any(start.startswith(data[: len(start)]) for start in _STARTS)):
        raise Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, inside its first marker")
    raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"not an image of a supported format: it seems to be {_look(data)}")


_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"RIFF", b"II*\0", b"MM\0*", b"BM")

_LOOKS = (
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


_HTML = re.compile(rb"<(!doctype html|html|head|body)", re.I)
_SVG = re.compile(rb"<(!doctype )?svg", re.I)


def _look(data: bytes) -> str:
    start = data[:1024].removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(_without(start, b"<!--", b"-->")):
        return "an HTML page"
    if _SVG.match(_without(_without(start, b"<?xml", b"?>"), b"<!--", b"-->")):
        return "an SVG drawing"
    return next((name for look, name in _LOOKS if look.match(start)), "binary data")


def _without(text: bytes, opening: bytes, closing: bytes) -> bytes:
    """Without white space and parts of that kind at the beginning, in a loop: a pattern of both would run for ever."""
    text = text.lstrip()
    while text[: len(opening)].lower() == opening and (end := text.find(closing, len(opening))) >= 0:
        text = text[end + len(closing) :].lstrip()
    return text
