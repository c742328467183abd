"""Cells and boxes -> visual tokens, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.grounding.boxes import Box
from iqa_core.grounding.tokens import TokenGrid, as_bytes

SIDES = st.integers(1, 40)


def test_the_centre_of_a_token_lies_in_the_original() -> None:
    """27 x 36 tokens, of 1600 x 1200 pixels that were prepared to 1008 x 756."""
    grid = TokenGrid(27, 36)
    np.testing.assert_allclose(grid.centre(10 * 36 + 20, 1600, 1200), (911.111, 466.667), atol=1e-3)


def test_cells_of_a_grid_that_they_do_not_divide() -> None:
    cells = TokenGrid(4, 5).cells(3)
    assert [len(cell) for cell in cells] == [2, 1, 2, 4, 2, 4, 2, 1, 2]
    assert cells[0] == (0, 1)
    assert cells[5] == (8, 9, 13, 14)
    with pytest.raises(ValueError, match="4 x 5 visual tokens are too few for 5 x 5 cells"):
        TokenGrid(4, 5).cells(5)


@pytest.mark.parametrize(
    ("columns", "side", "are_alike"), [(4, 2, True), (4, 3, True), (5, 3, True), (5, 2, False), (6, 4, False)]
)
def test_cells_are_mirror_images_unless_a_centre_lies_between_two(columns: int, side: int, are_alike: bool) -> None:
    grid = TokenGrid(side, columns)
    cells = [{token % columns for token in cell} for cell in grid.cells(side)[:side]]
    mirrored = [{columns - 1 - column for column in cell} for cell in reversed(cells)]
    assert (cells == mirrored) == are_alike


@given(SIDES, SIDES, st.data())
def test_each_token_is_in_one_cell(rows: int, columns: int, data: st.DataObject) -> None:
    side = data.draw(st.integers(1, min(rows, columns)))
    grid = TokenGrid(rows, columns)
    cells = grid.cells(side)
    assert sorted(token for cell in cells for token in cell) == list(grid.everything)
    assert all(cells)


@given(SIDES, SIDES, st.tuples(SIDES, SIDES), st.data())
def test_a_token_is_in_a_box_if_its_centre_is(
    rows: int, columns: int, size: tuple[int, int], data: st.DataObject
) -> None:
    """And where no centre is, the nearest along that side stands for the box."""
    width, height = size
    numbers = [data.draw(st.floats(0, 1, exclude_max=True)) for _ in range(4)]
    box = Box(numbers[0] * width, numbers[1] * height, numbers[2] * width + 1e-6, numbers[3] * height + 1e-6)
    grid = TokenGrid(rows, columns)
    left, top, right, bottom = box.corners
    centres = [grid.centre(token, width, height) for token in grid.everything]
    across = {x for x, _ in centres if left <= x < right} or {
        min((abs(x - (left + right) / 2), x) for x, _ in centres)[1]
    }
    down = {y for _, y in centres if top <= y < bottom} or {
        min((abs(y - (top + bottom) / 2), y) for _, y in centres)[1]
    }
    seen = grid.within(box, width, height)
    assert len(seen) == len(across) * len(down)
    if len(across) > 1 and len(down) > 1:
        assert seen == tuple(t for t, (x, y) in enumerate(centres) if x in across and y in down)


def test_the_outline_of_a_view_is_in_pixels() -> None:
    grid = TokenGrid(4, 5)
    assert grid.outline(grid.everything, 100, 60) == Box(0, 0, 100, 60)
    assert grid.outline((6, 7, 11), 100, 60) == Box(20, 15, 40, 30)
    assert grid.within(Box(20, 15, 40, 30), 100, 60) == (6, 7, 11, 12)
    assert grid.within(Box(99, 59, 1, 1), 100, 60) == (19,)


def test_values_of_a_grid_are_a_small_picture() -> None:
    found, largest = as_bytes(np.array([[0, 0.1], [0.25, 0.5]]))
    assert (found.tolist(), largest) == ([[0, 51], [128, 255]], 0.5)
    assert as_bytes(np.zeros((1, 2)))[0].tolist() == [[0, 0]]
