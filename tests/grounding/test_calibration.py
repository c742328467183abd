"""Cells of an image against those of a corpus."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.errors import CallerError
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.calibration import MIN_IMAGES, Calibration
from iqa_core.grounding.locating import Located
from iqa_core.records import Reason, Rejection

RANDOM = np.random.default_rng(5)


def located(cell_scores: np.ndarray) -> Located:
    scores = cell_scores.astype(np.float32)
    return Located(3.0, scores, (0, 0), Box(0, 0, 1, 1), scores.max() - scores)


def corpus(count: int, side: int = 2) -> list[dict[str, Located]]:
    """Images whose cells score higher from one to the next, by half a point, with a spread of a tenth."""
    means = 1 + np.arange(side * side).reshape(side, side) / 2
    return [{"distortion": located(means + 0.1 * RANDOM.standard_normal((side, side)))} for _ in range(count)]


def test_a_cell_is_compared_with_its_own_kind() -> None:
    """The last cell scores best, and is the one that scores less than it does elsewhere."""
    rejected = Rejection(Reason.EMPTY, "the file has no bytes")
    calibration = Calibration.of([rejected, *corpus(MIN_IMAGES)])
    z = calibration.z("distortion", located(np.array([[1.0, 1.5], [2.0, 2.2]])))
    np.testing.assert_allclose(z, [[0, 0], [0, -3]], atol=0.6)
    assert z.argmin() == 3


def test_a_cell_that_always_scores_the_same_has_no_z() -> None:
    same = [{"distortion": located(np.full((1, 1), 2.5))}] * MIN_IMAGES
    assert np.isnan(Calibration.of(same).z("distortion", same[0]["distortion"])).all()


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(CallerError, match="199 images have cells; a calibration takes 200"):
        Calibration.of(corpus(MIN_IMAGES - 1))
    for odd in (corpus(1, side=3), [{"lighting": found["distortion"]} for found in corpus(1)]):
        with pytest.raises(CallerError, match="same dimensions, with as many cells"):
            Calibration.of([*corpus(MIN_IMAGES), *odd])
    calibration = Calibration.of(corpus(MIN_IMAGES))
    for name, side in (("lighting", 2), ("distortion", 3)):
        with pytest.raises(CallerError, match=f"no {name} with {side} cells"):
            calibration.z(name, corpus(1, side)[0]["distortion"])
