"""Samples and a layout -> a TIFF written by hand, and the pixels that it must have; no reader has a part in it."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np
import pyarrow as pa
from PIL import Image, TiffImagePlugin

WIDTH, HEIGHT = 21, 19
"""Odd, and no multiple of a byte, a strip's 5 rows or a tile's 16."""
ROWS_PER_STRIP, TILE = 5, 16

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
RAW, RLE, FAX3, FAX4, LZW, JPEG, DEFLATE, OLD_DEFLATE = 1, 2, 3, 4, 5, 7, 8, 32946
PACKBITS, LZMA, ZSTD, THUNDERSCAN = 32773, 34925, 50000, 32809
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
"""What an extra sample is; the middle one is an alpha that the colours are multiplied by."""


@dataclass(frozen=True, slots=True)
class Layout:
    photometric: int = RGB
    bits: int = 8
    extra: tuple[int, ...] = ()
    planes: bool = False
    blocks: str = "strip"
    """`strip`, `strips` or `tiles`."""
    order: str = "<"
    big: bool = False
    compression: int = RAW
    predictor: int = 1
    fill_order: int = 1
    map_bits: int = 16
    """Of a colour map's values."""
    tile: int = TILE
    """Its side."""

    @property
    def samples(self) -> int:
        return COLOURS[self.photometric] + len(self.extra)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a file says otherwise than its layout: tags set or (None) left out, their types."""

    tags: dict[int, list[int] | None] = field(default_factory=dict)
    kinds: dict[int, int] = field(default_factory=dict)


def samples_of(layout: Layout) -> np.ndarray:
    """Shape (H, W, samples): noise where every bit counts; a smooth picture for JPEG; pale colours of Lab, which sRGB
    has; colours that are multiplied by their alpha, and so no more than it."""
    shape = (HEIGHT, WIDTH, layout.samples)
    if layout.compression == JPEG:
        y_HW1, x_HW1 = np.mgrid[0:HEIGHT, 0:WIDTH][..., None]
        samples = 40 + 6 * y_HW1 + 4 * x_HW1 * (1 + np.arange(shape[2])) % 60 // 4
        return samples.astype(np.uint8)
    samples = np.random.default_rng(5).integers(0, 1 << layout.bits, shape)
    if layout.photometric == LAB:
        samples = np.concatenate([samples[..., :1] // 2 + 60, samples[..., 1:] % 20 - 10], axis=2)
    if ASSOCIATED in layout.extra:
        alpha = samples[..., COLOURS[layout.photometric], None]
        colours = samples[..., : COLOURS[layout.photometric]]
        colours[...] = colours * alpha // ((1 << layout.bits) - 1)
    return samples.astype(np.uint16 if layout.bits == 16 else np.uint8)


def colour_map(layout: Layout) -> np.ndarray:
    """Shape (colours, 3), 8-bit values."""
    return np.random.default_rng(9).integers(0, 256, (1 << layout.bits, 3))


def tiff(samples_HWS: np.ndarray, layout: Layout, changes: Changes = Changes()) -> bytes:
    tags: dict[int, list[int] | None] = {
        256: [samples_HWS.shape[1]],
        257: [samples_HWS.shape[0]],
        258: [layout.bits] * layout.samples,
        259: [layout.compression],
        262: [layout.photometric],
        277: [layout.samples],
        284: [2 if layout.planes else 1],
    }
    if layout.extra:
        tags[338] = list(layout.extra)
    if layout.predictor != 1:
        tags[317] = [layout.predictor]
    if layout.fill_order != 1:
        tags[266] = [layout.fill_order]
    if layout.photometric == PALETTE:
        scale = 257 if layout.map_bits == 16 else 1
        tags[320] = (colour_map(layout).T.reshape(-1) * scale).tolist()
    if layout.photometric == YCBCR:
        tags[530] = [1, 1]
    if layout.blocks == "tiles":
        tags |= {322: [layout.tile], 323: [layout.tile]}
    else:
        tags[278] = [ROWS_PER_STRIP if layout.blocks == "strips" else samples_HWS.shape[0]]
    blocks = [compressed(block, layout) for block in blocks_of(samples_HWS, layout)]
    return file_of(tags, blocks, layout, changes)


def blocks_of(samples_HWS: np.ndarray, layout: Layout) -> Iterator[np.ndarray]:
    parts = np.split(samples_HWS, layout.samples, axis=2) if layout.planes else [samples_HWS]
    for part in parts:
        if layout.blocks != "tiles":
            yield from (
                np.split(part, range(ROWS_PER_STRIP, HEIGHT, ROWS_PER_STRIP)) if layout.blocks == "strips" else [part]
            )
            continue
        side, (height, width, _) = layout.tile, part.shape
        padded = np.pad(part, ((0, -height % side), (0, -width % side), (0, 0)), constant_values=1)
        for y in range(0, height, side):
            yield from (padded[y : y + side, x : x + side] for x in range(0, width, side))


def compressed(block_HWS: np.ndarray, layout: Layout) -> bytes:
    if layout.compression in (RLE, FAX3, FAX4, JPEG):
        data = _by_an_encoder(block_HWS, layout)
    elif layout.compression == THUNDERSCAN:
        data = (block_HWS | 0xC0).tobytes()  # one pixel in each byte
    else:
        data = _COMPRESSIONS[layout.compression](_rows(block_HWS, layout))
    return data.translate(_REVERSED_BITS) if layout.fill_order == 2 and layout.compression != JPEG else data


_REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _rows(block_HWS: np.ndarray, layout: Layout) -> bytes:
    values = block_HWS
    if layout.predictor == 2:
        values = np.concatenate([values[:, :1], values[:, 1:] - values[:, :-1]], axis=1)
    if layout.bits >= 8:
        return values.astype(f"{layout.order}u{layout.bits // 8}").tobytes()
    shifts = np.arange(layout.bits - 1, -1, -1)
    bits_HX = (values[..., None] >> shifts & 1).astype(np.uint8).reshape(len(values), -1)
    return np.packbits(bits_HX, axis=1).tobytes()


def _packbits(rows: bytes) -> bytes:
    runs = (rows[at : at + 128] for at in range(0, len(rows), 128))
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def _lzw(rows: bytes) -> bytes:
    """Literals alone, with a clear code before codes would take more than 9 bits."""
    codes = [256]
    for at, value in enumerate(rows):
        codes += [value, 256] if at % 250 == 249 else [value]
    bits = "".join(f"{code:09b}" for code in (*codes, 257))
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


_COMPRESSIONS: dict[int, Callable[[bytes], bytes]] = {
    RAW: bytes,
    LZW: _lzw,
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    PACKBITS: _packbits,
    LZMA: lzma.compress,
    ZSTD: lambda rows: bytes(pa.Codec("zstd").compress(rows)),
}


def _by_an_encoder(block_HWS: np.ndarray, layout: Layout) -> bytes:
    """JPEG of a strip or tile, or its fax code, cut out of a TIFF of one strip."""
    buffer = BytesIO()
    if layout.compression == JPEG:
        mode = {1: "L", 3: "YCbCr" if layout.photometric == YCBCR else "RGB", 4: "CMYK"}[block_HWS.shape[2]]
        values = 255 - block_HWS if mode == "CMYK" else block_HWS
        image = Image.frombytes(mode, values.shape[1::-1], values.tobytes())
        keep_rgb = {"keep_rgb": True} if mode == "RGB" else {}
        image.save(buffer, "JPEG", quality=100, subsampling="4:4:4", **keep_rgb)
        return buffer.getvalue()
    name = {RLE: "tiff_ccitt", FAX3: "group3", FAX4: "group4"}[layout.compression]
    Image.fromarray(block_HWS[..., 0] == 1).save(buffer, "TIFF", compression=name, strip_size=1 << 20)
    buffer.seek(0)
    with TiffImagePlugin.TiffImageFile(buffer) as image:
        (at,), (size,) = image.tag_v2[273], image.tag_v2[279]
    return buffer.getvalue()[at : at + size]


_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q"}


def file_of(
    tags: dict[int, list[int] | None],
    blocks: list[bytes],
    layout: Layout,
    changes: Changes = Changes(),
) -> bytes:
    """Header, blocks, directory; blocks and tables begin at even offsets."""
    order, big = layout.order, layout.big
    body = bytearray(16 if big else 8)
    at = [_append(body, block) for block in blocks]
    starts, sizes = (324, 325) if layout.blocks == "tiles" else (273, 279)
    tags = tags | {starts: at, sizes: [len(block) for block in blocks]} | changes.tags
    entries = []
    for tag, values in sorted(tags.items()):
        if values is None:
            continue
        kind = changes.kinds.get(tag) or (4 if tag in (256, 257, 278, 273, 279, 324, 325) else 3)
        data = struct.pack(f"{order}{len(values)}{_TYPES[kind]}", *values)
        if len(data) > (8 if big else 4):
            data = struct.pack(order + ("Q" if big else "I"), _append(body, data))
        head = struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values))
        entries.append(head + data.ljust(8 if big else 4, b"\0"))
    count = struct.pack(order + ("Q" if big else "H"), len(entries))
    directory_at = _append(body, count + b"".join(entries) + bytes(8 if big else 4))
    magic = b"II" if order == "<" else b"MM"
    if big:
        body[:16] = magic + struct.pack(order + "HHHQ", 43, 8, 0, directory_at)
    else:
        body[:8] = magic + struct.pack(order + "HI", 42, directory_at)
    return bytes(body)


def _append(body: bytearray, data: bytes) -> int:
    body += bytes(len(body) % 2)
    body += data
    return len(body) - len(data)


def pixels_of(samples_HWS: np.ndarray, layout: Layout) -> np.ndarray:
    """Shape (H, W, 3), uint8 on white, by the definitions of TIFF 6.0 and the table in `docs/score-table.md`."""
    colours, extra = np.split(samples_HWS.astype(int), [COLOURS[layout.photometric]], axis=2)
    if layout.photometric == PALETTE:
        rgb = colour_map(layout)[colours[..., 0]].astype(float)
    else:
        rgb = _TO_RGB[layout.photometric](_to_8_bits(colours, layout))
    alphas = [kind in (ASSOCIATED, UNASSOCIATED) for kind in layout.extra]
    if True not in alphas:
        return np.broadcast_to(np.rint(rgb), (*rgb.shape[:2], 3)).astype(np.uint8)
    at = alphas.index(True)
    opacity = extra[..., at, None] / ((1 << layout.bits) - 1)
    over = rgb if layout.extra[at] == ASSOCIATED else rgb * opacity
    on_white = np.rint(over + 255 * (1 - opacity)).clip(0, 255)
    return np.broadcast_to(on_white, (*rgb.shape[:2], 3)).astype(np.uint8)


def _to_8_bits(colours: np.ndarray, layout: Layout) -> np.ndarray:
    if layout.bits == 16:
        grey = layout.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        return (colours + 128) // 257 if grey else colours >> 8
    return colours * 255 // ((1 << layout.bits) - 1)


def _rgb_of_cmyk(cmyk: np.ndarray) -> np.ndarray:
    return (255 - cmyk[..., :3]) * (255 - cmyk[..., 3:]) / 255


def _rgb_of_ycbcr(ycbcr: np.ndarray) -> np.ndarray:
    y, cb, cr = np.moveaxis(ycbcr - np.array([0, 128, 128]), -1, 0)
    return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).clip(0, 255)


def _rgb_of_lab(lab: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D50, a and b signed -> XYZ -> linear sRGB (Bradford, by Lindbloom) -> sRGB."""
    signed = np.where(lab[..., 1:] > 127, lab[..., 1:] - 256, lab[..., 1:])
    y = (lab[..., 0] / 2.55 + 16) / 116
    f = np.stack([y + signed[..., 0] / 500, y, y - signed[..., 1] / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 108 / 841) * np.array([0.9642, 1, 0.8249])
    matrix = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = (xyz @ matrix.T).clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


_TO_RGB: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    WHITE_IS_ZERO: lambda grey: 255 - grey,
    BLACK_IS_ZERO: lambda grey: grey,
    RGB: lambda rgb: rgb,
    CMYK: _rgb_of_cmyk,
    YCBCR: _rgb_of_ycbcr,
    LAB: _rgb_of_lab,
}


