"""What every assessor keeps, fake or real: the checks behind `iqa_core.assessor.protocol`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence

import numpy as np

from iqa_core.assessor.protocol import Assessor, Describer
from iqa_core.records import Assessment, Finish, FreeAnswer, FreeQuestion, Rejection, RgbImage
from iqa_core.rubrics import WrittenRubric

TOLERANCE = 1e-4
"""In float32, between one batch and another."""


def check_assessor(assessor: Assessor, images: Sequence[RgbImage]) -> None:
    """Raises AssertionError on the first thing that is not as the protocol says; at least two images, not all alike."""
    prepared = check_preparer(assessor, images)
    texts = [{slot: f"a room, number {i} of {slot}" for slot in assessor.rubric.slots} for i in range(len(images))]
    together = assess(assessor, prepared, texts)
    assert len(together) == len(images)
    for result in together:
        check_assessment(assessor, result)
    assert assess(assessor, [], []) == []
    check_batches(assessor, prepared, texts, [result for result in together if isinstance(result, Assessment)])
    if isinstance(assessor.rubric, WrittenRubric):
        check_describer(assessor, prepared)
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
    long = dict.fromkeys(assessor.rubric.slots, "a room " * 100)
    assert (preparer.text_tokens(long) > 100) == bool(long)
    return prepared


def check_assessment(assessor: Assessor, result: object) -> None:
    assert isinstance(result, Assessment)
    rubric = assessor.rubric
    assert result.scores_K.shape == result.stds_K.shape == (len(rubric.names),)
    assert {a.dtype for a in (result.scores_K, result.stds_K, *result.probs_K)} == {np.dtype(np.float32)}
    if isinstance(rubric, WrittenRubric):
        check_written(result, rubric)
        return
    for column, score, probs in zip(rubric.columns, result.scores_K, result.probs_K, strict=True):
        if column.scale.is_group:
            np.testing.assert_allclose(probs @ np.asarray(column.shares), score, atol=1e-5)
            continue
        np.testing.assert_allclose(probs.sum(), 1, atol=1e-5)
        worths = rubric.questions[column.questions[0]].scale.worths
        np.testing.assert_allclose(probs @ np.asarray(worths, np.float32), score, atol=1e-5)


def check_written(result: Assessment, rubric: WrittenRubric) -> None:
    """Scores are within the range of ratings, and what was written is there."""
    assert result.probs_K == ()
    assert ((result.scores_K >= 1) & (result.scores_K <= 5)).all()
    written = result.written
    assert written is not None
    assert len(written.answers) == rubric.decoding.samples == written.parsed + len(written.codes)
    assert written.parsed >= 1


def check_describer(assessor: object, prepared: Sequence[np.ndarray]) -> None:
    """Each image has an answer to its own question, the same alone, in another order and beside longer answers."""
    assert isinstance(assessor, Describer)
    questions = [FreeQuestion(f"What is this, number {i}?", 1 + i % 3) for i in range(len(prepared))]
    together = assessor.describe(prepared, questions)
    assert all(isinstance(one, FreeAnswer) and one.finish in Finish for one in together)
    alone = [assessor.describe([pixels], [own])[0] for pixels, own in zip(prepared, questions, strict=True)]
    backwards = assessor.describe(list(prepared)[::-1], questions[::-1])[::-1]
    longer = [FreeQuestion(question.text, 9) for question in questions]
    crowded = assessor.describe([*prepared, *prepared], [*longer, *questions])[len(prepared) :]
    assert alone == backwards == crowded == together
    assert assessor.describe([], []) == []


def assess(
    assessor: Assessor, prepared: Sequence[np.ndarray], texts: Sequence[Mapping[str, str]]
) -> list[Assessment | Rejection]:
    """Texts are given to rubrics with slots alone."""
    return assessor.assess(prepared, texts if assessor.rubric.slots else None)


def check_batches(
    assessor: Assessor,
    prepared: Sequence[np.ndarray],
    texts: Sequence[Mapping[str, str]],
    together: Sequence[Assessment],
) -> None:
    """The same image and texts get the same result alone, in another order and in company of copies of themselves."""
    alone = [assess(assessor, [pixels], [own])[0] for pixels, own in zip(prepared, texts, strict=True)]
    backwards = assess(assessor, list(prepared)[::-1], list(texts)[::-1])[::-1]
    crowded = assess(assessor, [*prepared, *prepared], [*texts, *texts])[len(prepared) :]
    for results in (alone, backwards, crowded):
        for expected, result in zip(together, results, strict=True):
            assert isinstance(result, Assessment)
            np.testing.assert_allclose(result.scores_K, expected.scores_K, atol=TOLERANCE)
            assert result.written == expected.written
            for probs, wanted in zip(result.probs_K, expected.probs_K, strict=True):
                np.testing.assert_allclose(probs, wanted, atol=TOLERANCE)
    scores_NK = np.stack([result.scores_K for result in together])
    assert np.ptp(scores_NK, axis=0).min() > 10 * TOLERANCE, "images get scores that are all alike"
