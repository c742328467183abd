"""A BMP's header -> its size, whether its pixels are all there, and a BMP that Pillow reads as it is meant."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin

from iqa_core.images.containers.container import Container, Format, Unreadable, must_reach, read
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


def _walk(data: bytes, limits: ImageLimits) -> Container:
    """Pixels of up to 8 bits get a header and palette that Pillow cannot mistake for grey; RLE is expanded."""
    bmp = _layout(data)
    size = (bmp.width, abs(bmp.height))
    is_rle = bmp.compression in _RLE_BITS
    must_reach(bmp.pixels_at + (bmp.data_bytes if is_rle else bmp.row_bytes * size[1]), data, "pixel data")
    if bmp.width < 1 or size[0] * size[1] > limits.max_pixels:
        return Container("bmp", *size, ())
    if bmp.bits > 8:
        _require_plain_alpha(bmp, data)
        return Container("bmp", *size, (data,), is_whole_file=True)
    colours = len(bmp.palette) // bmp.entry_bytes
    if is_rle:
        coded = memoryview(data)[: bmp.pixels_at + bmp.data_bytes] if bmp.data_bytes else data
        rows = _expanded(np.frombuffer(coded, np.uint8)[bmp.pixels_at :], *size, bmp.bits)
        clean = b"".join([_head(bmp, 8, rows.nbytes), rows.data.cast("B")])
        return Container("bmp", *size, (clean,), colours=colours, pixel_bytes=1)
    end = bmp.pixels_at + bmp.row_bytes * size[1]
    head, pixels = _head(bmp, bmp.bits, end - bmp.pixels_at), memoryview(data)[bmp.pixels_at : end]
    return Container("bmp", *size, (head, pixels), colours=colours, pixel_bytes=1)


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
    """Raises on what is not read. OS/2 gives other compressions the same numbers (3 is Huffman, 4 runs of 24 bits)."""
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


def _head(bmp: _Layout, bits: int, pixel_bytes: int) -> bytes:
    """What stands before the pixels, with a whole palette, black where the file has no entry.

    Pillow takes a palette whose entries are 0, 1, 2, ... for 8-bit grey, and black and white for 1-bit, whatever the
    bits are: with 4 of them, an entry more than there can be keeps it from that.
    """
    table = [bmp.palette[at : at + 3] + b"\0" for at in range(0, len(bmp.palette), bmp.entry_bytes)]
    table += [bytes(4)] * (2**bits - len(table)) + ([b"\1\2\3\0"] if bits == 4 else [])
    offset = 54 + 4 * len(table)
    head = struct.pack("<2sIIIIiiHH", b"BM", offset + pixel_bytes, 0, offset, 40, bmp.width, bmp.height, 1, bits)
    return b"".join([head, struct.pack("<IIiiII", _RGB, pixel_bytes, 0, 0, len(table), 0), *table])


_PIECE_BYTES = 2**16
"""Bytes of codes that are expanded at a time: up to 8 MB of pixels."""


def _expanded(coded: NDArray[np.uint8], width: int, height: int, bits: int) -> NDArray[np.uint8]:
    """Pixels, a byte each, in the order of the file; each row is padded to 4 bytes.

    Raises where pixels are left out: a page shows nothing there, Windows black, others the first colour of the palette.
    """
    pixels = np.empty(width * height, np.uint8)
    drawn = at = x = 0
    while drawn < len(pixels):
        codes = _Codes.of(coded[at : at + _PIECE_BYTES], bits)
        if not codes.num_bytes:
            raise Unreadable(Reason.TRUNCATED, f"the file ends after {drawn} of {len(pixels)} pixels of the bmp")
        run, x, is_stopped = codes.pixels(x, width, bits)
        part = pixels[drawn : drawn + len(run)]
        part[:] = run[: len(part)]
        drawn, at = drawn + len(part), at + codes.num_bytes
        if is_stopped and drawn < len(pixels):
            raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"the bmp draws {drawn} of {len(pixels)} pixels, then skips")
    rows = np.zeros((height, width + -width % 4), np.uint8)
    rows[:, :width] = pixels.reshape(height, width)
    return rows


@dataclass(frozen=True, slots=True)
class _Codes:
    """A piece of the codes of runs and of literal pixels, parsed; places are those of bytes in it."""

    data: NDArray[np.uint8]
    num_bytes: int
    """Bytes of whole codes; the rest belongs to the next piece."""
    repeats: NDArray[np.intp]
    """Pixels that each byte stands for, were rows without an end."""
    row_ends: NDArray[np.intp]
    stop: int
    """Where the first code stands that ends the picture or skips pixels; `num_bytes` if there is none."""

    @classmethod
    def of(cls, data: NDArray[np.uint8], bits: int) -> _Codes:
        """Parses a piece. All codes begin at even places, since literal pixels are padded."""
        first, second = data[: len(data) // 2 * 2].reshape(-1, 2).T
        num_literal = np.where(second > 2, second if bits == 8 else (second + np.uint16(1)) // 2, 2)
        is_long = (first == 0) & (second >= 2)
        long, num_bytes = _reached(np.flatnonzero(is_long) * 2, num_literal[is_long], len(data))
        in_long = _covered(long + 2, long + 2 + (size := num_literal[long // 2]), len(data))
        is_code = ~_covered(long + 2, long + 2 + size + size % 2, len(data) + 1)[: len(first) * 2 : 2]
        is_code[num_bytes // 2 :] = False
        # literal bytes are pixels each, what a move says is none, a run's second byte is as many as its first says
        is_move = second[long // 2] == 2
        repeats = np.zeros(len(data), np.intp)
        repeats[in_long] = 8 // bits
        literal, moves = long[~is_move], long[is_move]
        if bits == 4:
            repeats[(literal + 1 + size[~is_move])[second[literal // 2] % 2 == 1]] = 1
        repeats[moves + 2] = repeats[moves + 3] = 0
        repeats[1 : len(first) * 2 : 2][is_code & (first > 0)] = first[is_code & (first > 0)]
        ends = np.flatnonzero(is_code & (first == 0) & (second == 1)) * 2
        jumps = moves[(data[moves + 2] > 0) | (data[moves + 3] > 0)]
        stop = min([*ends[:1], *jumps[:1]], default=num_bytes)
        return cls(data, num_bytes, repeats, np.flatnonzero(is_code & (first == 0) & (second == 0)) * 2, int(stop))

    def pixels(self, x: int, width: int, bits: int) -> tuple[NDArray[np.uint8], int, bool]:
        """Pixels from the column x on, the column after them, and whether a pixel of the picture was left out.

        What goes beyond the width of a row is not drawn.
        """
        before = np.concatenate([[0], np.cumsum(self.repeats[: self.num_bytes])])
        row_starts = np.concatenate([[-x], before[self.row_ends]])
        short = self.row_ends[np.diff(row_starts) < width]
        stop = min([self.stop, *short[:1]])
        row_of_byte = np.searchsorted(self.row_ends, np.arange(stop), "right")
        left = width - (before[:stop] - row_starts[row_of_byte])
        repeats = np.clip(left, 0, self.repeats[:stop])
        pixels = np.repeat(self.data[:stop], repeats)
        if bits == 4:
            is_low = np.repeat((np.cumsum(repeats) - repeats) % 2 == 1, repeats)  # each byte begins with its high half
            is_low[1::2] ^= True
            pixels = np.where(is_low, pixels & 15, pixels >> 4)
        return pixels, min(width, int(before[-1] - row_starts[-1])), bool(stop < self.num_bytes)


def _reached(long: NDArray[np.intp], sizes: NDArray[np.integer], num_bytes: int) -> tuple[NDArray[np.intp], int]:
    """Where codes with literal pixels stand, less what looks like one inside of pixels; and where whole codes end."""
    found: list[int] = []
    end = 0
    for at, size in zip(long.tolist(), sizes.tolist(), strict=True):
        if at >= end:
            if at + 2 + size > num_bytes:
                return np.array(found, np.intp), at
            found.append(at)
            end = at + 2 + size + size % 2
    return np.array(found, np.intp), min(num_bytes, max(end, num_bytes // 2 * 2))


def _covered(starts: NDArray[np.intp], ends: NDArray[np.intp], num_bytes: int) -> NDArray[np.bool_]:
    """Whether each byte lies in one of the ranges, which do not overlap."""
    steps = np.zeros(num_bytes + 1, np.int8)
    steps[starts] += 1
    steps[ends] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool)


BMP = Format(
    re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL).match,
    _walk,
    BmpImagePlugin.BmpImageFile,
    starts=(b"BM",),
)
