"""A picture's size -> how a checkpoint's own processor cuts it into tiles, and what that costs in tokens. No torch.

A `Tiling` is the rule of one or two model families; a `TilingFamily` reads it from a checkpoint's files. Which model
type has which is in `iqa_core.assessor.families`; a file of settings that is not known here whole is left to the
checkpoint's own processor.

Sizes are (height, width) in pixels, grids (rows, columns) of tiles.
Shape suffixes: N tiles, H height, W width, C channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from iqa_core.assessor.preparing.grids import (
    Size,
    best_canvas,
    closest_grid,
    covering_grid,
    fitted,
    scaled_to,
    whole_tiles,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How a picture of one size is resized and cut, and its tokens."""

    resizes: tuple[Size, ...]
    """Sizes to which it is resized, one after the other; the last is centred on black in the size of the grid."""
    grid: Size
    has_overview: bool
    """One tile more, with the whole picture."""
    visual_tokens: int
    markup_tokens: int
    """Other tokens that the processor writes in the image's place, every newline counted by itself."""

    @property
    def num_tiles(self) -> int:
        """Tiles of the grid, and the overview."""
        return self.grid[0] * self.grid[1] + self.has_overview

    @property
    def tokens(self) -> int:
        """All tokens in the image's place."""
        return self.visual_tokens + self.markup_tokens


@dataclass(frozen=True, slots=True)
class Tiling(ABC):
    """The steps of an image processor that work on 8 bits: resizing and cutting."""

    tile: Size
    resample: int
    """Pillow's number of the filter."""
    tokens_per_tile: int

    overview_is_first: ClassVar[bool] = False
    overview_is_of_resized: ClassVar[bool] = False
    """The overview is made from the picture after all resizes, instead of the untouched one."""

    @abstractmethod
    def plan(self, height: int, width: int) -> TilePlan:
        """The plan for a picture of this size, in pixels."""

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
        """The picture as one tile."""
        return self._plan((self.tile,), (1, 1), overview=False, markup=self.markup_tokens)


@dataclass(frozen=True, slots=True)
class ClosestGrid(Tiling):
    """InternVL: the grid whose shape is closest to the picture's."""

    min_tiles: int
    max_tiles: int

    def plan(self, height: int, width: int) -> TilePlan:
        """The closest grid; an overview beside several tiles."""
        grid = closest_grid((height, width), self.tile, self.min_tiles, self.max_tiles)
        return self._plan((self._filled(grid),), grid, overview=grid != (1, 1), markup=2)


@dataclass(frozen=True, slots=True)
class CoveringGrid(Tiling):
    """Ovis2: the smallest grid that shows nearly all of the picture without scaling it down; marks between tiles."""

    min_tiles: int
    max_tiles: int
    is_covering: bool
    """False takes the closest grid instead, as InternVL does."""

    overview_is_first = True

    def plan(self, height: int, width: int) -> TilePlan:
        """The smallest covering grid; an overview beside several tiles, and a mark behind each tile."""
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
    """The model averages tokens beyond those of so many tiles away."""
    drops_one: bool
    """The vision tower's first token is left out."""

    overview_is_first = True

    def plan(self, height: int, width: int) -> TilePlan:
        """The best canvas with an overview; markup is among the visual tokens."""
        canvas = best_canvas((height, width), self.canvases)
        grid = canvas[0] // self.tile[0], canvas[1] // self.tile[1]
        visual_tokens = self.tokens_per_tile + self._unpadded_tokens(height, width, grid) - self.drops_one
        return TilePlan((fitted((height, width), canvas),), grid, True, visual_tokens, 0)

    def _unpadded_tokens(self, height: int, width: int, grid: Size) -> int:
        """Tokens of the tiles without their margins, and one at the end of each row."""
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
    """Pixels."""
    splits: bool
    """False makes one tile of the whole picture."""

    overview_is_of_resized = True

    def plan(self, height: int, width: int) -> TilePlan:
        """The scaled picture in whole tiles, each with tags; an overview beside several tiles."""
        scaled = scaled_to((height, width), self.longest_edge)
        if not self.splits:
            return self._plan((scaled, self.tile), (1, 1), overview=False, markup=3)
        whole = whole_tiles(scaled, self.tile[0])
        grid = whole[0] // self.tile[0], whole[1] // self.tile[1]
        is_split = grid != (1, 1)
        tags = 2 * (grid[0] * grid[1] + is_split) + 1
        return self._plan((scaled, whole), grid, overview=is_split, markup=tags + is_split * (grid[0] + 1))


