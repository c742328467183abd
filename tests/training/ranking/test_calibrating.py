"""Numbers off their scale, and opinions -> a curve that brings them there without changing an order; or the reason why
there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.agreement import Floats
from iqa_core.rubrics import WrittenRubric, load_any_rubric
from iqa_core.training.ranking.calibrating import MIN_IMAGES, MIN_SLOPE, MIN_WIDTH, calibrated, fitted
from iqa_core.training.written_validation import Rated

RUBRIC = cast(WrittenRubric, load_any_rubric("interior-written-v1"))
NOBODY: Any = None


def opinions(count: int) -> Floats:
    return np.random.default_rng(3).uniform(1, 5, count)


def found_for(scores_N: Floats, opinions_N: Floats, unparsed: int = 0) -> Any:
    """Of `quality` alone, with some images more of which nothing was parsed."""
    rated = [Rated(NOBODY, {"quality": value}) for value in [*opinions_N.tolist(), *[3.0] * unparsed]]
    said = [dict.fromkeys(RUBRIC.names, value) for value in scores_N.tolist()]
    return calibrated(RUBRIC, rated, [*said, *[None] * unparsed])


@pytest.mark.parametrize(
    "off",
    [
        lambda y_N: 1 + (y_N - 1) * 0.5,
        lambda y_N: 5 - (5 - y_N) * 0.4,
        lambda y_N: 1 + 4 * ((y_N - 1) / 4) ** 0.4,
        lambda y_N: np.round(1 + (y_N - 1) * 0.7),
    ],
    ids=["low", "high", "bent", "whole numbers"],
)
@pytest.mark.parametrize("count", [MIN_IMAGES, 100])
def test_the_error_falls_also_on_images_that_were_left_out(off: Callable[[Floats], Floats], count: int) -> None:
    y_N = opinions(count)
    noisy_N = np.clip(y_N + np.random.default_rng(4).normal(0, 0.2, count), 1, 5)
    calibration, changes = found_for(off(noisy_N), y_N, unparsed=2)
    assert calibration is not None
    assert (calibration.images, [*calibration.curves]) == (count, ["quality"])
    assert calibration.is_for(RUBRIC)
    change = changes[RUBRIC.names.index("quality")]
    before, after = change.mae
    assert after < change.mae_left_out < 0.6 * before, "no curve knows the images that it is tried on"
    assert change.srcc[0] == pytest.approx(change.srcc[1], abs=1e-12)
    assert str(change).startswith(f"quality: MAE {before:.3f} -> {after:.3f} (")


def test_an_attribute_without_enough_opinions_or_without_anything_to_gain_is_given_as_it_is_written() -> None:
    few = opinions(MIN_IMAGES - 1)
    none, changes = found_for(1 + (few - 1) / 2, few, unparsed=5)
    assert none is None
    reasons = {change.attribute: change.reason for change in changes}
    assert reasons["quality"] == f"opinions on {MIN_IMAGES - 1} parsed images, and it takes {MIN_IMAGES}"
    assert reasons["layout"] == f"opinions on 0 parsed images, and it takes {MIN_IMAGES}"
    assert str(changes[0]) == f"layout: none; {reasons['layout']}"
    y_N = opinions(60)
    same_N = np.full(60, 3.0)
    for scores_N, opinions_N, reason in (
        (same_N, y_N, "all numbers are equal"),
        (y_N, same_N, "all opinions are equal"),
        (y_N, y_N, "would not fall"),
    ):
        none, changes = found_for(scores_N, opinions_N)
        assert none is None
        assert reason in changes[RUBRIC.names.index("quality")].reason


def test_where_nothing_is_known_a_point_is_a_point() -> None:
    """All scores lie about 3, and opinions half a point below: so do those of 4. Below, the scale has no such room."""
    scores_N = np.linspace(2.8, 3.2, 100)
    curve = fitted(scores_N, scores_N - 0.5)
    assert curve(np.array([2.0, 3.0, 4.0])) == pytest.approx([1.73, 2.5, 3.5], abs=0.01)
    steep = fitted(scores_N, 2.5 + 3 * (scores_N - 3))
    assert 1.5 < max(steep.slopes) < 2, "a hundred images so near to one another speak for 3, and count about as much"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 60), st.sampled_from([0, 1, 2]), st.floats(0, 4))
def test_every_curve_rises_from_end_to_end_and_stays_on_the_scale(
    seed: int, count: int, decimals: int, width: float
) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(1, 5 - width)
    scores_N, y_N = np.round(random.uniform(low, low + width, count), decimals), random.uniform(1, 5, count)
    curve = fitted(scores_N, y_N)
    assert (curve.scores[0], curve.scores[-1]) == (1, 5)
    assert min(curve.slopes) >= MIN_SLOPE - 1e-4
    assert np.diff(curve.scores).min() >= MIN_WIDTH - 1e-6
    assert 1 <= curve.ratings[0] < curve.ratings[-1] <= 5
