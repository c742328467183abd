"""Means and standard deviations of many blocks are those of all rows."""

from __future__ import annotations

import numpy as np

from iqa_core.tables.regions.calibrating import _Moments


def test_blocks_add_up_and_equal_values_do_not_deviate() -> None:
    rows = np.random.default_rng(5).normal(3, 0.01, (50, 4))
    rows[:, 2] = 0.1 + 0.2
    found = _Moments(4)
    for block in np.split(rows, [0, 1, 20]):
        found.add(block)
    assert found.count == 50
    np.testing.assert_allclose(found.means, rows.mean(axis=0))
    np.testing.assert_allclose(found.stds[[0, 1, 3]], rows.std(axis=0, ddof=1)[[0, 1, 3]])
    assert found.stds[2] == 0
