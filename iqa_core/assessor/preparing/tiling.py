"""A picture's size -> how a checkpoint's own processor cuts it into tiles, and what that costs in tokens. No torch.

Sizes are (height, width) in pixels, grids (rows, columns) of tiles. Arithmetic and order of steps are those of the
image processors in transformers, rounding of floats included: a pixel more or less would be another picture.

Shape suffixes: N tiles, H height, W width, C channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Size = tuple[int, int]

LARGEST_SIDE = 4096
"""To which Idefics3 scales down whatever its settings say."""

COVERED = 0.9
"""Share of a picture that Ovis2's tiles have to show without scaling it down."""


@dataclass(frozen=True, slots=True)
class TilePlan:
    """What becomes of a picture of one size."""

    resizes: tuple[Size, ...]
    """Sizes that it takes, one after the other; the last is centred on black in the size of the grid."""
    grid: Size
    has_overview: bool
    """One tile more, with the whole picture."""
    visual_tokens: int
    markup_tokens: int
    """What else the processor writes in the image's place, every newline counted by itself."""

    @property
    def num_tiles(self) -> int:
        return self.grid[0] * self.grid[1] + self.has_overview

    @property
    def tokens(self) -> int:
        return self.visual_tokens + self.markup_tokens


@dataclass(frozen=True, slots=True)
class Tiling(ABC):
    """An image processor's settings, as far as they concern 8 bits."""

    tile: Size
    resample: int
    """Pillow's number of the filter."""
    tokens_per_tile: int

    overview_is_first: ClassVar[bool] = False
    overview_is_of_resized: ClassVar[bool] = False
    """The overview is made from the picture as it is after all resizes, instead of the untouched one."""

    @abstractmethod
    def plan(self, height: int, width: int) -> TilePlan: ...

    def _plan(self, resizes: tuple[Size, ...], grid: Size, *, overview: bool, markup: int) -> TilePlan:
        tiles = grid[0] * grid[1] + overview
        return TilePlan(resizes, grid, overview, tiles * self.tokens_per_tile, markup)

    def _filled(self, grid: Size) -> Size:
        return grid[0] * self.tile[0], grid[1] * self.tile[1]


@dataclass(frozen=True, slots=True)
class OneTile(Tiling):
    """Gemma 3, PaliGemma: every picture gets the same size, whatever its shape."""

    markup_tokens: int

    def plan(self, height: int, width: int) -> TilePlan:
        return self._plan((self.tile,), (1, 1), overview=False, markup=self.markup_tokens)


@dataclass(frozen=True, slots=True)
class ClosestGrid(Tiling):
    """InternVL: the grid whose shape is closest to the picture's."""

    min_tiles: int
    max_tiles: int

    def plan(self, height: int, width: int) -> TilePlan:
        grid = closest_grid((height, width), self.tile, self.min_tiles, self.max_tiles)
        return self._plan((self._filled(grid),), grid, overview=grid != (1, 1), markup=2)


@dataclass(frozen=True, slots=True)
class CoveringGrid(Tiling):
    """Ovis2: the smallest grid that shows nearly all of the picture without scaling it down; marks between tiles."""

    min_tiles: int
    max_tiles: int
    is_covering: bool
    """Off, it is the closest grid."""

    overview_is_first = True

    def plan(self, height: int, width: int) -> TilePlan:
        if self.is_covering:
            grid = covering_grid((height, width), self.tile[0], self.max_tiles)
        else:
            grid = closest_grid((height, width), self.tile, self.min_tiles, self.max_tiles)
        return self._plan((self._filled(grid),), grid, overview=grid != (1, 1), markup=2 + grid[0] * grid[1])