def layouts() -> Iterator[Layout]:
    """The product of all that a TIFF may be."""
    for bits in (1, 2, 4, 8, 16):
        for photometric, extra in _COLOURS_AND_EXTRA:
            for planes in (False, True):
                for blocks in ("strip", "strips", "tiles"):
                    for order in "<>":
                        for big in (False, True):
                            yield from _stored(Layout(photometric, bits, extra, planes, blocks, order, big))


_COLOURS_AND_EXTRA = [
    *((photometric, ()) for photometric in COLOURS),
    *(
        (photometric, (extra,))
        for photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK)
        for extra in (UNSPECIFIED, ASSOCIATED, UNASSOCIATED)
    ),
    *((RGB, (extra, UNSPECIFIED)) for extra in (UNSPECIFIED, ASSOCIATED, UNASSOCIATED)),
    (RGB, (UNSPECIFIED, UNASSOCIATED)),
    (RGB, (UNASSOCIATED, UNSPECIFIED, UNSPECIFIED)),
    (CMYK, (UNSPECIFIED, UNSPECIFIED)),
]


def _stored(layout: Layout) -> Iterator[Layout]:
    never_read = layout.bits < 8 and layout.samples > 1
    for compression in (RAW, LZW) if never_read else (RAW, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD):
        if compression in (OLD_DEFLATE, LZMA, ZSTD) and (layout.big or layout.blocks != "strips"):
            continue
        for fill_order in (1, 2):
            plain = replace(layout, compression=compression, fill_order=fill_order)
            yield plain
            if layout.photometric == PALETTE:
                yield replace(plain, map_bits=8)
            elif compression not in (RAW, PACKBITS):
                yield replace(plain, predictor=2)
    for compression in (RLE, FAX3, FAX4) if layout.bits == layout.samples == 1 else ():
        for fill_order in (1, 2):
            yield replace(layout, compression=compression, fill_order=fill_order)
    if layout.bits == 8 and layout.photometric not in (PALETTE, LAB) and (layout.planes or layout.samples in (1, 3, 4)):
        yield from (replace(layout, compression=JPEG, fill_order=fill_order) for fill_order in (1, 2))
