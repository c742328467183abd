"""A text is the question of a rubric that it is word for word, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.rubrics import Rubric, load_rubric
from serve.errors import Refusal
from serve.protocol.question_texts import asked_question, model_names

HERE = Path(__file__).parent.parent
PROMPTED, STYLED, OPEN = (load_rubric(str(HERE / f"{name}.toml")) for name in ("prompted", "styled", "question"))
INTERIOR = load_rubric("interior-v1")
FAITHFUL = 'Does this picture show "{prompt}"?'
LAYOUT = INTERIOR.questions[0].query


@pytest.mark.parametrize(
    ("rubric", "text", "name", "texts"),
    [
        (OPEN, "Is it a beautiful image?", "yes", {"question": "Is it a beautiful image?"}),
        (OPEN, " Rate it:\n1. sharp\n\n2. bright\t", "yes", {"question": "Rate it:\n1. sharp\n\n2. bright"}),
        (OPEN, "{question} {prompt}", "yes", {"question": "{question} {prompt}"}),
        (OPEN, "", "yes", {"question": ""}),
        (PROMPTED, FAITHFUL.replace("{prompt}", "two dogs"), "faithful", {"prompt": "two dogs"}),
        (PROMPTED, FAITHFUL.replace("{prompt}", '"?" and "'), "faithful", {"prompt": '"?" and "'}),
        (PROMPTED, FAITHFUL.replace("{prompt}", ""), "faithful", {"prompt": ""}),
        (PROMPTED, FAITHFUL, "faithful", {"prompt": "{prompt}"}),
        (INTERIOR, LAYOUT, "layout", {}),
        (INTERIOR, "\n " + LAYOUT.replace(" ", "\n  ") + "\r\n", "layout", {}),
    ],
)
def test_a_text_is_the_question_that_it_is_word_for_word(
    rubric: Rubric, text: str, name: str, texts: dict[str, str]
) -> None:
    for model in (rubric.id, f"{rubric.id}/{name}"):
        found = asked_question(model, text, [PROMPTED, INTERIOR, OPEN])
        assert (found.rubric, found.question.name, found.texts) == (rubric.id, name, texts)
    if not text.isspace() and "" not in texts.values():
        assert found.question.filled(texts).query.split() == text.split()


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        ("gpt-4o", "a", "'gpt-4o' is none of prompted, prompted/faithful, prompted/faults, interior"),
        ("prompted/quality", "How good is this picture?", "'prompted/quality' is none of"),
        ("prompted/counting", "a", "is none of"),
        ("prompted", "How good is this picture?", "prompted asks no such text; send 'Does this picture show"),
        ("prompted", FAITHFUL.replace("{prompt}", "a").upper(), "asks no such text"),
        ("prompted", FAITHFUL.replace("{prompt}", "a") + " Say Yes or No.", "asks no such text"),
        ("prompted", 'Does this picture show "?', "asks no such text"),
        ("prompted/faults", FAITHFUL.replace("{prompt}", "a"), "send 'How many faults does"),
        ("interior-v1", "Is it a beautiful image?", f"send {LAYOUT[:200]!r}; or "),
    ],
)
def test_another_text_or_model_is_refused_with_what_is_served(model: str, text: str, words: str) -> None:
    with pytest.raises(Refusal) as found:
        asked_question(model, text, [PROMPTED, INTERIOR])
    assert found.value.status == 422
    assert words in found.value.message


def test_a_text_that_is_two_questions_needs_the_one_that_is_meant() -> None:
    twice = {
        "dimensions": [
            {"name": name, "query": "Is it good?", "answers": {"No": 0, "Yes": worth}, "answer_prefix": ""}
            for name, worth in (("yes", 1), ("much", 100))
        ]
    }
    rubric = Rubric(id="twice", domain="Any.", prompt_version=1, description="Two.", **twice)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match=r"more than one question; send one of twice/yes, twice/much"):
        asked_question("twice", "Is it good?", [rubric])
    assert asked_question("twice/much", "Is it good?", [rubric]).question.scale.worths == (0, 100)


def test_a_rubric_with_two_slots_has_no_question_that_is_one_text() -> None:
    assert model_names(STYLED) == []
    with pytest.raises(Refusal, match="no question here is one text"):
        asked_question("styled", "a", [STYLED])


def test_statements_that_are_columns_are_questions_and_those_of_a_group_are_not() -> None:
    listed = {
        "checklist": {"query": "{statement} Say Yes or No.", "answers": {"No": 0, "Yes": 1}, "answer_prefix": ""},
        "statements": [{"name": "dog", "text": "A dog?"}, {"name": "cat", "text": "A cat?", "group": "animals"}],
    }
    rubric = Rubric(id="list", domain="Any.", prompt_version=1, description="Two.", **listed)  # type: ignore[arg-type]
    assert model_names(rubric) == ["list", "list/dog"]
    assert asked_question("list", "A dog? Say Yes or No.", [rubric]).question.name == "dog"


def test_a_refusal_is_short_however_many_questions_there_are() -> None:
    many = [INTERIOR] * 50
    with pytest.raises(Refusal, match=r"is none of interior-v1, .* and 210 more"):
        asked_question("other", "a", many)
    with pytest.raises(Refusal, match=r"; or .* and 192 more"):
        asked_question("interior-v1", "a", many)
