"""A good image and a grid -> the image with a flaw of a known kind in one of the grid's cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from iqa_core.images.distortions import DISTORTIONS, Pixels

_GAINS = ((1.4, 1.0, 0.7), (1.2, 1.0, 0.85))
"""Of red, green and blue; the weaker ones last."""


def _colours(pixels_HWC: Pixels, is_weak: bool, _: np.random.Generator) -> Pixels:
    return np.clip(pixels_HWC * np.array(_GAINS[is_weak]) + 0.5, 0, 255).astype(np.uint8)


def _distortion(kind: str, magnitude: float, weaker: float) -> Callable[[Pixels, bool, np.random.Generator], Pixels]:
    return lambda pixels_HWC, is_weak, rng: DISTORTIONS[kind].apply(pixels_HWC, weaker if is_weak else magnitude, rng)


_SPOIL: Mapping[str, Callable[[Pixels, bool, np.random.Generator], Pixels]] = {
    "jpeg": _distortion("jpeg", 5, 15),
    "blur": _distortion("blur", 0.02, 0.01),
    "noise": _distortion("noise", 25, 12.5),
    "colours": _colours,
}
KINDS = tuple(_SPOIL)
"""JPEG of quality 5 (blocks lie as those of the whole picture), Gaussian blur with a radius of 2 % of the shorter side,
noise with a standard deviation of 25 of 255, and wrong colours."""


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """An image with one flaw."""

    pixels_HWC: Pixels
    cell: tuple[int, int]
    """Row and column of the flaw."""


def plant(pixels_HWC: Pixels, kind: str, is_weak: bool, side: int, rng: np.random.Generator) -> Planted | None:
    """The image with the flaw in one of side x side cells, each as likely as the others.

    A cell that the flaw leaves as it is (a blurred white wall) is not taken; None where that is so in all cells.
    Raises KeyError on a kind that is not in KINDS.
    """
    spoilt_HWC = _SPOIL[kind](pixels_HWC, is_weak, rng)
    for cell in rng.permutation(side * side).tolist():
        row, column = divmod(cell, side)
        height, width = pixels_HWC.shape[:2]
        place = _part(height, row, side), _part(width, column, side)
        if not np.array_equal(spoilt_HWC[place], pixels_HWC[place]):
            planted_HWC = pixels_HWC.copy()
            planted_HWC[place] = spoilt_HWC[place]
            return Planted(planted_HWC, (row, column))
    return None


def _part(length: int, number: int, side: int) -> slice:
    """Pixels along a side whose centre lies in a cell."""
    return slice(*(int(np.ceil(edge * length / side - 0.5)) for edge in (number, number + 1)))