@dataclass(frozen=True, slots=True)
class BestCanvas(Tiling):
    """LLaVA-OneVision: one of given canvases, on which the picture keeps its shape; its margins cost no tokens."""

    canvases: tuple[Size, ...]
    max_tiles_of_tokens: int
    """Tokens beyond those of so many tiles are averaged away."""
    drops_one: bool

    overview_is_first = True

    def plan(self, height: int, width: int) -> TilePlan:
        canvas = best_canvas((height, width), self.canvases)
        grid = canvas[0] // self.tile[0], canvas[1] // self.tile[1]
        visual_tokens = self.tokens_per_tile + self._unpadded_tokens(height, width, grid) - self.drops_one
        return TilePlan((fitted((height, width), canvas),), grid, True, visual_tokens, 0)

    def _unpadded_tokens(self, height: int, width: int, grid: Size) -> int:
        """Of the tiles, without those of the margins, with one at each row's end."""
        side = math.isqrt(self.tokens_per_tile)
        rows, columns = side * grid[0], side * grid[1]
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        shrink = math.sqrt(rows * columns / (self.max_tiles_of_tokens * side**2))
        if shrink > 1.1:
            rows, columns = int(rows // shrink), int(columns // shrink)
        return rows * (columns + 1)


@dataclass(frozen=True, slots=True)
class LongestEdge(Tiling):
    """Idefics3, SmolVLM: scaled to a length, then to whole tiles; the overview is made from that."""

    longest_edge: int
    splits: bool

    overview_is_of_resized = True

    def plan(self, height: int, width: int) -> TilePlan:
        scaled = scaled_to((height, width), self.longest_edge)
        if not self.splits:
            return self._plan((scaled, self.tile), (1, 1), overview=False, markup=3)
        whole = whole_tiles(scaled, self.tile[0])
        grid = whole[0] // self.tile[0], whole[1] // self.tile[1]
        is_split = grid != (1, 1)
        tags = 2 * (grid[0] * grid[1] + is_split) + 1
        return self._plan((scaled, whole), grid, overview=is_split, markup=tags + is_split * (grid[0] + 1))


@lru_cache
def grids_of(min_tiles: int, max_tiles: int) -> tuple[Size, ...]:
    """All (columns, rows) of so many tiles, few tiles first."""
    sides = range(1, max_tiles + 1)
    grids = ((columns, rows) for columns in sides for rows in sides if min_tiles <= columns * rows <= max_tiles)
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def closest_grid(size: Size, tile: Size, min_tiles: int, max_tiles: int) -> Size:
    """The grid of the most similar shape; of equals the largest whose area is less than twice the picture's."""
    height, width = size
    found, apart = (1, 1), math.inf
    for columns, rows in grids_of(min_tiles, max_tiles):
        difference = abs(width / height - columns / rows)
        is_larger = difference == apart and width * height > 0.5 * tile[0] * tile[1] * columns * rows
        if difference < apart or is_larger:
            found, apart = (rows, columns), difference
    return found


@lru_cache(maxsize=1024)  # 0.3 ms each, asked for several times
def covering_grid(size: Size, side: int, max_tiles: int) -> Size:
    """The smallest grid that covers enough, else the one that covers most.

    transformers tries each grid as (rows, columns) and then uses it as (columns, rows); so does this.
    """
    covered = {grid: _covered(size, grid, side) for grid in grids_of(1, max_tiles)}
    enough = [grid for grid, share in covered.items() if share > COVERED]
    if enough:
        columns, rows = min(enough, key=lambda grid: (grid[0] * grid[1], -covered[grid]))
    else:
        columns, rows = min(covered, key=lambda grid: (-covered[grid], grid[0] * grid[1]))
    return rows, columns


def _covered(size: Size, grid: Size, side: int) -> float:
    """Share of a picture's area that is left when each part of (rows, columns) shrinks to fit a tile."""
    heights, widths = (_parts(length, count) for length, count in zip(size, grid, strict=True))
    area = sum(_fitting_area(width, height, side) for height in heights for width in widths)
    return area / (size[0] * size[1])


def _parts(length: int, count: int) -> list[int]:
    return [length // count] * (count - 1) + [length - length // count * (count - 1)]


def _fitting_area(width: int, height: int, side: int) -> float:
    longer, shorter = max(width, height), min(width, height)
    return shorter / longer * side * side if longer > side else longer * shorter


def best_canvas(size: Size, canvases: Sequence[Size]) -> Size:
    """The canvas on which most of the picture's pixels survive; of equals the one with least margin."""
    height, width = size
    found, best = canvases[0], (-1.0, 0.0)
    for canvas in canvases:
        scale = min(canvas[1] / width, canvas[0] / height)
        surviving = min(int(width * scale) * int(height * scale), width * height)
        score = (float(surviving), float(surviving - canvas[0] * canvas[1]))
        if score > best:
            found, best = canvas, score
    return found


def fitted(size: Size, canvas: Size) -> Size:
    """The largest size of the same shape on a canvas."""
    height, width = size
    scale_w, scale_h = canvas[1] / width, canvas[0] / height
    if scale_w < scale_h:
        return min(math.ceil(height * scale_w), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(width * scale_h), canvas[1])


def scaled_to(size: Size, longest_edge: int) -> Size:
    """The longer side that long, and the shorter one even; neither above LARGEST_SIDE."""
    height, width = size
    aspect = width / height
    if width >= height:
        height, width = int(longest_edge / aspect), longest_edge
        height = max(height + height % 2, 1)
    else:
        height, width = longest_edge, int(longest_edge * aspect)
        width = max(width + width % 2, 1)
    aspect = width / height
    if width >= height and width > LARGEST_SIDE:
        height, width = int(LARGEST_SIDE / aspect), LARGEST_SIDE
    elif height > width and height > LARGEST_SIDE:
        height, width = LARGEST_SIDE, int(LARGEST_SIDE * aspect)
    return max(height, 1), max(width, 1)


def whole_tiles(size: Size, side: int) -> Size:
    """Both sides rounded up to tiles, the longer one first."""
    height, width = size
    aspect = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / aspect) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * aspect) / side) * side


