"""Samples -> means, spreads and texts, or a rejection that says how they begin."""

from __future__ import annotations

import math

import numpy as np
import pytest

from iqa_core.records import RETRYABLE, Assessment, Finish, Reason, Rejection, ScoreRange
from iqa_core.written.form import Attribute, Form, Grammar
from iqa_core.written.judging import NOT_FINITE, Reading, Sample, judged, tally
from tests.written.forms import ATTRIBUTES, NUMBER, PERCEPTION

CUT = Sample("<think>Edges are", Finish.LENGTH)


def answer(value: object, thought: str = "a") -> str:
    return f"<think>{thought}</think><answer>{value}</answer>"


def assessed(samples: list[Sample], form: Form = NUMBER) -> Assessment:
    found = judged(samples, form)
    assert isinstance(found, Assessment)
    return found


def test_one_answer_has_no_spread() -> None:
    line = "Sharpness: 4, Color: 3.5, Noise: 2, Composition: 5, Overall: 3.60"
    found = assessed([Sample(f"<think>Soft.</think>{line}")], ATTRIBUTES)
    assert found.scores_K.dtype == found.stds_K.dtype == np.float32
    assert found.scores_K.tolist() == np.array([4, 3.5, 2, 5, 3.6], np.float32).tolist()
    assert np.isnan(found.stds_K).all()
    assert found.probs_K == ()


def test_several_answers_are_averaged_and_their_spread_is_unbiased() -> None:
    found = assessed([Sample(answer(3)), CUT, Sample(answer(4, "b")), Sample(answer(4.5))])
    assert found.scores_K.tolist() == pytest.approx([3.8333333])
    assert found.stds_K.tolist() == pytest.approx([np.std([3, 4, 4.5], ddof=1)])
    written = found.written
    assert written is not None
    assert (written.reasoning, written.caption, written.parsed, written.codes) == ("a", None, 3, ("no_close",))
    assert written.answers == (answer(3), CUT.text, answer(4, "b"), answer(4.5))


def test_texts_and_finish_are_those_of_the_first_answer_that_is_parsed() -> None:
    said = "<caption>A room.</caption><reasoning>Dim.</reasoning><rating>2</rating>"
    found = assessed([CUT, Sample(said, Finish.LENGTH), Sample(said.replace("Dim", "Lit"))], PERCEPTION).written
    assert found is not None
    assert (found.caption, found.reasoning, found.finish) == ("A room.", "Dim.", Finish.LENGTH)


def test_numbers_are_brought_to_the_scale_of_ratings() -> None:
    noise = Form(Grammar.TAGGED_NUMBER, (Attribute("noise", "", ScoreRange(100, 0)),))
    found = assessed([Sample("<answer>100</answer>"), Sample("<answer>75</answer>")], noise)
    assert found.scores_K.tolist() == [1.5]
    assert found.stds_K.tolist() == pytest.approx([np.std([1, 2], ddof=1)])


def test_numbers_that_are_read_as_distributions_have_a_spread_from_one_answer() -> None:
    one = Sample(answer(4), readings=(Reading(3.8, 0.3),))
    assert assessed([one]).scores_K.tolist() == pytest.approx([3.8])
    assert assessed([one]).stds_K.tolist() == pytest.approx([0.3])
    both = assessed([one, Sample(answer(3), readings=(Reading(3.0, 0.4),))])
    assert both.scores_K.tolist() == pytest.approx([3.4])
    assert both.stds_K.tolist() == pytest.approx([math.sqrt((0.09 + 0.16) / 2 + 0.4**2)]), "that of the two together"
    assert judged([Sample(answer(4), readings=(Reading(math.nan, math.nan),))], NUMBER) == NOT_FINITE


def test_an_image_of_which_no_answer_is_parsed_is_rejected() -> None:
    long = Sample("<think>\n\x1b[31m\u202eé\\" + "x" * 300)
    found = judged([long, Sample(answer(7))], NUMBER)
    assert isinstance(found, Rejection)
    assert found.reason is Reason.UNPARSABLE
    assert found.reason not in RETRYABLE, "the same model says the same again"
    shown = "<think>\\n\\x1b[31m\\u202eé\\\\"
    assert found.detail == f"no_close: {shown}{'x' * (200 - 16)}"
    assert found.codes == ("no_close", "out_of_range:quality")
    assert found.detail.isprintable()


def test_a_lone_surrogate_is_kept_out_of_files() -> None:
    found = judged([Sample("\ud800")], NUMBER)
    assert isinstance(found, Rejection)
    assert found.detail == "no_open: \N{REPLACEMENT CHARACTER}"
    written = assessed([Sample(answer(3, "a\udc80b"))]).written
    assert written is not None
    assert (written.reasoning, written.answers) == (
        "a\N{REPLACEMENT CHARACTER}b",
        (answer(3, "a\N{REPLACEMENT CHARACTER}b"),),
    )


def test_answers_are_counted_by_what_was_wrong_with_them() -> None:
    results = [
        judged([Sample(answer(3)), CUT], NUMBER),
        judged([CUT, CUT], NUMBER),
        judged([Sample(answer(1))], NUMBER),
    ]
    results.append(Rejection(Reason.ASSESSOR_FAILED, "it died"))
    assert tally(results) == {"parsed": 2, "no_close": 3}
