"""Sharp edges -> the cell that has them."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.grounding.sharpness import sharpest_cell


@pytest.mark.parametrize(("side", "cell"), [(2, (1, 0)), (3, (2, 1))])
def test_the_cell_with_edges_is_the_sharpest(side: int, cell: tuple[int, int]) -> None:
    """A gentle ramp has no Laplacian energy, and a picture need not be square."""
    picture = np.repeat(np.linspace(0, 250, 90, dtype=np.uint8)[None, :, None], 61, axis=0).repeat(3, axis=2)
    picture[50:54, 38:42] = 255
    assert sharpest_cell(picture, side) == cell
