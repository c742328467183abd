"""A BMP's header -> its size, whether its pixels are all there, and a BMP that Pillow reads as it is meant."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from iqa_core.images.containers.container import Container, Unreadable, must_reach, read
from iqa_core.records import ImageLimits, Reason

_RGB, _RLE8, _RLE4, _BITFIELDS = range(4)
_RLE_BITS = {_RLE8: 8, _RLE4: 4}
_OS2_HEADER_BYTES, _OS2_2_HEADER_BYTES = 12, 64


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the headers say."""

    width: int
    height: int
    """Negative where the first row in the file is the upper one."""
    bits: int
    compression: int
    pixels_at: int
    data_bytes: int
    palette: bytes
    """The entries that are in the file, 3 or 4 bytes each."""
    entry_bytes: int

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4


def walk_bmp(data: bytes, limits: ImageLimits) -> Container:
    """Pixels of up to 8 bits get a header and palette that Pillow cannot mistake for grey; RLE is expanded."""
    bmp = _layout(data)
    size = (bmp.width, abs(bmp.height))
    is_rle = bmp.compression in _RLE_BITS
    must_reach(bmp.pixels_at + (bmp.data_bytes if is_rle else bmp.row_bytes * size[1]), data, "pixel data")
    if bmp.width < 1 or size[0] * size[1] > limits.max_pixels:
        return Container("bmp", *size, data)
    if bmp.bits > 8:
        _require_plain_alpha(bmp, data)
        return Container("bmp", *size, data)
    colours = len(bmp.palette) // bmp.entry_bytes
    if is_rle:
        coded = data[: bmp.pixels_at + bmp.data_bytes] if bmp.data_bytes else data
        pixels = _in_rows(_expanded(coded, bmp.pixels_at, *size, bmp.bits), bmp.width)
        return Container("bmp", *size, _clean(bmp, 8, pixels), colours=colours)
    end = bmp.pixels_at + bmp.row_bytes * size[1]
    return Container("bmp", *size, _clean(bmp, bmp.bits, memoryview(data)[bmp.pixels_at : end]), colours=colours)


def _layout(data: bytes) -> _Layout:
    pixels_at, header_bytes = read("<II", data, 10)
    if header_bytes == _OS2_HEADER_BYTES:
        width, height, _, bits = read("<HHHH", data, 18)
        compression = data_bytes = colours = 0
    else:
        width, height, _, bits, compression, data_bytes, colours = read("<iiHHII8xI", data, 18)
    _check_kind(header_bytes, bits, compression)
    entry_bytes = 3 if header_bytes == _OS2_HEADER_BYTES else 4
    palette_at = 14 + header_bytes + (12 if compression == _BITFIELDS and header_bytes == 40 else 0)
    table_bytes = (colours or 2**bits) * entry_bytes if bits <= 8 else 0
    if pixels_at in (0, palette_at):  # some writers forget the palette, or all
        pixels_at = palette_at + table_bytes
    palette = data[palette_at : min(palette_at + min(table_bytes, 2**bits * entry_bytes), pixels_at)]
    return _Layout(width, height, bits, compression, pixels_at, data_bytes, palette, entry_bytes)


def _check_kind(header_bytes: int, bits: int, compression: int) -> None:
    """OS/2's own compressions have the numbers of others (3 is Huffman, 4 runs of 24 bits)."""
    known = compression < (_BITFIELDS if header_bytes == _OS2_2_HEADER_BYTES else _BITFIELDS + 1)
    if not known or bits not in (1, 4, 8, 16, 24, 32) or (compression == _BITFIELDS and bits < 16):
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"a bmp of {bits} bits with compression {compression} is not read")
    if _RLE_BITS.get(compression, bits) != bits:
        raise Unreadable(Reason.CORRUPT, f"the bmp has {bits} bits, which its compression {compression} cannot have")


def _require_plain_alpha(bmp: _Layout, data: bytes) -> None:
    """Raises where 16-bit pixels have alpha that makes a difference: Pillow reads them as opaque."""
    if bmp.bits != 16 or bmp.compression != _BITFIELDS or read("<I", data, 14)[0] < 56:
        return
    (mask,) = read("<I", data, 66)
    values = np.frombuffer(data, "<u2", bmp.row_bytes // 2 * abs(bmp.height), bmp.pixels_at)
    alpha = values.reshape(-1, bmp.row_bytes // 2)[:, : bmp.width] & np.uint16(mask & 0xFFFF)
    if alpha.any() and (alpha != mask & 0xFFFF).any():
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, "alpha in 16-bit bmp pixels is not read; save 32 bits")


def _clean(bmp: _Layout, bits: int, pixels: bytes | memoryview) -> bytes:
    """With a whole palette, black where the file has no entry.

    Pillow takes a palette whose entries are 0, 1, 2, ... for 8-bit grey, and black and white for 1-bit, whatever the
    bits are: with 4 of them, an entry more than there can be keeps it from that.
    """
    table = [bmp.palette[at : at + 3] + b"\0" for at in range(0, len(bmp.palette), bmp.entry_bytes)]
    table += [bytes(4)] * (2**bits - len(table)) + ([b"\1\2\3\0"] if bits == 4 else [])
    offset = 54 + 4 * len(table)
    head = struct.pack("<2sIIIIiiHH", b"BM", offset + len(pixels), 0, offset, 40, bmp.width, bmp.height, 1, bits)
    return b"".join([head, struct.pack("<IIiiII", _RGB, len(pixels), 0, 0, len(table), 0), *table, pixels])


def _in_rows(pixels: bytearray, width: int) -> bytes:
    """Rows of 8-bit pixels, each padded to 4 bytes."""
    padding = bytes(-width % 4)
    return b"".join(bytes(pixels[at : at + width]) + padding for at in range(0, len(pixels), width))


def _expanded(coded: bytes, at: int, width: int, height: int, bits: int) -> bytearray:
    """One byte a pixel, in the order of the file.

    Raises where pixels are left out: a page shows nothing there, Windows black, others the first colour of the palette.
    """
    pixels = bytearray(width * height)
    drawn = x = y = 0
    while y < height and drawn < len(pixels):
        count, value = read("BB", coded, at)
        at += 2
        if count == 0 and value == 0:
            x, y = 0, y + 1
        elif count == 0 and value == 1:
            raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"the bmp draws {drawn} of {len(pixels)} pixels")
        elif count == 0 and value == 2:
            right, up = read("BB", coded, at)
            x, y, at = x + right, y + up, at + 2
        else:
            run, at = _run(coded, at, count, value, bits)
            run = run[: max(0, width - x)]
            pixels[y * width + x : y * width + x + len(run)] = run
            x, drawn = x + len(run), drawn + len(run)
    if drawn < len(pixels):
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"the bmp draws {drawn} of {len(pixels)} pixels")
    return pixels


def _run(coded: bytes, at: int, count: int, value: int, bits: int) -> tuple[bytes, int]:
    """Pixels that are told by one code, and where the next one is."""
    if count:
        pair = bytes([value]) if bits == 8 else bytes([value >> 4, value & 15])
        return (pair * count)[:count], at
    num_bytes = value if bits == 8 else (value + 1) // 2
    literal: bytes = read(f"{num_bytes}s", coded, at)[0]
    if bits == 4:
        literal = bytes(nibble for byte in literal for nibble in (byte >> 4, byte & 15))[:value]
    return literal, at + num_bytes + num_bytes % 2
