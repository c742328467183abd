"""Many images at once are grounded as each is alone.

Tests iqa_core/assessor/fake.py, which has views if it is asked to.
"""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.protocol import Assessor
from iqa_core.errors import CallerError
from iqa_core.grounding import batches
from iqa_core.grounding.batches import Grounded, Viewable, assess_and_ground_each, ground_each, passes_of
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.locating import Region, assess_regions, locate
from iqa_core.records import Assessment, Reason, Rejection

RNG = np.random.default_rng(4)
PIXELS = [RNG.integers(0, 256, size, dtype=np.uint8) for size in ((33, 50, 3), (64, 24, 3), (20, 90, 3), (33, 50, 3))]
NAMES = ("lighting", "distortion")
BOXES = [Box(3, 3, 10, 9), Box(70, 0, 5, 5)]


@pytest.fixture(scope="module")
def fake() -> Assessor:
    return load_assessor("fake:?view_px=8")


def viewable(pixels: np.ndarray, boxes: list[Box]) -> Viewable:
    return Viewable(pixels, pixels.shape[1], pixels.shape[0], boxes)


def test_each_is_what_it_is_alone(fake: Assessor) -> None:
    found = ground_each(fake, [viewable(pixels, BOXES) for pixels in PIXELS], NAMES, 2)
    assert isinstance(found[2], Rejection), "2 rows of tokens"
    assert found[2] == Rejection(Reason.TOO_SMALL, "2 x 11 visual tokens: views take 3 along a side")
    for pixels, one in zip(PIXELS, found, strict=True):
        alone = locate(fake, pixels, NAMES)
        if isinstance(one, Rejection):
            assert isinstance(alone, Rejection)
            assert (alone.reason, alone.detail) == (one.reason, one.detail)
            continue
        assert isinstance(alone, dict)
        assert list(one.located) == list(alone) == ["lighting", "distortion"]
        for name, located in alone.items():
            assert (one.located[name].score, one.located[name].cell) == (located.score, located.cell)
            np.testing.assert_array_equal(one.located[name].cell_scores, located.cell_scores)
        regions = assess_regions(fake, pixels, BOXES, NAMES)
        assert [*one.regions] == regions
        assert isinstance(one.regions[0], Region)
        assert isinstance(one.regions[1], Rejection)


def test_boxes_beside_them_change_no_cells_and_the_whole_is_the_ordinary_score(fake: Assessor) -> None:
    [bare] = ground_each(fake, [viewable(PIXELS[0], [])], NAMES, 3)
    [boxed] = ground_each(fake, [viewable(PIXELS[0], BOXES)], NAMES[::-1], 3)
    [whole] = assess_images(fake, [PIXELS[0]])
    assert isinstance(bare, Grounded)
    assert isinstance(boxed, Grounded)
    assert isinstance(whole, Assessment)
    ordinary = dict(zip(fake.rubric.names, whole.scores_K, strict=True))
    for name in NAMES:
        np.testing.assert_array_equal(bare.located[name].cell_scores, boxed.located[name].cell_scores)
        assert bare.located[name].score == float(ordinary[name])
    assert bare.regions == ()


def test_assessments_beside_it_are_the_ordinary_ones_and_it_is_what_it_is_alone(
    fake: Assessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has its tokens and is bad, the third has too few of them, and the views take several passes."""
    images = [viewable(pixels, BOXES) for pixels in PIXELS]
    alone = ground_each(fake, images, NAMES, 2)
    for most in (64, 3):
        monkeypatch.setattr(batches, "MOST_VIEWS", most)
        found = assess_and_ground_each(fake, images, NAMES, 2)
        for (assessment, grounded), expected, ordinary in zip(
            found, alone, assess_each(fake, [image.pixels for image in images]), strict=True
        ):
            assert isinstance(assessment, Assessment)
            assert isinstance(ordinary, Assessment)
            np.testing.assert_array_equal(assessment.scores_K, ordinary.scores_K)
            if isinstance(expected, Rejection):
                assert grounded == expected
                continue
            assert isinstance(grounded, Grounded)
            assert grounded.regions == expected.regions
            for name in NAMES:
                assert grounded.located[name].score == assessment.scores_K[fake.rubric.names.index(name)]
                np.testing.assert_array_equal(grounded.located[name].cell_scores, expected.located[name].cell_scores)


def test_many_boxes_are_asked_about_in_several_passes(fake: Assessor, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [Box(x, y, 9, 9) for x in range(0, 40, 9) for y in range(0, 24, 9)]
    images = [viewable(PIXELS[0], boxes), viewable(PIXELS[1], [])]
    found = ground_each(fake, images, NAMES, 2)
    monkeypatch.setattr(batches, "MOST_VIEWS", 3)
    again = ground_each(fake, images, NAMES, 2)
    assert [one.regions for one in found] == [one.regions for one in again]  # type: ignore[union-attr]
    assert isinstance(again[0], Grounded)
    assert len(again[0].regions) == len(boxes)


def test_an_image_that_the_assessor_fails_on_costs_only_itself() -> None:
    poison = PIXELS[0].copy()
    poison[0, 0] = (255, 0, 255)
    fake = load_assessor("fake:?view_px=8&raise_on=ff00ff")
    first, second = ground_each(fake, [viewable(poison, []), viewable(PIXELS[1], [])], NAMES, 2)
    assert isinstance(first, Rejection)
    assert first.reason == Reason.ASSESSOR_FAILED
    assert isinstance(second, Grounded)
    (both, same), (other, _) = assess_and_ground_each(fake, [viewable(poison, []), viewable(PIXELS[1], [])], NAMES, 2)
    assert both == same == first
    assert isinstance(other, Assessment)


def test_an_assessor_without_views_is_refused() -> None:
    with pytest.raises(CallerError, match="no visual tokens"):
        ground_each(load_assessor("fake:"), [viewable(PIXELS[0], [])], NAMES, 2)


def test_an_image_goes_through_the_model_once_for_every_64_parts() -> None:
    assert [passes_of(2, 0), passes_of(2, 59), passes_of(2, 60), passes_of(3, 1024)] == [1, 1, 2, 17]
