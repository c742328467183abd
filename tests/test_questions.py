"""Questions: placeholders, and texts in their place."""

from __future__ import annotations

import pytest

from iqa_core.questions import LEVELS, Column, Question, asked_alone, placeholders, replaced
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


def test_some_columns_are_asked_without_the_questions_of_others() -> None:
    columns = [Column(name, LEVELS, places, (1.0,), 1.0) for name, places in (("a", (0,)), ("b", (1, 3)), ("c", (2,)))]
    numbers, chosen = asked_alone(columns, ["c", "b"])
    assert numbers == [1, 2, 3]
    assert [(column.name, column.questions) for column in chosen] == [("b", (0, 2)), ("c", (1,))]
    for names, message in ((["a", "d"], "d is asked; there are a, b, c"), ([], "nothing is asked")):
        with pytest.raises(ValueError, match=message):
            asked_alone(columns, names)
