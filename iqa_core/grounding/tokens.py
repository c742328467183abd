"""The grid of an image's visual tokens -> views of it: the tokens of a grid cell, of a box, or all.

A family with views keeps the whole picture and its sides' proportions to within a token. So each token covers an equal
part of the upright original, whatever size the picture was prepared to, and (r, c) of R x C has its centre at
((c + .5) W / C, (r + .5) H / R) of W x H pixels. Tokens are numbered row by row from the top left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.assessor.protocol import View
from iqa_core.grounding.boxes import Box


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Visual tokens over a picture."""

    rows: int
    columns: int

    @property
    def everything(self) -> View:
        """All tokens: under this view a question gets its ordinary answer."""
        return tuple(range(self.rows * self.columns))

    def cells(self, side: int) -> tuple[View, ...]:
        """Tokens of each of side x side cells, row by row: those whose centre lies in the cell.

        Cells are mirror images of one another unless a centre lies between two, as the middle one of 5 tokens in 2
        cells: then the right or lower cell has it.
        Raises ValueError where a cell would have no token.
        """
        if min(self.rows, self.columns) < side:
            raise ValueError(f"{self.rows} x {self.columns} visual tokens are too few for {side} x {side} cells")
        down, across = ((2 * np.arange(count) + 1) * side // (2 * count) for count in (self.rows, self.columns))
        cell_of_token = (down[:, None] * side + across).ravel()
        return tuple(_view(cell_of_token == cell) for cell in range(side * side))

    def within(self, box: Box, width: int, height: int) -> View:
        """Tokens whose centre lies in a box, of a picture of this size in pixels.

        Along a side in which no centre lies, the nearest to the middle of the box is taken: there is always a token.
        """
        left, top, right, bottom = box.corners
        across = _between(left / width, right / width, self.columns)
        down = _between(top / height, bottom / height, self.rows)
        return _view((down[:, None] & across).ravel())

    def outline(self, view: View, width: int, height: int) -> Box:
        """The smallest box around the tokens of a view, in pixels of a picture of this size."""
        mask = np.zeros(self.rows * self.columns, np.bool_)
        mask[list(view)] = True
        box = Box.around(mask.reshape(self.rows, self.columns))
        assert box is not None, "a view is never empty"
        return box.scaled(width / self.columns, height / self.rows)

    def centre(self, token: int, width: int, height: int) -> tuple[float, float]:
        """x and y of a token's centre, in pixels of a picture of this size."""
        row, column = divmod(token, self.columns)
        return (column + 0.5) * width / self.columns, (row + 0.5) * height / self.rows


def as_bytes(values_RC: NDArray[np.floating]) -> tuple[NDArray[np.uint8], float]:
    """Values from 0 on as a small picture (R, C), and the largest of them: a value is byte / 255 x that."""
    largest = float(values_RC.max())
    return np.floor(values_RC / (largest or 1.0) * 255 + 0.5).astype(np.uint8), largest


def _view(mask: NDArray[np.bool_]) -> View:
    return tuple(np.flatnonzero(mask).tolist())


def _between(low: float, high: float, count: int) -> NDArray[np.bool_]:
    """Which of so many tokens along a side have their centre from low to high, in fractions of the side."""
    centres = (np.arange(count) + 0.5) / count
    found = (centres >= low) & (centres < high)
    return found if found.any() else np.arange(count) == np.abs(centres - (low + high) / 2).argmin()
