"""An image and a strength -> the image with one thing wrong: what an assessor's scores are tried against.

Lengths are fractions of the shorter side, so that a small image and a large one suffer alike. The same image gets the
same pixels every time, within one version of Pillow (its JPEG).
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""

STRENGTHS = 5
"""Number of strengths, from hardly visible (1) to ruined (5)."""

BLUR_RADII = (0.004, 0.008, 0.015, 0.03, 0.06)
"""Standard deviations, as fractions of the shorter side."""
JPEG_QUALITIES = (50, 30, 18, 10, 5)
NOISE_STDS = (6.0, 12.0, 24.0, 40.0, 64.0)
"""Standard deviations in grey levels of 255."""
WARP_HEIGHTS = (0.005, 0.01, 0.02, 0.035, 0.055)
"""Heights of the waves, as fractions of the shorter side."""
WARP_WAVES = 3
"""Waves across the image, in both directions."""
DARK_GAINS = (0.75, 0.55, 0.4, 0.27, 0.17)
LIGHT_GAINS = (1.25, 1.6, 2.0, 2.6, 3.5)
COLOUR_SHIFTS = (0.08, 0.16, 0.28, 0.42, 0.6)
"""By how much red is raised and blue lowered."""


def distort(pixels_HWC: Pixels, kind: str, strength: int) -> Pixels:
    """The image with a distortion of KINDS; strength 0 is the image itself. Raises KeyError on another kind."""
    return DISTORTIONS[kind](pixels_HWC, strength - 1) if strength else pixels_HWC


def _blur(pixels_HWC: Pixels, step: int) -> Pixels:
    radius = BLUR_RADII[step] * min(pixels_HWC.shape[:2])
    return np.asarray(Image.fromarray(pixels_HWC).filter(ImageFilter.GaussianBlur(radius)))


def _jpeg(pixels_HWC: Pixels, step: int) -> Pixels:
    buffer = BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "JPEG", quality=JPEG_QUALITIES[step])
    return np.asarray(Image.open(buffer))


def _noise(pixels_HWC: Pixels, step: int) -> Pixels:
    rng = np.random.Generator(np.random.PCG64([7, step]))
    noise = rng.standard_normal(pixels_HWC.shape, dtype=np.float32)
    return _clipped(pixels_HWC + NOISE_STDS[step] * noise)


def _warp(pixels_HWC: Pixels, step: int) -> Pixels:
    """Shift rows and columns by waves; bilinear between pixels, and the edge is repeated beyond itself."""
    height, width = pixels_HWC.shape[:2]
    reach = WARP_HEIGHTS[step] * min(height, width)
    rows, columns = np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)[None, :]
    from_rows = np.clip(rows + reach * np.sin(2 * np.pi * WARP_WAVES * columns / width), 0, height - 1)
    from_columns = np.clip(columns + reach * np.sin(2 * np.pi * WARP_WAVES * rows / height + 1), 0, width - 1)
    top, left = (np.floor(place).astype(np.intp) for place in (from_rows, from_columns))
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, along = (from_rows - top)[..., None], (from_columns - left)[..., None]
    above = (1 - along) * pixels_HWC[top, left] + along * pixels_HWC[top, right]
    below = (1 - along) * pixels_HWC[bottom, left] + along * pixels_HWC[bottom, right]
    return _clipped((1 - down) * above + down * below)


def _darken(pixels_HWC: Pixels, step: int) -> Pixels:
    return _clipped(pixels_HWC * DARK_GAINS[step])


def _over_expose(pixels_HWC: Pixels, step: int) -> Pixels:
    return _clipped(pixels_HWC * LIGHT_GAINS[step])


def _shift_colour(pixels_HWC: Pixels, step: int) -> Pixels:
    shift = COLOUR_SHIFTS[step]
    return _clipped(pixels_HWC * np.array([1 + shift, 1, 1 - shift]))


def _clipped(values_HWC: NDArray[np.floating]) -> Pixels:
    return np.clip(values_HWC + 0.5, 0, 255).astype(np.uint8)


DISTORTIONS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "blur": _blur,
    "jpeg": _jpeg,
    "noise": _noise,
    "warp": _warp,
    "darkening": _darken,
    "over-exposure": _over_expose,
    "colour shift": _shift_colour,
}
KINDS = tuple(DISTORTIONS)