def stacked(tiles_NHWC: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Tiles one under the other, (N * H + 1, W, C); the last row holds the picture's size.

    A prepared image is a single array, so the size travels inside it; W must be at least 3.
    """
    count, height, width, channels = tiles_NHWC.shape
    rows = np.zeros((count * height + 1, width, channels), np.uint8)
    rows[:-1] = tiles_NHWC.reshape(count * height, width, channels)
    rows[-1].reshape(-1)[:8] = np.array(size, "<u4").view(np.uint8)
    return rows


def unstacked(pixels_HWC: NDArray[np.uint8], tile: Size) -> tuple[NDArray[np.uint8], Size]:
    """Tiles (N, H, W, C), a view, and the picture's size: what `stacked` was given."""
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
"""Settings that do not change the tiles: they name things, or concern steps in floats."""

Arrangement = Literal["flat", "with_sizes", "with_mask"]
"""How a model takes the tiles of a batch: see ARRANGEMENTS of `iqa_core.assessor.encoders.tiles`."""


@dataclass(frozen=True, slots=True)
class TilingFamily:
    """How the checkpoints of one model type say in their files what their processor does."""

    image_processor: str
    """Its class, without the ...Fast and ...Pil of its variants."""
    resample: int
    """Pillow's number of the filter where the files name none."""
    read: Callable[[dict[str, Any], Mapping[str, Any], int], Tiling]
    """Image processor's settings, processor's settings, filter -> the tiling; takes the settings that it knows out."""
    pads: bool = False
    """Required value of `do_pad`, which pads the batch and never a picture."""
    arrangement: Arrangement = "flat"

    def tiling(self, processor: Mapping[str, Any], vision: Mapping[str, Any]) -> Tiling | None:
        """The tiling of a checkpoint; None where its files have a setting that is not known here.

        processor: contents of processor_config.json; vision: the image processor's settings.
        """
        name = str(vision.get("image_processor_type")).removesuffix("Pil").removesuffix("Fast")
        if name != self.image_processor:
            return None
        settings = {name: value for name, value in vision.items() if value is not None and name not in IGNORED}
        needed = {"do_resize": True, "do_center_crop": False, "do_pan_and_scan": False, "do_pad": self.pads}
        if any(settings.pop(name, value) != value for name, value in needed.items()):
            return None
        resample = vision.get("resample")
        try:
            tiling = self.read(settings, processor, self.resample if resample is None else resample)
        except (KeyError, TypeError, ValueError):
            return None
        return None if settings else tiling


def internvl(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    """Tiling of InternVL's GotOcr2ImageProcessor."""
    settings.pop("crop_to_patches", None)  # InternVL's processor sets it, whatever the file says
    fewest, most = settings.pop("min_patches", 1), settings.pop("max_patches", 12)
    return ClosestGrid(_sides(settings), resample, int(processor.get("image_seq_length", 256)), fewest, most)


def ovis2(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    """Tiling of Ovis2's image processor."""
    fewest, most = settings.pop("min_patches", 1), settings.pop("max_patches", 12)
    most = most if settings.pop("crop_to_patches", False) else 1
    is_covering = settings.pop("use_covering_area_grid", True)
    tokens = int(processor.get("image_seq_length", 256))
    return CoveringGrid(_sides(settings), resample, tokens, fewest, most, is_covering)


def llava_onevision(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    """Tiling of LLaVA-OneVision's image processor. Raises ValueError on canvases that are not made of square tiles."""
    tile = _sides(settings)
    canvases = tuple((int(height), int(width)) for height, width in settings.pop("image_grid_pinpoints"))
    if tile[0] != tile[1] or any(side % tile[0] for canvas in canvases for side in canvas):
        raise ValueError(f"canvases {canvases} are not made of square tiles of {tile}")
    most = int(str(processor.get("vision_aspect_ratio", "anyres_max_9")).removeprefix("anyres_max_"))
    drops_one = processor.get("vision_feature_select_strategy") == "default"
    return BestCanvas(tile, resample, int(processor["num_image_tokens"]), canvases, most, drops_one)


def idefics3(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    """Tiling of the image processors of Idefics3 and SmolVLM."""
    [side], [longest] = (_lengths(settings.pop(name), "longest_edge") for name in ("max_image_size", "size"))
    splits = settings.pop("do_image_splitting", True)
    return LongestEdge((side, side), resample, int(processor.get("image_seq_len", 169)), longest, splits)


def gemma3(settings: dict[str, Any], processor: Mapping[str, Any], resample: int) -> Tiling:
    """Tiling of Gemma 3's image processor, without pan and scan."""
    settings.pop("image_seq_length", None)  # Gemma 3's processor takes its own setting of that name
    return OneTile(_sides(settings), resample, int(processor.get("image_seq_length", 256)), markup_tokens=6)


def paligemma(settings: dict[str, Any], _processor: Mapping[str, Any], resample: int) -> Tiling:
    """Tiling of PaliGemma's SiglipImageProcessor."""
    return OneTile(_sides(settings), resample, settings.pop("image_seq_length"), markup_tokens=2)


def _sides(settings: dict[str, Any]) -> Size:
    height, width = _lengths(settings.pop("size"), "height", "width")
    return height, width


def _lengths(size: Mapping[str, int | None], *names: str) -> list[int]:
    """The named lengths of a size, in pixels. Raises ValueError when one is absent, or there are others."""
    given = {name: length for name, length in size.items() if length}
    if set(given) != set(names):
        raise ValueError(f"a size is given as {size}, not by {names}")
    return [given[name] for name in names]
