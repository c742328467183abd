"""A rectangle or mask of a picture -> a box in one frame: pixels of the upright original, x to the right, y down."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


THINNEST = 1e-6
"""Pixels across or down that a part of a box has at least: what is thinner has no area in a table's 32-bit floats."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in pixels, or in fractions of a picture's sides where that is said.

    Iterating gives x, y, width and height, as COCO has them.
    """

    x: float
    """Its left side."""
    y: float
    """Its upper side."""
    width: float
    height: float

    def __post_init__(self) -> None:
        """Raises ValueError on a box without an area, or with a number that is not finite."""
        if not (all(map(math.isfinite, self)) and self.width > 0 and self.height > 0):
            raise ValueError(f"a box is x, y, width and height, the last two above 0, not {list(self)}")

    def __iter__(self) -> Iterator[float]:
        return iter(astuple(self))

    @classmethod
    def around(cls, mask_HW: NDArray[np.bool_]) -> Self | None:
        """The smallest box with all pixels of a mask; None where the mask is empty."""
        rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return None
        top, left = int(rows[0]), int(columns[0])
        return cls(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of its middle."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def area(self) -> float:
        """Of a box in pixels, in pixels."""
        return self.width * self.height

    def scaled(self, across: float, down: float) -> Self:
        """The box with its x and width times one factor, its y and height times another.

        By the picture's sides it turns fractions into pixels, by 1 / side pixels into fractions.
        """
        return type(self)(self.x * across, self.y * down, self.width * across, self.height * down)

    def inside(self, width: float, height: float) -> Self | None:
        """The part of a box in pixels that lies in a picture of this size; None where it is thinner than THINNEST."""
        left, top, right, bottom = self.corners
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        across, down = right - left, bottom - top
        return type(self)(left, top, across, down) if min(across, down) >= THINNEST else None


@dataclass(frozen=True, slots=True)
class UserBox:
    """A box that somebody brought, of one image."""

    box_id: str
    label: str | None
    box: Box
    """In pixels of the upright original; it may reach beyond it."""
