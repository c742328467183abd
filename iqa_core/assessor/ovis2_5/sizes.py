"""An image's size -> the size to which Ovis2.5 resizes it. No torch, since readers use it."""

from __future__ import annotations

from iqa_core.assessor.preparing.grids import smart_size

PATCH = 16
MERGE = 2
"""Patches along each side of what becomes one visual token."""
FACTOR = PATCH * MERGE
"""Pixels along each side of what becomes one visual token."""
MIN_PIXELS = 448 * 448
MAX_PIXELS = 1344 * 1792
"""Bounds of the prepared image where the checkpoint's files name none; released files do not."""
RESAMPLE = 2
"""Pillow's number of the bilinear filter."""
MAX_ASPECT = 200


def image_size(height: int, width: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width as Ovis2.5 chooses them: multiples of FACTOR, the area inside two bounds.

    A side is never below FACTOR: where a long image would need that to stay inside max_pixels, its longer side is cut.
    max_pixels must be at least FACTOR squared.
    """
    tall, wide = _in_proportion(height, width)
    return smart_size(tall, wide, FACTOR, min_pixels, max_pixels)


def _in_proportion(height: int, width: int) -> tuple[int, int]:
    """Height and width of at least FACTOR pixels each, one at most MAX_ASPECT times the other."""
    shorter = min(height, width)
    if shorter < FACTOR:
        height, width = (FACTOR if side == shorter else round(FACTOR / shorter * side) for side in (height, width))
    bound = MAX_ASPECT * min(height, width)
    return min(height, bound), min(width, bound)
