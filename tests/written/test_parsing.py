"""Written answers -> numbers and texts, or one code for each thing that can be wrong.

Tests iqa_core/written/parsing.py, iqa_core/written/cursor.py and iqa_core/written/form.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from iqa_core.records import ScoreRange
from iqa_core.written.form import Attribute, Form, Grammar
from iqa_core.written.parsing import Parsed, Unparsed, parsed
from tests.clock import least_cpu_s
from tests.written.forms import ATTRIBUTES, FORMS, JSON, NUMBER, PERCEPTION, PLAIN_JSON, PLAIN_NUMBER, TAGGED_JSON

LINE = "Sharpness: 4, Color: 3.5, Noise: 2, Composition: 5, Overall: 3.60"
THOUGHT = "<think>Edges are soft.</think>\n"
PERCEIVED = "<caption>A room.</caption>\n<reasoning>Well lit.</reasoning>\n<rating>3.5</rating>"
OBJECT = '{"reasoning": {"evidence": "It is \\"soft\\".", "solution": "\\u00e9\\ud83d\\ude00"}, "rating": "3.50"}'


def code(text: str, form: Form) -> str:
    found = parsed(text, form)
    assert isinstance(found, Unparsed), found
    return found.code


def said(text: str, form: Form) -> Parsed:
    found = parsed(text, form)
    assert isinstance(found, Parsed), found
    return found


def test_a_line_of_attributes() -> None:
    found = said(f" \n{THOUGHT}{LINE}\n ", ATTRIBUTES)
    assert found.values == (4.0, 3.5, 2.0, 5.0, 3.6)
    assert (found.caption, found.reasoning, found.lenient) == (None, "Edges are soft.", ())
    assert said("<think></think>" + LINE, ATTRIBUTES).reasoning == ""


def test_caption_reasoning_and_rating() -> None:
    found = said(PERCEIVED, PERCEPTION)
    assert (found.values, found.caption, found.reasoning) == ((3.5,), "A room.", "Well lit.")
    assert said(PERCEIVED.replace("3.5", "\n3.5 "), PERCEPTION).values == (3.5,)


def test_a_number_behind_a_thought() -> None:
    found = said("<think>1 to 5: soft</think>\n<answer> 3.75\n</answer>", NUMBER)
    assert (found.values, found.reasoning) == ((3.75,), "1 to 5: soft")
    assert said("<answer>3.75</answer>", PLAIN_NUMBER).reasoning is None


def test_json_behind_a_thought_and_alone() -> None:
    text = '<thinking>a\nb</thinking><answer>\n{ "rating" :3.50 }\n</answer>'
    assert (said(text, TAGGED_JSON).values, said(text, TAGGED_JSON).reasoning) == ((3.5,), "a\nb")
    assert said(OBJECT, JSON).values == (3.5,)
    assert said(OBJECT, JSON).reasoning == 'It is "soft".\né😀'
    assert said('{"noise": 70, "rating": 5}', PLAIN_JSON).values == (70, 5)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (THOUGHT + LINE, ATTRIBUTES),
        (PERCEIVED, PERCEPTION),
        ("<think>3.75</think><answer>\n3.75</answer>", NUMBER),
        (OBJECT, JSON),
        ('{"noise": 100, "rating": 5.00}', PLAIN_JSON),
    ],
)
def test_spans_are_where_the_numbers_stand(text: str, form: Form) -> None:
    found = said(text, form)
    assert tuple(float(text[begin:end]) for begin, end in found.spans) == found.values
    assert all(text[begin - 1] in ' >"\n' for begin, _ in found.spans)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (LINE.replace(", Overall: 3.60", ""), "missing_attribute:quality"),
        (LINE.replace("Overall: 3.60", ""), "missing_attribute:quality"),
        (LINE.replace("Color: 3.5", "Color: 4/5"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 4.567"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 0.5"), "out_of_range:color"),
        (LINE.replace("Color: 3.5", "Color: 5.01"), "out_of_range:color"),
        (LINE.replace("Color: 3.5", "Color: 3,5"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: ３.5"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 3²"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 1e1"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: NaN"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: inf"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: -3"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: +3"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 3."), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: .5"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 03"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 3_0"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: "), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 3,,"), "not_a_number:color"),
        (LINE.replace("Color: 3.5", "Color: 3.5\u00a0"), "not_a_number:color"),
        (LINE.replace(", Noise", ",  Noise"), "missing_attribute:noise"),
        (LINE.replace(", Noise", "\nNoise"), "missing_attribute:noise"),
        (LINE.replace(", Noise", " ,Noise"), "missing_attribute:noise"),
        (LINE.replace("Noise", "noise"), "missing_attribute:noise"),
        (LINE.replace("Noise:", "Noise :"), "missing_attribute:noise"),
        ("Color: 3.5, Sharpness: 4, Noise: 2, Composition: 5, Overall: 3.60", "missing_attribute:sharpness"),
        (f"The scores: {LINE}", "missing_attribute:sharpness"),
        (f"{LINE}.", "not_a_number:quality"),
        (f"{LINE}, Beauty: 4", "trailing_text"),
        (f"{LINE}\nThat is all.", "trailing_text"),
        (f"{LINE}\n{LINE}", "trailing_text"),
        (f"<think>Again.</think>{LINE}", "duplicate_tag"),
        (f"{LINE}\n<think>Again.</think>", "duplicate_tag"),
        (f"{LINE}</think>", "not_a_number:quality"),
    ],
)
def test_a_line_that_says_nothing(line: str, expected: str) -> None:
    assert code(THOUGHT + line, ATTRIBUTES) == expected


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("", ATTRIBUTES, "no_open"),
        (LINE, ATTRIBUTES, "no_open"),
        (f"Sure! {THOUGHT}{LINE}", ATTRIBUTES, "no_open"),
        (f"<Think>a</Think>{LINE}", ATTRIBUTES, "no_open"),
        ("<think>Edges are", ATTRIBUTES, "no_close"),
        (f"<think>a <think> b</think>{LINE}", ATTRIBUTES, "nested_tag"),
        (f"<think>a <rating>3</rating></think>{LINE}", ATTRIBUTES, "nested_tag"),
        (f"<think>a</thinking>{LINE}", ATTRIBUTES, "nested_tag"),
        (PERCEIVED.replace("<caption>", ""), PERCEPTION, "no_open"),
        (PERCEIVED.replace("</caption>", ""), PERCEPTION, "nested_tag"),
        (PERCEIVED.replace("</rating>", ""), PERCEPTION, "no_close"),
        (PERCEIVED.replace("<reasoning>", "<caption>"), PERCEPTION, "duplicate_tag"),
        (PERCEIVED.replace("<reasoning>Well lit.</reasoning>", ""), PERCEPTION, "no_open"),
        (PERCEIVED.replace("Well", "<rating>4</rating> Well"), PERCEPTION, "nested_tag"),
        (PERCEIVED.replace("3.5", "3.5 of 5"), PERCEPTION, "not_a_number:quality"),
        (PERCEIVED.replace("3.5", "6"), PERCEPTION, "out_of_range:quality"),
        (PERCEIVED + "<rating>4</rating>", PERCEPTION, "duplicate_tag"),
        (PERCEIVED + "!", PERCEPTION, "trailing_text"),
        ("<think>a</think> 3.75", NUMBER, "no_open"),
        ("<think>a</think><answer>3.75", NUMBER, "no_close"),
        ("<think>a</think><answer></answer>", NUMBER, "not_a_number:quality"),
        ("<think>a</think><answer>3.75</answer><answer>3.75</answer>", NUMBER, "duplicate_tag"),
        ("<thinking>a</thinking><answer>3.5</answer>", TAGGED_JSON, "no_open"),
        ('<thinking>a</thinking><answer>{"rating": 3.5</answer>', TAGGED_JSON, "no_close"),
        ('<thinking>a</thinking><answer>{"rating": 3.5}', TAGGED_JSON, "no_close"),
        ('<thinking>a</thinking><answer>{"rating": 3.5} so</answer>', TAGGED_JSON, "trailing_text"),
        ('<thinking>a</thinking><answer>{"rating": "3.5"}</answer>', TAGGED_JSON, "not_a_number:quality"),
        ('<thinking>a</thinking><answer>{"score": 3.5}</answer>', TAGGED_JSON, "missing_attribute:quality"),
        ('<thinking>a</thinking><answer>{"rating": 3.5, "rating": 4}</answer>', TAGGED_JSON, "duplicate_tag"),
        ('<thinking>a</thinking><answer>{"rating": 3.5, "x": 4}</answer>', TAGGED_JSON, "trailing_text"),
        ("[]", JSON, "no_open"),
        (OBJECT[:-1], JSON, "no_close"),
        (OBJECT[:40], JSON, "no_close"),
        (OBJECT[: OBJECT.index("3.50") + 2], JSON, "no_close"),
        (OBJECT.replace("evidence", "proof"), JSON, "missing_attribute:evidence"),
        (OBJECT.replace('"solution"', '"evidence"'), JSON, "duplicate_tag"),
        (OBJECT.replace("\\u00e9", "\\x"), JSON, "missing_attribute:solution"),
        (OBJECT.replace("It is", "It\nis"), JSON, "missing_attribute:evidence"),
        (OBJECT.replace("It is", "It is </think>"), JSON, "nested_tag"),
        (OBJECT.replace("It is", "It is \\u003crating>"), JSON, "nested_tag"),
        (OBJECT.replace('"3.50"', "3.50"), JSON, "not_a_number:quality"),
        (OBJECT + OBJECT, JSON, "trailing_text"),
        ('{"noise": 70 "rating": 5}', PLAIN_JSON, "missing_attribute:quality"),
        ('{"noise": 70.5, "rating": 5}', PLAIN_JSON, "not_a_number:noise"),
        ('{"noise": 101, "rating": 5}', PLAIN_JSON, "out_of_range:noise"),
        ('{"noise": 1000, "rating": 5}', PLAIN_JSON, "not_a_number:noise"),
        ('{"rating": 5, "noise": 70}', PLAIN_JSON, "missing_attribute:noise"),
    ],
)
def test_an_answer_that_says_nothing(text: str, form: Form, expected: str) -> None:
    assert code(text, form) == expected


def test_a_number_that_may_be_cut_is_none() -> None:
    cut = THOUGHT + LINE[:-1]  # of 3.60
    assert said(cut, ATTRIBUTES).values[-1] == 3.6
    assert parsed(cut, ATTRIBUTES, is_cut=True) == Unparsed("no_close")
    assert isinstance(parsed(f"{cut}\n", ATTRIBUTES, is_cut=True), Parsed), "the number was over before the limit"
    assert isinstance(parsed(PERCEIVED, PERCEPTION, is_cut=True), Parsed)


def test_of_several_answers_the_last_counts_where_the_rubric_says_so() -> None:
    lenient = replace(NUMBER, last_answer=True)
    text = "<think>a</think><answer>3</answer> or rather <answer>4</answer>"
    assert code(text, NUMBER) == "trailing_text"
    assert (said(text, lenient).values, said(text, lenient).lenient) == ((4.0,), ("last_answer",))
    assert said("<think>a</think>\n<answer>3</answer>", lenient).lenient == (), "it was not needed"
    assert code("<think>a</think>3", lenient) == "no_open"
    assert code("<think>a<answer>3</answer></think>", lenient) == "nested_tag"
    assert code("<think>a</think><answer>3</answer><answer>four</answer>", lenient) == "not_a_number:quality"


def test_an_empty_thought_is_taken_off_where_the_rubric_says_so() -> None:
    lenient = replace(JSON, strip_prefix=True)
    assert code(f"<think>\n\n</think>\n\n{OBJECT}", JSON) == "no_open"
    assert said(f"<think>\n\n</think>\n\n{OBJECT}", lenient).lenient == ("strip_prefix",)
    assert said(OBJECT, lenient).lenient == ()
    assert code(f"<think>a</think>{OBJECT}", lenient) == "no_open"


def test_ranges_and_decimals_are_the_attributes_own() -> None:
    percent = Form(Grammar.TAGGED_NUMBER, (Attribute("noise", "", ScoreRange(100, 0), 1),))
    assert [said(f"<answer>{found}</answer>", percent).values for found in ("0", "7.5", "100", "100.0")] == [
        (0.0,),
        (7.5,),
        (100.0,),
        (100.0,),
    ]
    assert code("<answer>100.1</answer>", percent) == "out_of_range:noise"
    assert code("<answer>7.55</answer>", percent) == "not_a_number:noise"


@pytest.mark.parametrize("name", FORMS)
def test_an_answer_takes_time_in_proportion_to_its_length(name: str) -> None:
    form = replace(FORMS[name], last_answer=True, strip_prefix=True)
    for start in ("", "<think>", "<think></think>", "<thinking></thinking><answer>", '{"noise": "'):
        for unit in ("<", "</think>", '"', "\\", " ", "1", "<answer>", "Sharpness: 4, "):
            text = start + unit * (40_000 // len(unit))
            # 2 to 10 ms; with a step for each pair of characters it would be minutes
            assert least_cpu_s(lambda text=text: parsed(text, form), 0.5) < 0.5, (start, unit)  # type: ignore[misc]
