"""Texts and references -> the share of words in common."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.errors import CallerError
from iqa_core.training.rewards.rouge import Measure, require_words, rouge1

TEXT, REFERENCE = "The photo is sharp, but slightly over-exposed.", "Sharp photo; slightly overexposed sky."


@pytest.mark.parametrize(("measure", "wanted"), [("precision", 0.375), ("recall", 0.6), ("f1", 0.461538)])
def test_the_nearest_of_several_references_counts(measure: Measure, wanted: float) -> None:
    found = rouge1([[TEXT]], [["dark", REFERENCE, "blurry sky"]], measure)
    np.testing.assert_allclose(found, [[wanted]], atol=6e-7)


def test_the_nearest_is_that_of_the_measure() -> None:
    references = ["sharp", "sharp photo of a sky at night"]
    assert rouge1([["sharp photo"]], [references], "recall").tolist() == [[1]]
    assert rouge1([["sharp photo"]], [references], "precision").tolist() == [[1]]
    assert rouge1([["sharp photo"]], [references]).max() == pytest.approx(2 / 3)


def test_what_is_missing_has_no_reward() -> None:
    found = rouge1([["good", None], ["good", None]], [["Good."], []])
    np.testing.assert_array_equal(found, [[1, np.nan], [np.nan, np.nan]])


@pytest.mark.parametrize("reference", ["", "…", "模糊的照片"])
def test_a_reference_without_words_is_refused(reference: str) -> None:
    for refuse in (lambda: require_words([["good"], [reference]]), lambda: rouge1([["a"], ["b"]], [[], [reference]])):
        with pytest.raises(CallerError, match="of image 1 has no word of Latin letters"):
            refuse()
