"""Texts of a model and of several people -> how near they are, by any measure of nearness."""

from __future__ import annotations

import pytest

from iqa_core.agreement.figures import Figure
from iqa_core.agreement.rouge import overlap
from iqa_core.reasons.texts import nearness

MEASURES = ("precision", "recall", "f1")


def near(text: str, reference: str) -> tuple[float, float]:
    """Made-up: texts are numbers, and the second measure is which of two references is the nearer one."""
    return float(text), -abs(float(text) - float(reference))


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def test_raters_are_meant_over_and_the_nearest_is_chosen_by_the_last_measure() -> None:
    found = nearness([("1",), ("4",), ()], [("1", "3"), ("4",), ("2", "2")], near, ("own", "minus"), 0, 0)
    assert (found.images, found.unwritten, found.texts) == (2, 1, 3)
    assert value(found.all_raters["own"]) == 2.5
    assert value(found.all_raters["minus"]) == pytest.approx(-0.5), "an image counts once, however many wrote about it"
    assert value(found.nearest_rater["minus"]) == 0
    assert found.all_samples == {}, "one answer for each image"
    assert found.ceiling_images == 2, "also where the model wrote nothing"
    assert value(found.ceiling["minus"]) == pytest.approx(-1)


def test_the_first_of_several_answers_counts_beside_their_mean() -> None:
    found = nearness([("1", "3"), ("2",)], [("1",), ("2",)], near, ("own", "minus"), 0, 0)
    assert value(found.all_raters["minus"]) == 0
    assert value(found.all_samples["minus"]) == pytest.approx(-0.5)
    assert found.samples == 3


def test_words_of_the_literature() -> None:
    """The figures of `tests/agreement/test_rouge.py`, as they come out of a set of one image; no interval of so few."""
    text, reference = "The photo is sharp, but slightly over-exposed.", "Sharp photo; slightly overexposed sky."
    found = nearness([(text,)], [(reference, text)], overlap(), MEASURES, 10, 0)
    assert value(found.all_raters["f1"]) == pytest.approx((0.461538 + 1) / 2, abs=1e-6)
    assert value(found.nearest_rater["f1"]) == 1
    assert value(found.ceiling["precision"]) == pytest.approx((0.375 + 0.6) / 2)
    assert found.all_raters["f1"].low is None


def test_intervals_are_over_images_and_nothing_is_made_up_where_nobody_wrote() -> None:
    texts, people = [(str(n),) for n in range(40)], [("0",)] * 40
    found = nearness(texts, people, near, ("own", "minus"), 200, 1)
    low, high = found.all_raters["own"].low, found.all_raters["own"].high
    assert low is not None
    assert high is not None
    assert 14 < low < 19.5 < high < 25
    empty = nearness([("1",)], [()], near, ("own", "minus"), 10, 0)
    assert (empty.images, empty.all_raters["own"].value, empty.ceiling) == (0, None, {})
    with pytest.raises(ValueError, match="zip"):
        nearness([("1",)], [], near, ("own", "minus"), 0, 0)
