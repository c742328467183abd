"""A TIFF page's tags -> the tags under which the decoder gives its true pixels, or the reason why it would not.

Pillow reads some layouts wrongly without a word, and calls some sound ones damaged. The tables below are the layouts
of which `tests/images/containers/test_tiff.py` proves the pixels; all others are refused. Some are brought into one of
them: WhiteIsZero is read as BlackIsZero and inverted, a single plane is none, extra planes go, 8-bit maps are scaled.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from iqa_core.images.containers.container import Unreadable, must_reach
from iqa_core.images.containers.jpeg import MOST_PIXELS_SCANNED, USUAL_SCANS, frame_size
from iqa_core.records import ImageHeader, Reason

Values = Sequence[int]
"""Tuples, but for where strips and tiles begin and how long they are: those are arrays, for there may be millions."""
Tags = Mapping[int, Values]
"""The integers of a directory."""

(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER) = (256, 257, 258, 259, 262, 266)
(STRIP_STARTS, SAMPLES, ROWS_PER_STRIP, STRIP_SIZES, PLANES, PREDICTOR) = (273, 277, 278, 279, 284, 317)
(COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILE_STARTS, TILE_SIZES) = (320, 322, 323, 324, 325)
(INK_SET, EXTRA, SAMPLE_FORMAT, JPEG_START, JPEG_SIZE, SUBSAMPLING) = (332, 338, 339, 513, 514, 530)
_STRIPS, _TILES = (STRIP_STARTS, STRIP_SIZES), (TILE_STARTS, TILE_SIZES)

_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
"""Samples of a pixel before the extra ones, by photometric interpretation."""
CAMERA_RAW = {32803: "a colour filter array", 34892: "linear raw"}
_PHOTOMETRICS = CAMERA_RAW | {
    _GREY: "grey",
    _RGB: "RGB",
    _PALETTE: "palette",
    4: "a transparency mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    _LAB: "Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32844: "LogL",
    32845: "LogLuv",
}

_UNSPECIFIED, _ASSOCIATED, _ALPHA, _COREL_ALPHA = 0, 1, 2, 999
_EXTRAS = {_UNSPECIFIED: "an extra sample", _ASSOCIATED: "multiplied alpha", _ALPHA: "alpha"}
_UPTO_3_EXTRAS = tuple((kind, *(0,) * more) for kind in (0, 1, 2) for more in (0, 1, 2))

_Table = Mapping[tuple[int, int], tuple[tuple[int, ...], ...]]
"""Extra samples that are read rightly, by colours and bits."""
_CHUNKY: _Table = {
    **{(_GREY, bits): ((),) for bits in (1, 2, 4, 16)},
    **{(_PALETTE, bits): ((),) for bits in (1, 2, 4)},
    (_GREY, 8): ((), (0,), (2,)),
    (_PALETTE, 8): ((), (0,), (2,)),
    (_RGB, 8): ((), *_UPTO_3_EXTRAS),
    (_RGB, 16): ((), (0,), (1,), (2,)),
    (_CMYK, 8): ((), (0,), (0, 0)),
    (_CMYK, 16): ((),),
    (_YCBCR, 8): ((),),
    (_LAB, 8): ((),),
}
_PLANAR: _Table = {
    (_RGB, 8): ((), (1,), (2,)),
    (_RGB, 16): ((), (1,), (2,)),
    (_CMYK, 8): ((),),
    (_CMYK, 16): ((),),
    (_YCBCR, 8): ((),),
}
_PLANAR_UNCOMPRESSED: _Table = {(_RGB, 8): ((), (2,)), (_CMYK, 8): ((),)}
_REVERSED_BITS = {(_RGB, 8), *((colours, bits) for colours in (_GREY, _PALETTE) for bits in (1, 2, 4, 8))}
"""What is read rightly where the bits of each byte stand the other way round (FillOrder 2), without extra samples."""

_UNCOMPRESSED, _OLD_JPEG, _JPEG, _THUNDERSCAN = 1, 6, 7, 32809
_FAX = (2, 3, 4)
"""Not 32771, whose rows fill 16-bit words: libtiff does not even read its own."""
_PREDICTED = (5, 8, 32946, 34925, 50000)
"""LZW, Deflate (twice), LZMA, Zstandard: compressions under which a predictor counts."""
_COMPRESSIONS = {_UNCOMPRESSED, *_FAX, _OLD_JPEG, _JPEG, 32773, _THUNDERSCAN, *_PREDICTED}
_ONLY_BITS = {**dict.fromkeys(_FAX, 1), _OLD_JPEG: 8, _JPEG: 8, _THUNDERSCAN: 4}


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pixels of a page lie, under the names of the tables above."""

    colours: int
    """Photometric interpretation."""
    negative: bool
    """The file says that white is 0, the decoder is told that black is."""
    bits: int
    extra: tuple[int, ...]
    num_stored: int
    """Samples of the file; more than the decoder is given where planes are left out."""
    in_planes: bool
    compression: int

    @property
    def num_samples(self) -> int:
        """As the decoder is given them."""
        return _COLOURS[self.colours] + len(self.extra)

    @property
    def planar(self) -> bool:
        """In more planes than the one that has all samples anyway."""
        return self.in_planes and self.num_samples > 1

    def __str__(self) -> str:
        extra = "".join(f" with {_EXTRAS.get(kind, f'extra sample {kind}')}" for kind in self.extra)
        stored = " in planes" * self.planar + " without compression" * (self.compression == _UNCOMPRESSED)
        return f"{self.bits}-bit {_PHOTOMETRICS[self.colours]}{extra}{stored}"


