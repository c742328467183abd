"""An image and a strength -> the image with one thing wrong: what an assessor's scores are tried against.

Lengths are fractions of the shorter side, so that a small image and a large one suffer alike. The same image gets the
same pixels every time, within one version of Pillow (its JPEG).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""

STRENGTHS = 5
"""Number of strengths, from hardly visible (1) to ruined (5)."""

WARP_WAVES = 3
"""Waves across the image, in both directions."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """One thing that can be wrong with an image, and how much of it."""

    apply: Callable[[Pixels, float, np.random.Generator], Pixels]
    """Image, magnitude and where noise comes from -> the image with it."""
    magnitudes: tuple[float, ...]
    """In the distortion's own unit, from strength 1 to 5."""
    none: float
    """Magnitude that can hardly be seen or does nothing: strength 0."""


def distort(pixels_HWC: Pixels, kind: str, strength: int) -> Pixels:
    """The image with a distortion of KINDS; strength 0 is the image itself. Raises KeyError on another kind."""
    if not strength:
        return pixels_HWC
    found = DISTORTIONS[kind]
    rng = np.random.Generator(np.random.PCG64([7, strength - 1]))
    return found.apply(pixels_HWC, found.magnitudes[strength - 1], rng)


def distort_by(pixels_HWC: Pixels, kind: str, share: float, rng: np.random.Generator) -> Pixels:
    """As `distort` at strength 5 x share, for any share in 0..1; magnitudes lie linearly between the strengths'."""
    found = DISTORTIONS[kind]
    magnitude = np.interp(STRENGTHS * share, range(STRENGTHS + 1), (found.none, *found.magnitudes))
    return found.apply(pixels_HWC, float(magnitude), rng)


def _blur(pixels_HWC: Pixels, deviation: float, _: np.random.Generator) -> Pixels:
    radius = deviation * min(pixels_HWC.shape[:2])
    return np.asarray(Image.fromarray(pixels_HWC).filter(ImageFilter.GaussianBlur(radius)))


def _jpeg(pixels_HWC: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    buffer = BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "JPEG", quality=round(quality))
    return np.asarray(Image.open(buffer))


def _noise(pixels_HWC: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    noise = rng.standard_normal(pixels_HWC.shape, dtype=np.float32)
    return _clipped(pixels_HWC + deviation * noise)


def _warp(pixels_HWC: Pixels, height_of_waves: float, _: np.random.Generator) -> Pixels:
    """Shift rows and columns by waves; bilinear between pixels, and the edge is repeated beyond itself."""
    height, width = pixels_HWC.shape[:2]
    reach = height_of_waves * min(height, width)
    rows, columns = np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)[None, :]
    from_rows = np.clip(rows + reach * np.sin(2 * np.pi * WARP_WAVES * columns / width), 0, height - 1)
    from_columns = np.clip(columns + reach * np.sin(2 * np.pi * WARP_WAVES * rows / height + 1), 0, width - 1)
    top, left = (np.floor(place).astype(np.intp) for place in (from_rows, from_columns))
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, along = (from_rows - top)[..., None], (from_columns - left)[..., None]
    above = (1 - along) * pixels_HWC[top, left] + along * pixels_HWC[top, right]
    below = (1 - along) * pixels_HWC[bottom, left] + along * pixels_HWC[bottom, right]
    return _clipped((1 - down) * above + down * below)


def _gain(pixels_HWC: Pixels, gain: float, _: np.random.Generator) -> Pixels:
    return _clipped(pixels_HWC * gain)


def _shift_colour(pixels_HWC: Pixels, shift: float, _: np.random.Generator) -> Pixels:
    return _clipped(pixels_HWC * np.array([1 + shift, 1, 1 - shift]))


def _clipped(values_HWC: NDArray[np.floating]) -> Pixels:
    return np.clip(values_HWC + 0.5, 0, 255).astype(np.uint8)


DISTORTIONS: Mapping[str, Distortion] = {
    # standard deviations, as fractions of the shorter side
    "blur": Distortion(_blur, (0.004, 0.008, 0.015, 0.03, 0.06), 0.0),
    # qualities
    "jpeg": Distortion(_jpeg, (50, 30, 18, 10, 5), 95),
    # standard deviations in grey levels of 255
    "noise": Distortion(_noise, (6.0, 12.0, 24.0, 40.0, 64.0), 0.0),
    # heights of the waves, as fractions of the shorter side
    "warp": Distortion(_warp, (0.005, 0.01, 0.02, 0.035, 0.055), 0.0),
    "darkening": Distortion(_gain, (0.75, 0.55, 0.4, 0.27, 0.17), 1.0),
    "over-exposure": Distortion(_gain, (1.25, 1.6, 2.0, 2.6, 3.5), 1.0),
    # by how much red is raised and blue lowered
    "colour shift": Distortion(_shift_colour, (0.08, 0.16, 0.28, 0.42, 0.6), 0.0),
}
KINDS = tuple(DISTORTIONS)
