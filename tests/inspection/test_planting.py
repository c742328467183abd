"""A flaw in a cell -> pixels outside it stay, and the cell is any of the grid's."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.inspection.planting import KINDS, plant

PICTURE = np.random.default_rng(5).integers(40, 216, (60, 100, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_flaw_is_in_its_cell_alone_and_the_weaker_is_less(kind: str) -> None:
    changes = []
    for is_weak in (False, True):
        planted = plant(PICTURE, kind, is_weak, 3, np.random.default_rng(1))
        assert planted is not None
        changed = np.abs(planted.pixels_HWC.astype(int) - PICTURE).sum(axis=2)
        row, column = planted.cell
        inside = changed[20 * row : 20 * row + 20, [33, 67][column - 1] if column else 0 : [33, 67, 100][column]]
        assert changed.sum() == inside.sum() > 0
        changes.append(inside.mean())
    assert changes[1] < changes[0]


def test_blocks_lie_as_those_of_the_whole_picture() -> None:
    """In a cell that begins at pixel 50, the first whole block begins at 56."""
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None] * 2, 64, axis=0).repeat(3, axis=2)
    for seed in range(20):
        planted = plant(ramp, "jpeg", False, 2, np.random.default_rng(seed))
        assert planted is not None
        if planted.cell == (0, 1):
            steps = np.abs(np.diff(planted.pixels_HWC[4, 50:, 0].astype(int)))
            assert (50 + 1 + np.flatnonzero(steps)).tolist() == [56, 72, 80, 88]
            return
    pytest.fail("a quarter of the cells lies there")


def test_all_cells_are_as_likely() -> None:
    counts = np.zeros((2, 2))
    for seed in range(400):
        planted = plant(PICTURE, "noise", False, 2, np.random.default_rng(seed))
        assert planted is not None
        counts[planted.cell] += 1
    assert counts.min() > 70


def test_a_cell_that_stays_as_it_is_is_not_taken() -> None:
    """On a white wall only the quarter with something in it can be blurred."""
    wall = np.full((64, 64, 3), 255, np.uint8)
    assert plant(wall, "blur", False, 2, np.random.default_rng(0)) is None
    wall[8:16, 40:48] = 0
    for seed in range(8):
        planted = plant(wall, "blur", False, 2, np.random.default_rng(seed))
        assert planted is not None
        assert planted.cell == (0, 1)