def _unsupported(what: str) -> Unreadable:
    way_out = "save it as 8-bit RGB or grey, not in planes, with LZW or Deflate"
    return Unreadable(Reason.UNSUPPORTED_FORMAT, f"the tiff has {what}, which is not read rightly; {way_out}")


def _corrupt(what: str) -> Unreadable:
    return Unreadable(Reason.CORRUPT, f"the tiff {what}")


def layout_of(tags: Tags, order: str) -> Layout:
    """How the pixels lie. Raises Unreadable where the decoder is not known to give the true ones."""
    layout = _stored(tags)
    _check_samples(layout, tags, order)
    _check_compression(layout, tags)
    return layout


def _stored(tags: Tags) -> Layout:
    bits, compression = _bits(tags), tags.get(COMPRESSION, (1,))[0]
    num_stored = tags.get(SAMPLES, (3 if compression == _OLD_JPEG else 1,))[0]
    photometric = _photometric(tags, compression)
    colours = _GREY if photometric == _WHITE_IS_ZERO or (photometric, num_stored) == (_YCBCR, 1) else photometric
    if colours not in _COLOURS:
        raise _unsupported(_PHOTOMETRICS.get(colours, f"photometric interpretation {colours}"))
    extra = _extra(tags, colours, num_stored)
    in_planes = tags.get(PLANES, (1,))[0] == 2 and num_stored > 1 and compression != _OLD_JPEG
    while in_planes and extra and extra[-1] == _UNSPECIFIED:
        extra = extra[:-1]
    return Layout(colours, photometric == _WHITE_IS_ZERO, bits, extra, num_stored, in_planes, compression)


def _bits(tags: Tags) -> int:
    bits, formats = set(tags.get(BITS, (1,))), set(tags.get(SAMPLE_FORMAT, (1,)))
    if not bits <= {1, 2, 4, 8, 16} or formats != {1}:
        kind = f"{max(bits)} bits, sample format {max(formats)}"
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, f"tiff samples of {kind} have no agreed white; save 8 or 16 bits")
    if len(bits) > 1:
        raise _unsupported(f"samples of {sorted(bits)} bits in one pixel")
    return bits.pop()


def _photometric(tags: Tags, compression: int) -> int:
    """Fax without this tag is white where it is 0, as paper is."""
    if compression == _OLD_JPEG:
        return _YCBCR
    if PHOTOMETRIC in tags:
        return tags[PHOTOMETRIC][0]
    if compression in _FAX:
        return _WHITE_IS_ZERO
    raise _corrupt("does not say what its samples are (tag 262, PhotometricInterpretation)")


def _extra(tags: Tags, colours: int, num_samples: int) -> tuple[int, ...]:
    num_extra = num_samples - _COLOURS[colours]
    if num_extra < 0:
        raise _corrupt(f"has {num_samples} samples in a pixel of {_PHOTOMETRICS[colours]}")
    extra = tuple(tags.get(EXTRA, ()))
    if colours == _RGB and num_extra == 1 and extra in ((), (_COREL_ALPHA,)):
        return (_ALPHA,)
    if len(extra) != num_extra:
        raise _unsupported(f"{num_samples} samples in a pixel of {_PHOTOMETRICS[colours]}")
    return extra


