"""Nothing -> encoded images as corpora really hold them: cut, broken, mislabelled, oversized, odd but sound.

Made with Pillow and bytes, the same at every call. Names are valid and unique on a Linux file system.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from iqa_core.records import Reason

WIDTH, HEIGHT = 96, 64
"""Of the picture that most files show: small, so that every byte of a file can be tried as its end."""


@dataclass(frozen=True, slots=True)
class BadImage:
    """A file that a pipeline may stumble over, and what must become of it."""

    name: str
    data: bytes
    reason: Reason | None
    """None: sound, and to be scored."""
    note: str


def picture() -> Image.Image:
    """Upright RGB, no two corners alike, with enough detail that a codec has something to store."""
    y_HW, x_HW = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise_HW = np.random.default_rng(7).integers(0, 24, (HEIGHT, WIDTH))
    channels = (x_HW * 2 + noise_HW, y_HW * 3 + noise_HW, (x_HW + y_HW + noise_HW * 2) % 256)
    return Image.fromarray(np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int) -> bytes:
    """A png of a hundred bytes whose header is valid, checksum and all, and whose pixels are not there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


def png_with_colour_of_16_bit(values_HWC: np.ndarray) -> bytes:
    """Pillow cannot write one."""
    height, width, _ = values_HWC.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def after_png_header(png: bytes, chunk: bytes) -> bytes:
    return png[:33] + chunk + png[33:]


