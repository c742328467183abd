"""Scenes -> what is known of each token and place agrees with the pixels, also in a mirror."""

from __future__ import annotations

from colorsys import rgb_to_hsv

import numpy as np
import pytest
import torch

from iqa_core.demo.flaws import EVERYWHERE, LIGHTING_KINDS, make_flawed_scene
from iqa_core.demo.lessons import COLOUR, GRID, SPOILT, THINGS, UNKNOWN, Lessons, joined, render
from iqa_core.demo.prompts import PLACES_OF_THINGS, STATEMENTS
from iqa_core.demo.scenes import FURNITURE, make_scene

pytestmark = pytest.mark.slow

COUNT = 48


@pytest.fixture(scope="module")
def plain() -> Lessons:
    return render(31, range(COUNT))


@pytest.fixture(scope="module")
def flawed() -> Lessons:
    return render(31, range(COUNT), flawed=True)


def test_truths_are_the_means_of_what_is_spoilt(plain: Lessons, flawed: Lessons) -> None:
    for lessons in (plain, flawed):
        spoilt_N2 = lessons.facts_NRSF[..., SPOILT].mean((1, 2))
        assert torch.allclose(5 - 4 * spoilt_N2, lessons.truths_NK[:, [3, 2]], atol=1e-4)


def test_tokens_have_their_own_pixels_colour(plain: Lessons) -> None:
    corner = make_scene(31, 7).pixels_HWC[-28:, :28].mean((0, 1))
    assert plain.facts_NRSF[7, GRID - 1, 0, COLOUR].numpy() * 64 + 128 == pytest.approx(corner, abs=0.01)


def test_places_are_those_of_the_flaws(flawed: Lessons) -> None:
    known = 0
    for index in range(COUNT):
        made = make_flawed_scene(31, index)
        extent, row, column = flawed.places_N3[index].tolist()
        if made.flaw.kind in LIGHTING_KINDS or made.flaw.strength < 0.3:
            assert extent == UNKNOWN
        elif made.flaw.region == EVERYWHERE:
            assert (extent, row, column) == (2, UNKNOWN, UNKNOWN)
        elif extent != UNKNOWN:
            rows, columns = (places.mean() / 112 for places in made.mask_HW.nonzero())
            assert (extent, row, column) == (1, int(3 * rows), int(3 * columns))
            assert flawed.facts_NRSF[index, ..., 0].min() == 0
            known += 1
    assert known >= 5


def test_a_mirror_swaps_left_and_right(flawed: Lessons) -> None:
    every = torch.arange(COUNT)
    mirrored = flawed.pick(every, torch.ones(COUNT, dtype=torch.bool))
    assert np.array_equal(mirrored.images_NHWC[3], flawed.images_NHWC[3].numpy()[:, ::-1])
    assert torch.equal(mirrored.facts_NRSF[:, :, 0], flawed.facts_NRSF[:, :, -1])
    columns = flawed.places_N3[:, 2]
    assert torch.equal(mirrored.places_N3[:, 2], torch.where(columns == UNKNOWN, UNKNOWN, 2 - columns))
    assert torch.equal(mirrored.places_N3[:, :2], flawed.places_N3[:, :2])
    here, left, right, colours, window = flawed.statements_NS2().split([7, 7, 7, 18, 2], dim=1)
    swapped = torch.cat([here, right, left, colours, window.flip(1)], dim=1)
    assert torch.allclose(mirrored.statements_NS2(), swapped, atol=1e-4)


def test_a_sample_is_mirrored_half_the_time_and_leaves_the_scenes_as_they_are(plain: Lessons) -> None:
    before = plain.images_NHWC.clone()
    torch.manual_seed(0)
    sample = plain.sample(200)
    assert torch.equal(plain.images_NHWC, before)
    unmirrored = sum(bool((image == before).flatten(1).all(1).any()) for image in sample.images_NHWC)
    assert 70 <= unmirrored <= 130


def test_samples_of_places_have_every_extent(plain: Lessons, flawed: Lessons) -> None:
    torch.manual_seed(0)
    extents = joined(plain, flawed).sample_places(400).places_N3[:, 0]
    assert extents.bincount(minlength=3).tolist() == pytest.approx([100, 200, 100], abs=50)


def test_statements_follow_the_things_that_are_seen(plain: Lessons) -> None:
    statements_NS2 = plain.statements_NS2()
    things = len(PLACES_OF_THINGS) * len(FURNITURE)
    assert statements_NS2.shape == (COUNT, len(STATEMENTS), 2)
    here, left, right = statements_NS2[:, :things, 1].split(len(FURNITURE), dim=1)
    assert here.sum(1).max() == 5
    assert here.sum(1).mean() > 4.8  # a lamp may hide behind a sofa
    assert torch.allclose(left + right, here)
    lamp = FURNITURE.index("lamp")
    places = plain.facts_NRSF[..., THINGS][..., lamp].sum(1)
    for index in (left[:, lamp] == 1).nonzero().flatten().tolist():
        assert places[index, :2].sum() > places[index, 2:].sum()


def test_the_window_is_told_where_it_has_a_side(plain: Lessons) -> None:
    window_N22 = plain.statements_NS2()[:, -2:]
    for (left, right), middle in zip(window_N22.tolist(), plain.window_N.tolist(), strict=True):
        if abs(middle - 0.5) < 0.04:
            assert left == right == [0, 0]
        else:
            assert (left, right) == (([0, 1], [1, 0]) if middle < 0.5 else ([1, 0], [0, 1]))
    assert 3 < (window_N22[:, 0, 1] > 0).sum() < COUNT - 3


def test_colours_of_statements_are_those_of_the_walls() -> None:
    """A wall keeps its hue where the light does not blow it out: its corner then has the colour that is told."""
    lessons = render(9, range(40))
    walls_N6 = lessons.statements_NS2()[:, 21:27, 1]
    assert ((walls_N6 > 0).sum(1) <= 1).all()
    told = 0
    for index in range(40):
        scene = make_scene(9, index, intact=True)
        if scene.truths["lighting"] < 3.5 or not walls_N6[index].any():
            continue
        hue = rgb_to_hsv(*(scene.pixels_HWC[:6, :6].reshape(-1, 3).mean(0) / 255))[0]
        apart = abs((hue - int(walls_N6[index].argmax()) / 6 + 0.5) % 1 - 0.5)
        assert apart < 0.13, index
        told += 1
    assert told > 8
