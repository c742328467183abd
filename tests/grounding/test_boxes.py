"""Boxes against the forms in which others have them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from iqa_core.grounding.boxes import Box

RECTANGLE = Box(300, 100, 200, 100)
"""Rows 100 to 199 and columns 300 to 499 of 640 x 480 pixels."""


def test_a_rectangle_in_the_forms_of_others() -> None:
    fractions = RECTANGLE.scaled(1 / 640, 1 / 480)
    assert list(RECTANGLE) == [300, 100, 200, 100], "COCO"
    assert RECTANGLE.corners == (300, 100, 500, 200)
    np.testing.assert_allclose(list(fractions), [0.46875, 0.208333, 0.3125, 0.208333], atol=1e-6, err_msg="FiftyOne")
    percent = list(fractions.scaled(100, 100))
    np.testing.assert_allclose(percent, [46.875, 20.8333, 31.25, 20.8333], atol=1e-4, err_msg="Label Studio")
    assert [round(1000 * side) for side in fractions.corners] == [469, 208, 781, 417], "Qwen"
    np.testing.assert_allclose(list(fractions.scaled(640, 480)), list(RECTANGLE))


def test_a_mask_has_the_box_that_pycocotools_gives_it() -> None:
    mask = np.zeros((4, 5), np.bool_)
    assert Box.around(mask) is None
    mask[1:3, 1:4] = mask[3, 4] = True
    assert Box.around(mask) == Box(1, 1, 4, 3)
    assert Box.around(np.ones((4, 5), np.bool_)) == Box(0, 0, 5, 4)
    large = np.zeros((480, 640), np.bool_)
    large[100:200, 300:500] = True
    assert Box.around(large) == RECTANGLE
    large[0, 0] = True
    assert Box.around(large) == Box(0, 0, 500, 200)


def test_what_lies_outside_a_picture_is_cut_off() -> None:
    assert RECTANGLE.inside(640, 480) == RECTANGLE
    assert Box(-10, 470, 30, 30).inside(640, 480) == Box(0, 470, 20, 10)
    thin = (Box(0, 0, 1e-46, 5), Box(0, 479.9999999, 5, 5))
    for outside in (Box(640, 0, 5, 5), Box(0, -5, 5, 5), *thin):
        assert outside.inside(640, 480) is None


@pytest.mark.parametrize("sides", [(0, 0, 0, 5), (0, 0, 5, -1), (math.nan, 0, 5, 5), (0, math.inf, 5, 5)])
def test_a_box_has_an_area(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="x, y, width and height"):
        Box(*sides)