def with_flipped_byte(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def sound_images() -> dict[str, bytes]:
    """One file of each way to store the picture; a test may cut them anywhere."""
    image = picture()
    turned = image.rotate(180)
    return {
        "baseline.jpg": encoded(image, "JPEG"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "plain.png": encoded(image, "PNG"),
        "animated.png": encoded(image, "PNG", save_all=True, append_images=[turned]),
        "lossy.webp": encoded(image, "WEBP"),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "animated.webp": encoded(image, "WEBP", save_all=True, append_images=[turned]),
        "plain.gif": encoded(image, "GIF"),
        "animated.gif": encoded(image, "GIF", save_all=True, append_images=[turned]),
        "plain.bmp": encoded(image, "BMP"),
        "palette.bmp": encoded(image.quantize(64), "BMP"),
        "raw.tif": encoded(image, "TIFF"),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": encoded(image, "TIFF", compression="jpeg"),
        "fax.tif": encoded(image.convert("1"), "TIFF", compression="group4"),
        "plain.avif": encoded(image, "AVIF"),
        "animated.avif": encoded(image, "AVIF", save_all=True, append_images=[turned]),
    }


def bad_images() -> list[BadImage]:
    return [*_not_images(), *_cut(), *_broken(), *_badly_sized(), *_odd_but_sound(), *_oddly_named()]


def _not_images() -> list[BadImage]:
    kind = Reason.UNSUPPORTED_FORMAT
    return [
        BadImage("zero_bytes.jpg", b"", Reason.EMPTY, "an interrupted download"),
        BadImage("one_byte.jpg", b"\n", kind, "a blank answer, saved"),
        BadImage("html.jpg", b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", kind, "an error page"),
        BadImage("text.png", b"403 Forbidden: request has expired\n", kind, "an error message"),
        BadImage(
            "lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", kind, "LFS pointer"
        ),
        BadImage("json.jpg", b'{"error": "rate limit"}', kind, "an API's answer"),
        BadImage("drawing.jpg", b'<?xml version="1.0"?><svg width="9" height="9"/>', kind, "SVG named .jpg"),
        BadImage("document.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", kind, "PDF"),
        BadImage(
            "postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", kind, "never to be interpreted"
        ),
        BadImage("zeros.jpg", bytes(4096), kind, "a hole in a sparse file"),
    ]


def _cut() -> list[BadImage]:
    places = {
        "baseline.jpg": (10, 50, 90, 99),
        "progressive.jpg": (30, 60, 95),
        "plain.png": (1, 50, 99),
        "lossy.webp": (50, 99),
        "animated.webp": (60,),
        "plain.gif": (30, 99),
        "animated.gif": (75,),
        "plain.bmp": (20, 99),
        "raw.tif": (50, 99),
        "lzw.tif": (50,),
        "plain.avif": (40, 99),
    }
    sound = sound_images()
    files = [
        BadImage(f"cut_{percent}_{name}", sound[name][: len(sound[name]) * percent // 100], Reason.TRUNCATED, "cut")
        for name, percents in places.items()
        for percent in percents
    ]
    ends = (("baseline.jpg", 2, "end marker"), ("plain.png", 12, "IEND"), ("plain.gif", 1, "trailer"))
    for name, lost_bytes, end in ends:
        files.append(BadImage(f"no_end_{name}", sound[name][:-lost_bytes], Reason.TRUNCATED, f"lacks only its {end}"))
    return files


def _broken() -> list[BadImage]:
    image = picture()
    png, jpeg = encoded(image, "PNG"), encoded(image, "JPEG")
    tables_at = jpeg.index(b"\xff\xc4") + 5
    middle = len(png) // 2
    return [
        BadImage("bad_pixel_checksum.png", with_flipped_byte(png, middle), Reason.CORRUPT, "a flipped byte in IDAT"),
        BadImage("bad_stored_checksum.png", with_flipped_byte(png, len(png) - 13), Reason.CORRUPT, "CRC of IDAT"),
        BadImage("bad_header_checksum.png", with_flipped_byte(png, 30), Reason.CORRUPT, "CRC of IHDR"),
        BadImage("zeros_inside.png", png[:middle] + bytes(len(png) - middle), Reason.CORRUPT, "a lost block of a disk"),
        BadImage("bad_tables.jpg", jpeg[:tables_at] + b"\xff" * 16 + jpeg[tables_at + 16 :], Reason.CORRUPT, "Huffman"),
        BadImage(
            "no_frame.gif",
            b"GIF89a" + struct.pack("<HHBBB", WIDTH, HEIGHT, 0, 0, 0) + b";",
            Reason.CORRUPT,
            "ends before it begins",
        ),
    ]


def _badly_sized() -> list[BadImage]:
    return [
        BadImage("bomb.png", png_claiming(60_000, 60_000), Reason.TOO_LARGE, "claims 3.6 gigapixels in 100 bytes"),
        BadImage("1x1.png", encoded(Image.new("RGB", (1, 1)), "PNG"), Reason.TOO_SMALL, "a tracking pixel"),
        BadImage("1x1.gif", encoded(Image.new("P", (1, 1)), "GIF"), Reason.TOO_SMALL, "a spacer"),
        BadImage("1x5000.png", encoded(Image.new("RGB", (1, 5000)), "PNG"), Reason.TOO_SMALL, "a border's slice"),
        BadImage("7x7.jpg", encoded(Image.new("RGB", (7, 7)), "JPEG"), Reason.TOO_SMALL, "one under the limit"),
    ]


def _odd_but_sound() -> list[BadImage]:
    image, sound = picture(), sound_images()
    png, jpeg = sound["plain.png"], sound["baseline.jpg"]
    grey = image.convert("L")
    palette = image.quantize(32)
    with_alpha = image.copy()
    with_alpha.putalpha(grey)
    values_HW = np.asarray(grey).astype(np.uint16) * 257
    values_HWC = np.asarray(image).astype(np.uint16) * 257
    broken_profile = png_chunk(b"iCCP", b"broken\0\0" + b"this is no zlib stream")
    rotated = exif_with_orientation(6)
    return [
        BadImage("really_a_png.jpg", png, None, "wrong extension"),
        BadImage("no_extension", jpeg, None, "no extension"),
        BadImage("upper_case.JPG", jpeg, None, "upper case extension"),
        BadImage("cmyk.jpg", sound["cmyk.jpg"], None, "for print, inverted as Adobe does"),
        BadImage("grey.jpg", encoded(grey, "JPEG"), None, "one channel"),
        BadImage("garbage_after_end.jpg", jpeg + bytes(range(256)), None, "bytes after the end marker"),
        BadImage("rotated.jpg", encoded(image, "JPEG", exif=rotated), None, "EXIF orientation 6: width is height"),
        BadImage("rotated.webp", encoded(image, "WEBP", exif=rotated), None, "EXIF orientation 6 in WebP"),
        BadImage("grey_16_bit.png", encoded(Image.fromarray(values_HW), "PNG"), None, "white is 65535"),
        BadImage("colour_16_bit.png", png_with_colour_of_16_bit(values_HWC), None, "two bytes a channel"),
        BadImage("1_bit.png", encoded(image.convert("1"), "PNG"), None, "black and white"),
        BadImage("grey_alpha.png", encoded(with_alpha.convert("LA"), "PNG"), None, "LA"),
        BadImage("alpha.png", encoded(with_alpha, "PNG"), None, "RGBA"),
        BadImage("palette_alpha.png", encoded(palette, "PNG", transparency=bytes(range(0, 256, 8))), None, "P, tRNS"),
        BadImage("palette_key.gif", encoded(palette, "GIF", transparency=3), None, "P with a transparent index"),
        BadImage("animated.gif", sound["animated.gif"], None, "two frames"),
        BadImage("animated.webp", sound["animated.webp"], None, "two frames"),
        BadImage("animated.png", sound["animated.png"], None, "two frames"),
        BadImage("broken_profile.png", after_png_header(png, broken_profile), None, "the ICC profile does not inflate"),
        BadImage("broken_profile.jpg", encoded(image, "JPEG", icc_profile=b"\xff" * 200), None, "ICC profile of noise"),
        BadImage("fax.tif", sound["fax.tif"], None, "CCITT group 4"),
        BadImage("1000x8.png", encoded(image.resize((1000, 8)), "PNG"), None, "long and thin, just within limits"),
    ]


def _oddly_named() -> list[BadImage]:
    jpeg = encoded(picture(), "JPEG")
    return [
        BadImage("räum_客厅_🛋.jpg", jpeg, None, "not ASCII"),
        BadImage("n" * 246 + ".jpg", jpeg, None, "250 bytes, of the 255 that a file system allows"),
        BadImage("with spaces  and %23 #1 & 'single' \"double\".jpg", jpeg, None, "what URLs and shells trip over"),
        BadImage("a=b,c;d+e?f*[g]{h}~.jpg", jpeg, None, "what globs and queries trip over"),
        BadImage("line\nbreak\ttab.jpg", jpeg, None, "what tables trip over"),
        BadImage("-dash.jpg", jpeg, None, "looks like a flag"),
    ]
