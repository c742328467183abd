"""Texts that come with an image: there, or the image's rejection."""

from __future__ import annotations

import pytest

from iqa_core.records import RETRYABLE, Reason, Rejection
from iqa_core.slots import TextLimits, TooLong, texts_of

FIVE = TextLimits(max_chars=5)


def test_every_slot_has_its_text_without_white_space_around() -> None:
    values = {"prompt": "  a room\n", "style": "x", "more": 3}
    assert texts_of(("prompt", "style"), values) == {"prompt": "a room", "style": "x"}
    assert texts_of((), values) == {}


@pytest.mark.parametrize("value", [None, "", " \n\t", 3, b"room", ["a"], float("nan")])
def test_what_is_no_text_is_missing_and_stays_so(value: object) -> None:
    found = texts_of(("style", "prompt"), {"style": "x", "prompt": value})
    assert found == Rejection(Reason.MISSING_TEXT, "there is no text for {prompt}")
    assert texts_of(("prompt",), {}) == found
    assert Reason.MISSING_TEXT not in RETRYABLE


def test_a_text_above_the_bound_is_refused_or_cut() -> None:
    refused = texts_of(("prompt",), {"prompt": "sixsix"}, FIVE)
    assert refused == Rejection(Reason.TOO_LARGE, "the text for {prompt} has 6 characters, above 5")
    cut = TextLimits(5, TooLong.CUT)
    assert texts_of(("prompt",), {"prompt": "sixsix"}, cut) == {"prompt": "sixsi"}
    assert [limits.is_cut("sixsix") for limits in (cut, FIVE)] == [True, False]
    assert not cut.is_cut("fives")


def test_what_no_tokenizer_takes_becomes_letters_as_in_carried_columns() -> None:
    letters = "a" + r"\ud83d" + "b"
    assert texts_of(("prompt",), {"prompt": "a\ud83db"}) == texts_of(("prompt",), {"prompt": letters})
    assert texts_of(("prompt",), {"prompt": "a\ud83db"}) == {"prompt": letters}
    assert TextLimits(5, TooLong.CUT).is_cut("\ud83d"), "six letters"
    refused = texts_of(("prompt",), {"prompt": "\ud83d"}, FIVE)
    assert refused == Rejection(Reason.TOO_LARGE, "the text for {prompt} has 6 characters, above 5")
