"""Encoded bytes -> an image whose container was walked, once, and that decodes itself; or a rejection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from iqa_core.images.containers.container import Container, Format, Unreadable
from iqa_core.images.containers.formats import FORMATS
from iqa_core.images.pixels import upright_rgb
from iqa_core.records import ImageHeader, ImageLimits, Reason, Rejection, RgbImage

MAX_COUNT = 2**31 - 1
"""Pixels of a side, and frames, at most: score tables have int32 for them."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """An image that is in order as far as its container shows; it holds on to the file's bytes."""

    format: Format
    container: Container

    @property
    def header(self) -> ImageHeader:
        """What the container says of the upright picture."""
        return self.container.header

    def decode(self) -> RgbImage | Rejection:
        """All pixels of the first frame, upright, at full size. Raises MemoryError, and nothing else."""
        header = self.header
        try:
            clean = b"".join(self.container.parts)
            with self.format.decoder(BytesIO(clean)) as image:
                if image.size != self.container.decoded_size:
                    raise Unreadable(Reason.CORRUPT, f"the {header.format} header names two different sizes")
                return RgbImage(upright_rgb(image, self.container, clean), header)
        except MemoryError:
            raise
        except Exception as error:
            return rejection(error, header)


def inspect(data: bytes | memoryview, limits: ImageLimits) -> Inspected | Rejection:
    """The image, or what is wrong with its container or outside the limits; no pixel is decoded.

    No pixels are allocated either, but for a BMP in runs, which tell only when they are expanded whether they are
    whole. Raises MemoryError, and nothing else: that is the machine's state and says nothing of the image.
    """
    num_bytes = data.nbytes if isinstance(data, memoryview) else len(data)
    if num_bytes == 0:
        return Rejection(Reason.EMPTY, "the file has no bytes")
    if num_bytes > limits.max_bytes:
        return Rejection(Reason.TOO_LARGE, f"{num_bytes} bytes are more than the limit of {limits.max_bytes}")
    try:
        found = _walked(bytes(data), limits)
        return _outside(found.header, num_bytes, limits) or found
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
    """What a walk or a decoder raised, as the rejection of the image; the reason is read from the message."""
    if isinstance(error, Unreadable):
        return Rejection(error.reason, str(error), header or error.header)
    # a decoder's message may be anything, and tables take nothing but UTF-8
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


def _walked(data: bytes, limits: ImageLimits) -> Inspected:
    for known in FORMATS:
        if known.begins(data):
            return Inspected(known, known.walk(data, limits))
    starts = (start for known in FORMATS for start in known.starts)
    if data[4:12] == b"ftyp" or (len(data) < 18 and any(start.startswith(data[: len(start)]) for start in starts)):
        raise Unreadable(Reason.TRUNCATED, f"the file ends after {len(data)} bytes, inside its first marker")
    raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"not an image of a supported format: it seems to be {_look(data)}")


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
    """The text behind white space and parts of that kind. A pattern of both would take time without end."""
    text = text.lstrip()
    while text[: len(opening)].lower() == opening and (end := text.find(closing, len(opening))) >= 0:
        text = text[end + len(closing) :].lstrip()
    return text
