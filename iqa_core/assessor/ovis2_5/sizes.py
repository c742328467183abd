"""An image's sides -> the sides that Ovis2.5 sees. No torch: readers use it too."""

from __future__ import annotations

import math

PATCH = 16
MERGE = 2
"""Patches along each side of what becomes one visual token."""
FACTOR = PATCH * MERGE
MIN_PIXELS = 448 * 448
MAX_PIXELS = 1344 * 1792
"""Bounds of the prepared image where the checkpoint's files name none; released files do not."""
RESAMPLE = 2
"""Pillow's number of the bilinear filter."""
MAX_ASPECT = 200


def image_size(height: int, width: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width as Ovis2.5 chooses them: multiples of FACTOR, the area inside two bounds.

    The area alone may leave them where no size fits: max_pixels so small that a long image's short side would vanish
    keeps one FACTOR there and cuts the other. Needs max_pixels >= FACTOR squared.
    """
    tall, wide = _in_proportion(height, width)
    h, w = round(tall / FACTOR) * FACTOR, round(wide / FACTOR) * FACTOR
    if h * w > max_pixels:
        shrink = math.sqrt(tall * wide / max_pixels)
        h, w = (max(FACTOR, math.floor(side / shrink / FACTOR) * FACTOR) for side in (tall, wide))
    elif h * w < min_pixels:
        grow = math.sqrt(min_pixels / (tall * wide))
        h, w = (math.ceil(side * grow / FACTOR) * FACTOR for side in (tall, wide))
    if h * w > max_pixels:
        longest = max_pixels // (min(h, w) * FACTOR) * FACTOR
        h, w = min(h, longest), min(w, longest)
    return h, w


def _in_proportion(height: int, width: int) -> tuple[int, int]:
    """Sides of at least FACTOR pixels, and at most MAX_ASPECT times as long as wide."""
    shorter = min(height, width)
    if shorter < FACTOR:
        height, width = (FACTOR if side == shorter else round(FACTOR / shorter * side) for side in (height, width))
    bound = MAX_ASPECT * min(height, width)
    return min(height, bound), min(width, bound)