def _check_samples(layout: Layout, tags: Tags, order: str) -> None:
    table = _CHUNKY
    if layout.planar:
        table = _PLANAR_UNCOMPRESSED if layout.compression == _UNCOMPRESSED else _PLANAR
    kind = (layout.colours, layout.bits)
    if layout.extra not in table.get(kind, ()) or (layout.negative and layout.extra):
        raise _unsupported(f"{layout}")
    if tags.get(INK_SET, (1,))[0] != 1 and layout.colours == _CMYK:
        raise _unsupported("inks other than CMYK")
    fill_order = tags.get(FILL_ORDER, (1,))[0]
    if fill_order != 1 and not (fill_order == 2 and _read_with_reversed_bits(layout, order)):
        raise _unsupported(f"{layout} and fill order {fill_order}")
    if layout.colours == _YCBCR and tags.get(SUBSAMPLING) != (1, 1) and not _read_with_subsampling(layout, tags):
        raise _unsupported(f"{layout} and subsampled colours")


def _read_with_reversed_bits(layout: Layout, order: str) -> bool:
    kind = (layout.colours, layout.bits)
    if layout.compression == _UNCOMPRESSED and (layout.planar or (layout.colours == _PALETTE and layout.bits < 8)):
        return False
    return not layout.extra and (kind in _REVERSED_BITS or (kind == (_GREY, 16) and order == "<"))


def _read_with_subsampling(layout: Layout, tags: Tags) -> bool:
    """Not in planes. Uncompressed pixels count as whole where nothing else is said and there are bytes for all."""
    if layout.compression != _UNCOMPRESSED:
        return not layout.planar
    whole_bytes = 3 * tags[WIDTH][0] * tags[HEIGHT][0]
    return SUBSAMPLING not in tags and sum(_starts_and_sizes(tags)[1]) >= whole_bytes


def _check_compression(layout: Layout, tags: Tags) -> None:
    if layout.compression not in _COMPRESSIONS:
        raise _unsupported(f"compression {layout.compression}")
    odd_jpeg = layout.compression == _OLD_JPEG and layout.colours != _YCBCR
    if odd_jpeg or layout.bits != _ONLY_BITS.get(layout.compression, layout.bits):
        raise _unsupported(f"{layout} under compression {layout.compression}")
    predictor = tags.get(PREDICTOR, (1,))[0]
    if layout.compression in _PREDICTED and predictor != 1 and not (predictor == 2 and layout.bits >= 8):
        raise _unsupported(f"{layout} under predictor {predictor}")


