"""Questions: placeholders, and texts in their place."""

from __future__ import annotations

from iqa_core.questions import Question, placeholders, replaced
from iqa_core.records import AnswerScale

SCALE = AnswerScale(("no", "yes"), (0, 1))


def test_a_text_stands_for_its_placeholder_and_keeps_its_own_braces() -> None:
    assert placeholders("{prompt} or {A} or {two}{prompt}") == ["prompt", "two", "prompt"]
    texts = {"prompt": "a {two} of {{}}", "two": "2"}
    assert replaced("{prompt}, {two}, {three}", texts) == "a {two} of {{}}, 2, {three}"


def test_only_slots_are_filled() -> None:
    question = Question("shown", 'Is {other} "{prompt}"?', "", SCALE, ("prompt",))
    filled = question.filled({"prompt": "a {prompt}", "other": "x"})
    assert (filled.query, filled.slots, filled.scale) == ('Is {other} "a {prompt}"?', (), SCALE)
