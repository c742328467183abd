"""What every assessor keeps, fake or real: the checks behind `iqa_core.assessor.protocol`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np

from iqa_core.assessor.protocol import Assessor
from iqa_core.records import Assessment, RgbImage

TOLERANCE = 1e-4
"""In float32, between one batch and another."""


def check_assessor(assessor: Assessor, images: Sequence[RgbImage]) -> None:
    """Raises AssertionError on the first thing that is not as the protocol says; at least two images, not all alike."""
    prepared = check_preparer(assessor, images)
    together = assessor.assess(prepared)
    assert len(together) == len(images)
    for result in together:
        check_assessment(assessor, result)
    assert assessor.assess([]) == []
    check_batches(assessor, prepared, [result for result in together if isinstance(result, Assessment)])
    assert assessor.versions["device"]
    assert all(isinstance(value, str) for value in assessor.versions.values())


def check_preparer(assessor: Assessor, images: Sequence[RgbImage]) -> list[np.ndarray]:
    """A preparer travels, and keeps what it promised from the header."""
    preparer = pickle.loads(pickle.dumps(assessor.preparer))
    assert preparer == assessor.preparer
    prepared = [preparer.prepare(image) for image in images]
    for image, pixels in zip(images, prepared, strict=True):
        shape = preparer.shape(image.header)
        assert pixels.shape == (shape.height, shape.width, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert shape.tokens >= 1
    return prepared


def check_assessment(assessor: Assessor, result: object) -> None:
    assert isinstance(result, Assessment)
    num_dimensions = len(assessor.rubric.dimensions)
    assert result.scores_K.shape == result.stds_K.shape == (num_dimensions,)
    assert result.probs_KL.shape == (num_dimensions, 5)
    assert {a.dtype for a in (result.scores_K, result.stds_K, result.probs_KL)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(result.probs_KL.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(result.probs_KL @ np.arange(1, 6, dtype=np.float32), result.scores_K, atol=1e-5)


def check_batches(assessor: Assessor, prepared: Sequence[np.ndarray], together: Sequence[Assessment]) -> None:
    """The same image gets the same result alone, in another order and in company of copies of itself."""
    alone = [assessor.assess([pixels])[0] for pixels in prepared]
    backwards = assessor.assess(list(prepared)[::-1])[::-1]
    crowded = assessor.assess([*prepared, *prepared])[len(prepared) :]
    for results in (alone, backwards, crowded):
        for expected, result in zip(together, results, strict=True):
            assert isinstance(result, Assessment)
            np.testing.assert_allclose(result.scores_K, expected.scores_K, atol=TOLERANCE)
            np.testing.assert_allclose(result.probs_KL, expected.probs_KL, atol=TOLERANCE)
    scores_NK = np.stack([result.scores_K for result in together])
    assert np.ptp(scores_NK, axis=0).min() > 10 * TOLERANCE, "images get scores that are all alike"