@dataclass(frozen=True, slots=True)
class _Grid:
    """A page's strips or tiles, of one plane."""

    columns: int
    rows: int
    """Pixels of one; a strip has no more rows than the page."""
    across: int
    down: int

    @classmethod
    def of(cls, tags: Tags) -> _Grid:
        width, height = tags[WIDTH][0], tags[HEIGHT][0]
        tiled = TILE_WIDTH in tags
        rows = tags.get(TILE_HEIGHT, (0,))[0] if tiled else min(height, tags.get(ROWS_PER_STRIP, (height,))[0])
        columns = tags[TILE_WIDTH][0] if tiled else width
        if not rows or not columns:
            raise _corrupt("has strips or tiles without pixels")
        return cls(columns, rows, -(-width // columns), -(-height // rows))


_LEAST_TILE_PIXELS, _MANY_TILES = 256, 10_000
"""Sides of tiles are multiples of 16. Of smaller ones, at 12 microseconds each, this many are taken at most."""


def check_coded_size(tags: Tags, layout: Layout, data: bytes, max_pixels: int, header: ImageHeader) -> None:
    """Raises Unreadable where the strips or tiles have more pixels than are taken, whatever is seen of them.

    Tiles fill up what they stand beyond the picture: of a sound one they have up to 4 times its pixels, or it is small.
    """
    grid = _Grid.of(tags)
    coded_pixels = grid.columns * grid.across * grid.rows * grid.down
    if coded_pixels > max(max_pixels, 4 * header.width * header.height) or grid.columns * grid.rows > max_pixels:
        size = f"{grid.across} x {grid.down} strips or tiles of {grid.columns} x {grid.rows} pixels"
        raise Unreadable(Reason.TOO_LARGE, f"the tiff has {size}, more than the limit of {max_pixels}", header)
    if grid.columns * grid.rows < _LEAST_TILE_PIXELS and TILE_WIDTH in tags and grid.across * grid.down > _MANY_TILES:
        raise _corrupt(f"has {grid.across * grid.down} tiles of {grid.columns} x {grid.rows} pixels")
    if layout.compression == _JPEG:
        _check_jpegs(*_starts_and_sizes(tags), grid, data, max_pixels, header)


def _check_jpegs(starts: Values, sizes: Values, grid: _Grid, data: bytes, max_pixels: int, header: ImageHeader) -> None:
    """Raises where they have too many scans together, or the last strip more rows than are left: libtiff lets it."""
    scans = sum(data.count(b"\xff\xda", start, start + size) for start, size in zip(starts, sizes, strict=False))
    most = max(MOST_PIXELS_SCANNED, USUAL_SCANS * header.width * header.height)
    if scans * grid.columns * grid.rows > most:
        detail = f"the tiff has {scans} scans of {grid.columns} x {grid.rows} pixels; save it without JPEG"
        raise Unreadable(Reason.UNSUPPORTED_FORMAT, detail, header)
    for start, size in zip(starts[grid.down - 1 :: grid.down], sizes[grid.down - 1 :: grid.down], strict=False):
        width, height = frame_size(data, start, start + size) if grid.across == 1 else (0, 0)
        if width * height > max_pixels:
            detail = f"the tiff has a jpeg of {width} x {height} pixels, more than the limit of {max_pixels}"
            raise Unreadable(Reason.TOO_LARGE, detail, header)


def decoder_bytes(tags: Tags, layout: Layout) -> int:
    """Bytes of a strip or tile before Pillow gets it, and of what libtiff makes of one in YCbCr."""
    if layout.compression == _UNCOMPRESSED:
        return 0
    grid = _Grid.of(tags)
    bits = layout.bits * (1 if layout.planar else layout.num_stored)
    as_rgba = 4 * (layout.colours == _YCBCR)
    return grid.columns * grid.rows * (-(-bits // 8) + as_rgba)


def tags_for_decoder(tags: Tags, layout: Layout, data: bytes) -> dict[int, Values]:
    """Tags that Pillow reads rightly. Raises Unreadable where a strip or tile is missing or cut, or a table is."""
    mended = {**tags, BITS: (layout.bits,) * layout.num_samples, SAMPLES: (layout.num_samples,)}
    mended |= {COMPRESSION: (layout.compression,), PHOTOMETRIC: (layout.colours,), PLANES: (1 + layout.planar,)}
    mended[EXTRA] = layout.extra
    if layout.colours == _PALETTE:
        mended[COLOUR_MAP] = _colour_map(tags.get(COLOUR_MAP, ()), layout.bits)
    if layout.colours == _YCBCR and layout.compression == _UNCOMPRESSED:
        mended[SUBSAMPLING] = (1, 1)
    if ROWS_PER_STRIP in tags:  # Pillow makes room for as many as are named
        mended[ROWS_PER_STRIP] = (min(tags[ROWS_PER_STRIP][0], tags[HEIGHT][0]),)
    for tag in (INK_SET, *_STRIPS, *_TILES):
        mended.pop(tag, None)
    return mended | _blocks(tags, layout, data)


def body_and_tags(
    tags: dict[int, Values], layout: Layout, data: bytes
) -> tuple[memoryview | bytearray, dict[int, Values]]:
    """What the decoder is given behind the header of 8 bytes: the file's, or its uncompressed strips as one.

    Pillow takes 12 microseconds for each of them, which may be a row of 8 pixels.
    """
    starts, sizes = tags.get(STRIP_STARTS, ()), tags.get(STRIP_SIZES, ())
    planes = layout.num_samples if layout.planar else 1
    if layout.compression != _UNCOMPRESSED or len(starts) <= planes:
        return memoryview(data)[8:], tags
    num_bytes, ends = 0, [0]
    for place, size in enumerate(sizes, 1):
        num_bytes += size
        if place % (len(starts) // planes) == 0:
            ends.append(num_bytes)
    places = {
        STRIP_STARTS: tuple(8 + end for end in ends[:-1]),
        STRIP_SIZES: tuple(end - start for start, end in itertools.pairwise(ends)),
    }
    return _joined(starts, sizes, memoryview(data)), tags | places | {ROWS_PER_STRIP: tags[HEIGHT]}


def _joined(starts: Values, sizes: Values, data: memoryview) -> memoryview | bytearray:
    """The strips, one after the other: a view where they lie so."""
    if all(start + size == after for start, size, after in zip(starts, sizes, starts[1:], strict=False)):
        return data[starts[0] : starts[-1] + sizes[-1]]
    body = bytearray()
    for start, size in zip(starts, sizes, strict=True):
        body += data[start : start + size]
    return body


def _colour_map(values: Values, bits: int) -> Values:
    """A colour map of 16-bit values, as the format wants; one whose values are all under 256 was written with 8."""
    if len(values) != 3 << bits:
        raise _corrupt(f"has a colour map of {len(values)} values, where {3 << bits} belong to {bits} bits")
    return values if max(values) > 255 else tuple(value * 257 for value in values)


def _blocks(tags: Tags, layout: Layout, data: bytes) -> dict[int, Values]:
    """Where the strips or tiles begin and how long they are: as many as the decoder needs, each whole."""
    starts, sizes = _starts_and_sizes(tags)
    if layout.compression != _OLD_JPEG:
        needed_bytes = _bytes_of_blocks(tags, layout, len(starts))
        if layout.compression == _UNCOMPRESSED:
            sizes = sizes or needed_bytes
        starts, sizes = starts[: len(needed_bytes)], sizes[: len(needed_bytes)]
        _check_whole(starts, sizes, needed_bytes, layout, data)
        if layout.compression == _UNCOMPRESSED:
            sizes = needed_bytes
    if not starts or len(starts) != len(sizes):
        raise _corrupt("does not say where its strips begin and end")
    return dict(zip(_TILES if TILE_WIDTH in tags else _STRIPS, (starts, sizes), strict=True))


def _starts_and_sizes(tags: Tags) -> tuple[Values, Values]:
    """As the file has them; some writers store those of tiles under the tags of strips."""
    first, second = (_TILES, _STRIPS) if TILE_WIDTH in tags else (_STRIPS, _TILES)
    starts, sizes = (tags.get(one) or tags.get(other, ()) for one, other in zip(first, second, strict=True))
    return starts, sizes


def _bytes_of_blocks(tags: Tags, layout: Layout, num_named: int) -> tuple[int, ...]:
    """Bytes of each strip or tile before compression, in the file's order; a last strip may be short, a tile never."""
    grid, planes = _Grid.of(tags), layout.num_samples if layout.in_planes else 1
    columns, rows, across, down = grid.columns, grid.rows, grid.across, grid.down
    if num_named < across * down * planes:
        # Before as many numbers are made: a few bytes could ask for 100 million.
        raise _corrupt(f"says of {num_named} strips or tiles where they are, its size needs {across * down * planes}")
    row_bits = columns * layout.bits * (1 if layout.in_planes else layout.num_stored)
    if row_bits % 8 and tags[WIDTH][0] % columns and layout.compression == _UNCOMPRESSED:
        raise _unsupported(f"uncompressed tiles of {columns} pixels, whose rows end inside a byte")
    row_bytes = -(-row_bits // 8)
    last_rows = rows if TILE_WIDTH in tags else tags[HEIGHT][0] - rows * (down - 1)
    return ((rows * row_bytes,) * (across * (down - 1)) + (last_rows * row_bytes,) * across) * planes


_JPEG_TAIL_BYTES = 4_096
"""Bytes at the end of a strip that are searched for its end marker: a million tiles may claim the same 100 MB."""


def _check_whole(starts: Values, sizes: Values, needed_bytes: tuple[int, ...], layout: Layout, data: bytes) -> None:
    """Raises where a strip or tile is not all there: libtiff pads it, Pillow reads what lies behind."""
    if len(sizes) < len(needed_bytes):
        raise _corrupt(f"says of {len(sizes)} strips or tiles how long they are, its size needs {len(needed_bytes)}")
    if sum(sizes) > len(data) + sum(needed_bytes):
        # Strips of the same pixels may share them. 10,000 that share 4 MB would be read for minutes.
        raise _corrupt(f"has strips or tiles of {sum(sizes)} bytes in {len(data)}, with {sum(needed_bytes)} of pixels")
    for number, (start, size, needed) in enumerate(zip(starts, sizes, needed_bytes, strict=True)):
        end = start + size
        must_reach(end, data, f"strip or tile {number}")
        least_bytes = needed if layout.compression == _UNCOMPRESSED else 1
        if size < least_bytes:
            detail = f"strip or tile {number} of the tiff has {size} bytes, of at least {least_bytes}"
            raise Unreadable(Reason.TRUNCATED, detail)
        if layout.compression == _JPEG and data.rfind(b"\xff\xd9", max(start, end - _JPEG_TAIL_BYTES), end) < 0:
            raise Unreadable(Reason.TRUNCATED, f"strip or tile {number} of the tiff is a jpeg without its end marker")
