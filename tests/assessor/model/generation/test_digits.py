"""Numbers as distributions, against values that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.assessor.model.generation.decoding import Answer
from iqa_core.assessor.model.generation.digits import DigitReader, reading
from iqa_core.errors import CallerError
from iqa_core.records import Finish, ScoreRange
from iqa_core.written.form import Attribute, Form, Grammar

pytestmark = pytest.mark.slow

RATING = Attribute("quality", "")
FORM = Form(Grammar.TAGGED_NUMBER, (RATING,))
TEXTS = ["<7>", "", *"0123456789", " 3", " 4", ".", "a", "3", *(f" {digit}" for digit in "01256789")]
"""Markup, nothing, digits, the same with a space before, and a second way to write a digit, such as its byte."""


def logs(**weights: float) -> np.ndarray:
    """Log-probabilities of ten digits: `_3=0.5`."""
    row = np.full(10, 1e-12)
    for name, weight in weights.items():
        row[int(name[1])] = weight
    return np.log(row)


def test_a_single_digit_is_the_mean_over_the_range() -> None:
    """Weights of digits out of range do not count: of 0.3 and 0.5, 3/8 and 5/8."""
    found = reading([logs(_3=0.3, _4=0.5, _9=0.2)], RATING)
    assert found.mean == pytest.approx(3 * 3 / 8 + 4 * 5 / 8)
    assert found.std == pytest.approx((3 / 8 * 5 / 8) ** 0.5)


def test_decimals_are_given_the_digits_before_them() -> None:
    """3.5 or 3.7 in equal parts, and 3 for sure: 3.6 and 0.1."""
    found = reading([logs(_3=1.0), logs(_5=0.5, _7=0.5)], RATING)
    assert [found.mean, found.std] == pytest.approx([3.6, 0.1], rel=1e-4)


def test_the_upper_end_has_no_decimals() -> None:
    """4.5 and 5.0 in equal parts: 4.75 and 0.25."""
    found = reading([logs(_4=0.5, _5=0.5), logs(_5=1.0)], RATING)
    assert [found.mean, found.std] == pytest.approx([4.75, 0.25], rel=1e-4)


def test_a_scale_from_nought_to_nine_turned_round() -> None:
    found = reading([logs(_0=0.5, _9=0.5)], Attribute("noise", "", ScoreRange(9, 0)))
    assert [found.mean, found.std] == pytest.approx([4.5, 4.5])


def answer_of(ids: list[int], reader: DigitReader, places: dict[int, dict[int, float]]) -> Answer:
    """places: place of a token -> token -> probability there."""
    watched = np.full((len(ids), len(reader.watched)), np.log(1e-12), np.float32)
    for place, weights in places.items():
        for token, weight in weights.items():
            watched[place, reader.watched.index(token)] = np.log(weight)
    return Answer(tuple(ids), "".join(TEXTS[token] for token in ids), Finish.STOP, watched)


def test_digits_are_found_at_their_places() -> None:
    """Behind markup with a digit in it, and a digit with a space before it is one of its own kind."""
    reader = DigitReader(TEXTS, FORM, markup=[0])
    ids = [0, 15, 4, 15, 13, 14, 9]  # <7>a2a 4.7
    answer = answer_of(ids, reader, {4: {12: 0.25, 13: 0.75, 2: 0.9}, 6: {9: 1.0}})
    assert answer.text == "<7>a2a 4.7"
    [found] = reader.readings(answer, [(7, 10)])
    assert found.mean == pytest.approx(0.25 * 3 + 0.75 * 4 + 0.7, abs=1e-6)


def test_two_tokens_of_one_digit_count_together() -> None:
    reader = DigitReader(TEXTS, FORM, markup=[0])
    [found] = reader.readings(answer_of([6], reader, {0: {5: 0.2, 16: 0.3, 6: 0.5}}), [(0, 1)])
    assert found.mean == pytest.approx(3.5)


@pytest.mark.parametrize("text", ["12", "  3", "3 ", "x4", "07"])
def test_a_token_of_more_than_a_digit_is_refused(text: str) -> None:
    with pytest.raises(CallerError, match=f"has '{text}' as one"):
        DigitReader([*TEXTS[1:], text], FORM)


@pytest.mark.parametrize("text", [" 3", " 9", "5"])
def test_digits_of_which_one_has_no_token_are_refused(text: str) -> None:
    with pytest.raises(CallerError, match=f"has none for '{text}'"):
        DigitReader([one for one in TEXTS[1:] if one != text], FORM)


@pytest.mark.parametrize("ends", [(0, 100), (1, 4.5), (10, 1)])
def test_a_range_of_more_than_single_digits_is_refused(ends: tuple[float, float]) -> None:
    form = Form(Grammar.TAGGED_NUMBER, (Attribute("quality", "", ScoreRange(*ends)),))
    with pytest.raises(CallerError, match="whole numbers from 0 to 9"):
        DigitReader(TEXTS[1:], form)