def stacked(tiles_NHWC: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Tiles one under the other, (N * H + 1, W, C), and a last row that says which size the picture had.

    One array of pixels is what travels; W must be at least 3.
    """
    count, height, width, channels = tiles_NHWC.shape
    rows = np.zeros((count * height + 1, width, channels), np.uint8)
    rows[:-1] = tiles_NHWC.reshape(count * height, width, channels)
    rows[-1].reshape(-1)[:8] = np.array(size, "<u4").view(np.uint8)
    return rows


def unstacked(pixels_HWC: NDArray[np.uint8], tile: Size) -> tuple[NDArray[np.uint8], Size]:
    """Tiles (N, H, W, C), a view, and the size that the picture had."""
    height, width = pixels_HWC[-1].reshape(-1)[:8].copy().view("<u4").tolist()
    return pixels_HWC[:-1].reshape(-1, *tile, pixels_HWC.shape[2]), (height, width)


IGNORED = frozenset(
    {
        "_valid_processor_keys",
        "auto_map",
        "data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "do_convert_rgb",
        "do_normalize",
        "do_rescale",
        "feature_extractor_type",
        "image_mean",
        "image_processor_type",
        "image_std",
        "input_data_format",
        "pan_and_scan_max_num_crops",
        "pan_and_scan_min_crop_size",
        "pan_and_scan_min_ratio_to_activate",
        "processor_class",
        "rescale_factor",
        "resample",
        "return_row_col_info",
        "return_tensors",
        "video_sampling",
    }
)
"""Settings that do not change what is cut: they name things, or work on what is no longer 8 bits."""


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of checkpoint says in its files what its processor does."""

    image_processor: str
    """Its class, without the ...Fast and ...Pil of its variants."""
    resample: int
    """Where the files do not name a filter."""
    read: Callable[[dict[str, Any], Mapping[str, Any], int], Tiling]
    """The image processor's settings, of which it takes what it knows, those of the processor, and the filter."""
    pads: bool = False
    """What `do_pad` must be; it means the batch, never a picture."""


def tiling_of(model: Mapping[str, Any], processor: Mapping[str, Any], vision: Mapping[str, Any]) -> Tiling | None:
    """How a checkpoint's own processor cuts; None where it has a setting that is not known here.

    model, processor: contents of config.json and processor_config.json; vision: the image processor's settings.
    """
    family = FAMILIES.get(str(model.get("model_type")))
    image_processor = str(vision.get("image_processor_type")).removesuffix("Pil").removesuffix("Fast")
    if family is None or family.image_processor != image_processor:
        return None
    settings = {name: value for name, value in vision.items() if value is not None and name not in IGNORED}
    needed = {"do_resize": True, "do_center_crop": False, "do_pan_and_scan": False, "do_pad": family.pads}
    if any(settings.pop(name, value) != value for name, value in needed.items()):
        return None
    resample = vision.get("resample")
    try:
        tiling = family.read(settings, processor, family.resample if resample is None else resample)
    except (KeyError, TypeError, ValueError):
        return None
    return None if settings else tiling


def _internvl(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    settings.pop("crop_to_patches", None)  # its processor asks for it whatever stands there
    fewest, most = settings.pop("min_patches", 1), settings.pop("max_patches", 12)
    return ClosestGrid(_sides(settings), resample, int(processor.get("image_seq_length", 256)), fewest, most)


def _ovis2(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    fewest, most = settings.pop("min_patches", 1), settings.pop("max_patches", 12)
    most = most if settings.pop("crop_to_patches", False) else 1
    is_covering = settings.pop("use_covering_area_grid", True)
    tokens = int(processor.get("image_seq_length", 256))
    return CoveringGrid(_sides(settings), resample, tokens, fewest, most, is_covering)


def _llava_onevision(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    tile = _sides(settings)
    canvases = tuple((int(height), int(width)) for height, width in settings.pop("image_grid_pinpoints"))
    if tile[0] != tile[1] or any(side % tile[0] for canvas in canvases for side in canvas):
        raise ValueError(f"canvases {canvases} are not made of square tiles of {tile}")
    most = int(str(processor.get("vision_aspect_ratio", "anyres_max_9")).removeprefix("anyres_max_"))
    drops_one = processor.get("vision_feature_select_strategy") == "default"
    return BestCanvas(tile, resample, int(processor["num_image_tokens"]), canvases, most, drops_one)


def _idefics3(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    [side], [longest] = (_lengths(settings.pop(name), "longest_edge") for name in ("max_image_size", "size"))
    splits = settings.pop("do_image_splitting", True)
    return LongestEdge((side, side), resample, int(processor.get("image_seq_len", 169)), longest, splits)


def _gemma3(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    settings.pop("image_seq_length", None)  # its processor has its own
    return OneTile(_sides(settings), resample, int(processor.get("image_seq_length", 256)), markup_tokens=6)


def _paligemma(settings: dict[str, Any], _processor: Mapping[str, Any], resample: int) -> Tiling:
    return OneTile(_sides(settings), resample, settings.pop("image_seq_length"), markup_tokens=2)


def _sides(settings: dict[str, Any]) -> Size:
    height, width = _lengths(settings.pop("size"), "height", "width")
    return height, width


def _lengths(size: Mapping[str, int | None], *names: str) -> list[int]:
    """The named ones, in pixels. Raises ValueError when others stand beside them, or they are none."""
    given = {name: length for name, length in size.items() if length}
    if set(given) != set(names):
        raise ValueError(f"a size is given as {size}, not by {names}")
    return [given[name] for name in names]


FAMILIES = {
    "internvl": Family("GotOcr2ImageProcessor", 3, _internvl),
    "ovis2": Family("Ovis2ImageProcessor", 3, _ovis2),
    "llava_onevision": Family("LlavaOnevisionImageProcessor", 3, _llava_onevision, pads=True),
    "idefics3": Family("Idefics3ImageProcessor", 1, _idefics3, pads=True),
    "smolvlm": Family("SmolVLMImageProcessor", 1, _idefics3, pads=True),
    "gemma3": Family("Gemma3ImageProcessor", 2, _gemma3),
    "paligemma": Family("SiglipImageProcessor", 3, _paligemma),
}
"""By model_type of config.json."""
