"""An image and a strength -> the same pixels every time, and further from the image at each step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from iqa_core.assessor.samples import SAMPLES, read_sample
from iqa_core.images.distortions import KINDS, STRENGTHS, distort

ROOM = read_sample(SAMPLES[1]).pixels_HWC


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_further_from_the_image(kind: str) -> None:
    before = ROOM.copy()
    forms = [distort(ROOM, kind, strength).astype(float) for strength in range(STRENGTHS + 1)]
    distances = [np.square(form - ROOM).mean() for form in forms]
    assert distances[0] == 0
    assert all(a < b for a, b in pairwise(distances)), distances
    assert np.array_equal(ROOM, before)


@pytest.mark.parametrize("kind", KINDS)
def test_shape_and_type_stay_and_it_can_be_repeated(kind: str) -> None:
    pixels = np.ascontiguousarray(ROOM[:57, :91])
    form = distort(pixels, kind, 3)
    assert form.shape == pixels.shape
    assert form.dtype == np.uint8
    assert np.array_equal(form, distort(pixels, kind, 3))


def test_light_and_colour_change_what_they_are_named_after() -> None:
    assert distort(ROOM, "darkening", 3).mean() < 0.5 * ROOM.mean()
    assert distort(ROOM, "over-exposure", 3).mean() > 1.3 * ROOM.mean()
    shifted = distort(ROOM, "colour shift", 3)
    assert shifted[..., 0].mean() > ROOM[..., 0].mean()
    assert shifted[..., 2].mean() < ROOM[..., 2].mean()
    assert np.array_equal(shifted[..., 1], ROOM[..., 1])
