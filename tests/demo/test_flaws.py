"""A region and a kind -> a scene that is spoilt there and nowhere else, whose truths say by how much.

Tests iqa_core/demo/flaws.py, and what it asks of iqa_core/demo/scenes.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.demo.flaws import EVERYWHERE, KINDS, LIGHTING_KINDS, cell, make_flawed_scene
from iqa_core.demo.scenes import DIMENSIONS, FURNITURE, furniture_map, make_scene

QUARTER = cell(1, 0, 2)
INTACT, DISTORTED = 5, 0
"""Scenes of seed 5 with no distortion of their own under the flaw, and with one."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_region_is_spoilt_and_nothing_else(kind: str) -> None:
    made = make_flawed_scene(5, INTACT, region=QUARTER, kind=kind)
    before = make_scene(5, INTACT, intact=True).pixels_HWC
    changed = (made.scene.pixels_HWC != before).any(-1)
    assert made.mask_HW.nonzero()[0].min() == 56
    assert made.mask_HW.nonzero()[1].max() == 55
    assert not changed[~made.mask_HW].any()
    assert changed[made.mask_HW].mean() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_a_ruined_quarter_costs_a_point_of_the_dimension_that_it_counts_for(kind: str) -> None:
    made = make_flawed_scene(5, INTACT, region=QUARTER, kind=kind)
    before = make_scene(5, INTACT, intact=True).truths
    spoilt = "lighting" if kind in LIGHTING_KINDS else "distortion"
    left_share = (before[spoilt] - 1) / 4
    assert made.scene.truths[spoilt] == pytest.approx(before[spoilt] - made.flaw.strength * left_share)
    others = [name for name in DIMENSIONS if name != spoilt]
    assert [made.scene.truths[name] for name in others] == pytest.approx([before[name] for name in others])


def test_a_flaw_everywhere_spoils_what_the_scene_left() -> None:
    made = make_flawed_scene(5, DISTORTED, region=EVERYWHERE, kind="blur")
    before = make_scene(5, DISTORTED).truths["distortion"]
    assert before < 4.5
    assert made.scene.truths["distortion"] == pytest.approx(1 + (before - 1) * (1 - made.flaw.strength))
    assert made.spoilt_HW2[..., 0] == pytest.approx(made.flaw.strength * (before - 1) / 4 + (5 - before) / 4)


@pytest.mark.slow
def test_regions_are_anywhere_and_kinds_are_all_drawn() -> None:
    flaws = [make_flawed_scene(8, index, 64).flaw for index in range(200)]
    assert {flaw.kind for flaw in flaws} == set(KINDS)
    local = [flaw.region for flaw in flaws if flaw.region != EVERYWHERE]
    assert 100 <= len(local) <= 140
    middles = np.array([((region.left + region.right) / 2, (region.top + region.bottom) / 2) for region in local])
    assert middles.mean(0) == pytest.approx([0.5, 0.5], abs=0.08)
    assert 0.1 <= min(flaw.strength for flaw in flaws) < 0.2 < 0.9 < max(flaw.strength for flaw in flaws) <= 1


def test_the_same_seed_gives_the_same_flaw() -> None:
    first, second = (make_flawed_scene(4, 6) for _ in range(2))
    assert first.flaw == second.flaw
    assert np.array_equal(first.scene.pixels_HWC, second.scene.pixels_HWC)


def test_cells_of_a_grid_cover_the_picture_once() -> None:
    masks = np.array([cell(row, column, 3).mask(112) for row in range(3) for column in range(3)])
    assert (masks.sum(0) == 1).all()


def test_an_intact_scene_differs_in_its_distortion_alone() -> None:
    scene, intact = make_scene(5, DISTORTED), make_scene(5, DISTORTED, intact=True)
    assert {name for name in DIMENSIONS if scene.truths[name] != intact.truths[name]} == {"distortion"}
    assert intact.truths["distortion"] == 5
    assert not np.array_equal(scene.pixels_HWC, intact.pixels_HWC)


def test_the_map_of_furniture_is_where_pixels_leave_the_room() -> None:
    """Five pieces of an intact scene; their pixels are none of the wall's, which has one colour but for the light."""
    things = furniture_map(5, INTACT)
    kinds, counts = np.unique(things[things > 0], return_counts=True)
    assert len(kinds) == 5
    assert set(kinds) <= set(range(1, len(FURNITURE) + 1))
    assert counts.min() > 20
    pixels = make_scene(5, INTACT, intact=True).pixels_HWC.astype(float)
    edges = np.abs(np.diff(pixels, axis=1)).max(-1) > 12
    borders = np.diff(things.astype(int), axis=1) != 0
    assert edges[borders].mean() > 4 * edges[~borders].mean()
