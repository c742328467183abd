"""Q-ReAlign's words from a copy of its code or a card: what is read from where, and when it is refused.

Tests iqa_core/rubrics/released/q_realign.py and iqa_core/rubrics/released/reading.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.q_realign import read_q_realign
from tests.rubrics.released.copies import CARD, Q_REALIGN, line_of, write_copy

ANSWERS = {"awful": 0.0, "fine": 0.5, "superb": 1.0}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return write_copy(tmp_path, {**Q_REALIGN, "README.md": CARD})


def change(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def test_the_code_says_what_is_asked(copy: Path) -> None:
    reading = read_q_realign(copy)
    assert reading.content["dimensions"] == [
        {
            "name": "quality",
            "query": "Is it sound?",
            "paraphrases": ["How sound is it?", "Tell how sound it is."],
            "answer_prefix": " Its soundness is",
            "answers": ANSWERS,
        },
        {
            "name": "aesthetics",
            "query": "Is it beautiful?",
            "answer_prefix": " Its beauty is",
            "answers": ANSWERS,
        },
    ]
    assert reading.content["between"] == ""
    assert [list(d["answers"]) for d in reading.content["dimensions"]] == [["awful", "fine", "superb"]] * 2
    assert not {"qalign", "no_module_of_this_name"} & set(sys.modules)


def test_every_word_has_its_place(copy: Path) -> None:
    reading = read_q_realign(copy)
    assert dict(reading.sources) == {
        "quality, question": line_of(copy, "qalign/prompts.py", '"Is it sound?"'),
        "quality, paraphrases": "qalign/prompts.py, lines 13-15",
        "quality, answer prefix": line_of(copy, "qalign/prompts.py", '"Its soundness is"'),
        "aesthetics, question": line_of(copy, "qalign/prompts.py", '"Is it beautiful?"'),
        "aesthetics, answer prefix": line_of(copy, "qalign/prompts.py", '"Its beauty is"'),
        "answers": line_of(copy, "qalign/levels.py", "DEFAULT_NAMES"),
        "worths": line_of(copy, "qalign/levels.py", "DEFAULT_WEIGHTS"),
        "number of the question that is asked": "qalign/infer.py, line 6; qalign/datasets.py, line 6",
        "picture and question": line_of(copy, "qalign/scorer.py", '"<image>"'),
        "before the answer prefix": line_of(copy, "qalign/scorer.py", '" " +'),
    }
    shown = line_of(copy, "README.md", "How sound is it?")
    assert reading.notes == (
        "qalign/scorer.py, line 7, puts ' ' before the answer prefix, and the example in README.md nothing",
        f"{shown}, asks another question of the same list, which is a paraphrase here",
    )


def test_the_code_says_what_stands_between_picture_and_question(copy: Path) -> None:
    change(copy, "qalign/scorer.py", "len(images) +", 'len(images) + "\\n" +')
    change(copy, "qalign/scorer.py", '" " + record["stem"].strip()', '"" + record["stem"]')
    reading = read_q_realign(copy)
    assert reading.content["between"] == "\n"
    assert [one["answer_prefix"] for one in reading.content["dimensions"]] == ["Its soundness is", "Its beauty is"]
    assert len(reading.notes) == 1


def test_a_model_folder_has_the_example_of_its_card(tmp_path: Path) -> None:
    copy = write_copy(tmp_path, {"README.md": CARD, "config.json": "{}"})
    reading = read_q_realign(copy)
    assert reading.content["id"] == "q-realign-card"
    [quality] = reading.content["dimensions"]
    assert (quality["query"], quality["answer_prefix"]) == ("How sound is it?", "Its soundness is")
    assert reading.content["between"] == ""
    assert quality["answers"] == ANSWERS
    assert dict(reading.sources)["answers"] == line_of(copy, "README.md", "LEVELS, WEIGHTS")


def test_names_in_the_example_are_followed(tmp_path: Path) -> None:
    card = CARD.replace('"Its soundness is"', "START").replace("turn = [", 'START = "It begins"\nturn = [')
    [quality] = read_q_realign(write_copy(tmp_path, {"README.md": card})).content["dimensions"]
    assert quality["answer_prefix"] == "It begins"


def test_a_page_without_the_example_is_not_asked(copy: Path) -> None:
    (copy / "README.md").write_text("# A judge\n")
    assert read_q_realign(copy).notes == ()
    (copy / "README.md").unlink()
    assert read_q_realign(copy).content["id"] == "q-realign"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("qalign/prompts.py", "STEMS", "STARTS", "prompts.py assigns to STEMS nowhere"),
        ("qalign/prompts.py", '"iaa": [', '"art": [', "no dictionary with the key 'iaa'"),
        ("qalign/prompts.py", '"Its beauty is"', "start()", "a plain text is expected here"),
        ("qalign/prompts.py", '["Is it beautiful?"]', "[]", "picks question 0 of iaa, which has 0"),
        ("qalign/levels.py", "0.5, ", "", r"has 3 words in DEFAULT_NAMES and 2 numbers in DEFAULT_WEIGHTS"),
        ("qalign/levels.py", "fine", "awful", "no word twice"),
        ("qalign/infer.py", "prompts[0]", "prompts[1]", "infer.py, line 6 has 1, but qalign/datasets.py, line 6 has 0"),
        ("qalign/infer.py", "prompts[0]", "prompts[-1]", "a plain number is expected here"),
        ("qalign/infer.py", "task.prompts[0]", "rng.choice(task.prompts)", "picks no question by its number any more"),
        ("qalign/scorer.py", '+ record["prompt"]', "", "puts nothing before its prompt any more"),
        ("qalign/scorer.py", '" " +', "space +", "scorer.py, line 7: a plain text is expected here"),
        (
            "qalign/scorer.py",
            "\n    return",
            '\n    "\\n" + record["prompt"]\n    return',
            "the text before the prompt is not",
        ),
        (
            "README.md",
            "Its soundness is",
            "It is",
            "py, line 6 has 'Its soundness is', but README.md, line 14 has 'It is'",
        ),
        ("README.md", '"fine"', '"good"', "the list of answers is not the same everywhere"),
        ("README.md", "0.5", "0.6", "the list of their worths is not the same everywhere"),
        (
            "README.md",
            "How sound is it?",
            "Is it so?",
            "asks 'Is it so\\?', which is none of the questions in qalign/p",
        ),
        ("README.md", '"text": "How', '"words": "How', "README.md shows no question in its example any more"),
        ("README.md", "turn = [", "LEVELS = []\nturn = [", "README.md assigns to LEVELS on line 12 and on line 13"),
    ],
)
def test_words_that_have_moved_or_that_two_places_have_otherwise(
    name: str, old: str, new: str, said: str, copy: Path
) -> None:
    change(copy, name, old, new)
    with pytest.raises(CallerError, match=said):
        read_q_realign(copy)


@pytest.mark.parametrize("name", Q_REALIGN)
def test_a_module_that_is_gone(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(CallerError, match=f"{name} is not there"):
        read_q_realign(copy)


def test_a_page_with_two_examples(copy: Path) -> None:
    (copy / "README.md").write_text(CARD * 2)
    with pytest.raises(CallerError, match=r"README.md has 2 blocks of Python with LEVELS"):
        read_q_realign(copy)


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Something else\n")
    with pytest.raises(CallerError, match="has neither Q-ReAlign's code"):
        read_q_realign(tmp_path)
