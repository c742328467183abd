"""An image -> the cell with the most Laplacian energy, a search for sharp edges: what a method has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sharpest_cell(pixels_HWC: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Row and column of side x side cells with the most energy, of the first of several."""
    grey_HW = pixels_HWC.mean(axis=2)
    edges_HW = np.zeros_like(grey_HW)
    middle = 4 * grey_HW[1:-1, 1:-1]
    edges_HW[1:-1, 1:-1] = middle - grey_HW[:-2, 1:-1] - grey_HW[2:, 1:-1] - grey_HW[1:-1, :-2] - grey_HW[1:-1, 2:]
    rows, columns = (np.arange(side) * count // side for count in grey_HW.shape)
    energy = np.add.reduceat(np.add.reduceat(edges_HW**2, rows, axis=0), columns, axis=1)
    return divmod(int(energy.argmax()), side)
