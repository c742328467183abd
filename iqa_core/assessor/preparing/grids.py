"""A picture's size and a tile's -> the grid or the size to which an image processor resizes the picture. No torch.

Sizes are (height, width) in pixels, grids (rows, columns) of tiles. Arithmetic and order of steps are those of the
image processors in transformers, rounding of floats included: a pixel more or less would be another picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

Size = tuple[int, int]

LARGEST_SIDE = 4096
"""Idefics3 scales larger sides down to this, whatever its settings say."""

COVERED = 0.9
"""Share of a picture that Ovis2's tiles have to show without scaling it down."""


def smart_size(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width as the Qwen2-VL family's processors choose them.

    They refuse an image 200 times as long as wide; here its longer side is shortened to what max_pixels allows.
    """
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        h, w = (max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h, w = (math.ceil(side * grow / factor) * factor for side in (height, width))
    if h * w > max_pixels:
        longest = max_pixels // (min(h, w) * factor) * factor
        h, w = min(h, longest), min(w, longest)
    return h, w


@lru_cache
def grids_of(min_tiles: int, max_tiles: int) -> tuple[Size, ...]:
    """All grids of so many tiles as (columns, rows), few tiles first."""
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
    """The smallest grid that covers more than COVERED of the picture, else the one that covers most.

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
    """The size whose longer side is `longest_edge` and whose shorter one is even; no side is above LARGEST_SIDE."""
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
    """The size with its longer side, then the other in proportion, rounded up to whole tiles."""
    height, width = size
    aspect = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return math.ceil(int(width / aspect) / side) * side, width
    height = math.ceil(height / side) * side
    return height, math.ceil(int(height * aspect) / side) * side
