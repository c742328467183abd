"""What holds for the size of every image, and cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from iqa_core.assessor.ovis2_5.sizes import FACTOR, MAX_PIXELS, MIN_PIXELS, image_size

SIDES = st.integers(1, 30_000)
BOUNDS = st.sampled_from([(MIN_PIXELS, MAX_PIXELS), (FACTOR**2, 50_000), (65_536, 65_536)])


@given(SIDES, SIDES, BOUNDS)
def test_sides_are_multiples_and_the_area_never_too_large(height: int, width: int, bounds: tuple[int, int]) -> None:
    h, w = image_size(height, width, *bounds)
    assert h % FACTOR == w % FACTOR == 0
    assert min(h, w) >= FACTOR
    assert h * w <= bounds[1]


@given(SIDES, SIDES)
def test_the_area_is_never_too_small_within_the_released_bounds(height: int, width: int) -> None:
    h, w = image_size(height, width, MIN_PIXELS, MAX_PIXELS)
    assert h * w >= MIN_PIXELS


@given(SIDES, SIDES)
def test_turning_an_image_turns_its_size(height: int, width: int) -> None:
    assert image_size(width, height, MIN_PIXELS, MAX_PIXELS) == image_size(height, width, MIN_PIXELS, MAX_PIXELS)[::-1]


@given(SIDES, SIDES)
def test_a_size_that_was_chosen_stays(height: int, width: int) -> None:
    """Unless it is so long that rounding took it over 200 to 1, like 33 x 6417."""
    assume(max(height, width) <= 150 * min(height, width))
    chosen = image_size(height, width, MIN_PIXELS, MAX_PIXELS)
    assert image_size(*chosen, MIN_PIXELS, MAX_PIXELS) == chosen


@given(st.integers(448, 1344), st.integers(448, 1344))
def test_inside_the_bounds_a_side_moves_by_half_a_factor_at_most(height: int, width: int) -> None:
    h, w = image_size(height, width, MIN_PIXELS, MAX_PIXELS)
    assert abs(h - height) <= FACTOR / 2
    assert abs(w - width) <= FACTOR / 2


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((448, 640), (448, 640)),
        ((500, 500), (512, 512)),
        ((700, 1030), (704, 1024)),
        ((61, 97), (384, 576)),  # 5,917 pixels grow by the root of 33.92: 355.3 and 564.9, both rounded up
        ((3000, 3000), (1536, 1536)),  # 9,000,000 pixels shrink by the root of 3.737: 1551.9, rounded down
        ((16, 16), (448, 448)),  # first 32 x 32
        ((10, 4000), (32, 6400)),  # first 32 x 12800, cut to 32 x 6400; 204,800 pixels are enough
        ((448, 448), (448, 448)),
        ((1344, 1792), (1344, 1792)),
    ],
)
def test_sizes_by_hand(sides: tuple[int, int], expected: tuple[int, int]) -> None:
    assert image_size(*sides, MIN_PIXELS, MAX_PIXELS) == expected
