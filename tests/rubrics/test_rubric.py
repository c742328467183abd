"""Rubrics beyond five levels: answers of one's own, slots, checklists; what enters a digest, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from iqa_core.questions import LEVELS as FIVE
from iqa_core.questions import Column, ColumnScale
from iqa_core.records import AnswerScale, ScoreRange
from iqa_core.rubrics import Rubric, load_rubric

LEVELS = {"levels": ["bad", "poor", "fair", "good", "excellent"], "answer_prefix": "It is"}
SHOWN = {"name": "shown", "query": 'Is it "{prompt}"?', "answers": {"Yes": 1, "No": 0}, "answer_prefix": ""}
LOOKS = {"name": "looks", "query": "How does it look?"}
NOISE = {"name": "noise", "query": "How noisy?", "answers": {"1": 1, "5": 5, "10": 10}, "worst": 10, "best": 1}
CHECKLIST = {"query": "Is {statement} true?", "answers": {"no": 0, "yes": 1}, "answer_prefix": ""}
DOG, CAT = ({"name": name, "text": f"a {name} is there", "group": "things"} for name in ("dog", "cat"))
DARK = {"name": "dark", "text": "it is dark", "weight": 2}


def rubric(**parts: Any) -> Rubric:
    return Rubric.model_validate({"id": "x", "domain": "any", "prompt_version": 1, "description": "x", **parts})


def test_a_dimension_has_answers_a_range_and_a_beginning_of_its_own() -> None:
    found = rubric(**LEVELS, slots=["prompt"], dimensions=[SHOWN, LOOKS, NOISE])
    shown, looks, noise = found.questions
    assert (shown.scale, shown.slots) == (AnswerScale(("No", "Yes"), (0, 1), ScoreRange(0, 1)), ("prompt",))
    assert looks.scale == AnswerScale(tuple(LEVELS["levels"]), (1, 2, 3, 4, 5))
    assert noise.scale == AnswerScale(("10", "5", "1"), (10, 5, 1), ScoreRange(10, 1)), "worst to best"
    assert [one.answer_start for one in found.questions] == ["", "It is", "It is"]
    assert found.names == ("shown", "looks", "noise")
    scales = [column.scale for column in found.columns]
    assert scales == [ColumnScale(ScoreRange(0, 1), (0, 1)), FIVE, ColumnScale(ScoreRange(10, 1), (10, 5, 1))]
    assert [scale.max_std for scale in scales] == [0.5, 2, 4.5]
    assert [ColumnScale.from_json(scale.to_json()) for scale in scales] == scales


def test_one_end_of_a_range_says_where_the_other_is() -> None:
    ends = [{}, {"worst": 1}, {"best": 1}, {"worst": 10}, {"best": 10}, {"worst": 12}, {"best": 0}, {"worst": -1}]
    found = [rubric(answer_prefix="", dimensions=[NOISE | {"worst": None, "best": None} | one]) for one in ends]
    ranges = [one.columns[0].scale.range for one in found]
    wanted = [(1, 10), (1, 10), (10, 1), (10, 1), (1, 10), (12, 1), (10, 0), (-1, 10)]
    assert [(one.worst, one.best) for one in ranges] == wanted


def test_statements_are_columns_or_share_one() -> None:
    found = rubric(checklist=CHECKLIST, statements=[DOG, DARK, CAT | {"weight": 3}])
    assert [one.query for one in found.questions] == [f"Is {s['text']} true?" for s in (DOG, DARK, CAT)]
    assert found.columns == (
        Column("things", ColumnScale(ScoreRange(0, 1), (), is_group=True), (0, 2), (0.25, 0.75), 4),
        Column("dark", ColumnScale(ScoreRange(0, 1), (0, 1)), (1,), (1.0,), 2),
    )


def test_a_statement_may_have_a_slot() -> None:
    shown = {"name": "shown", "text": 'it shows "{prompt}"'}
    found = rubric(slots=["prompt"], checklist=CHECKLIST, statements=[shown, DARK])
    assert [question.slots for question in found.questions] == [("prompt",), ()]
    assert found.questions[0].filled({"prompt": "a {prompt}"}).query == 'Is it shows "a {prompt}" true?'
    with pytest.raises(ValidationError, match="which is no slot"):
        rubric(checklist=CHECKLIST, statements=[shown])


def test_what_a_rubric_does_not_use_is_not_in_its_digest() -> None:
    """The digest of a rubric that ships is that of version 1 of the format."""
    assert load_rubric("interior-v1").digest.startswith("3005e27e7ab03d3a")
    plain = rubric(**LEVELS, dimensions=[LOOKS])
    same: dict[str, Any]
    for same in (
        {"slots": []},
        {"between": "\n"},
        {"dimensions": [LOOKS | {"weight": 2, "description": "y", "local": True}]},
    ):
        assert rubric(**LEVELS | {"dimensions": [LOOKS]} | same).digest == plain.digest
    digests = {
        rubric(**parts).digest
        for parts in (
            LEVELS | {"dimensions": [LOOKS]},
            LEVELS | {"dimensions": [LOOKS | {"answer_prefix": "Well,"}, NOISE]},
            LEVELS | {"dimensions": [LOOKS, NOISE]},
            LEVELS | {"dimensions": [LOOKS, NOISE | {"answers": {"1": 1, "5": 4, "10": 10}}]},
            LEVELS | {"dimensions": [LOOKS, NOISE | {"worst": 11}]},
            LEVELS | {"dimensions": [LOOKS], "checklist": CHECKLIST, "statements": [DOG]},
            LEVELS | {"dimensions": [LOOKS], "checklist": CHECKLIST, "statements": [DOG | {"group": "beasts"}]},
            LEVELS | {"dimensions": [LOOKS | {"query": "{prompt}?"}], "slots": ["prompt"]},
            LEVELS | {"dimensions": [LOOKS | {"query": "{prompt}?"}], "slots": []},
            LEVELS | {"dimensions": [LOOKS], "between": ""},
            LEVELS | {"dimensions": [LOOKS], "between": " "},
        )
    }
    assert len(digests) == 11


def test_a_copy_with_other_dimensions_asks_other_questions() -> None:
    """Though those of the original were made before."""
    both, alone = (rubric(**LEVELS, dimensions=dimensions) for dimensions in ([LOOKS, NOISE], [LOOKS]))
    assert (len(both.questions), len(both.columns), both.digest == alone.digest) == (2, 2, False)
    copied = both.model_copy(update={"dimensions": both.dimensions[:1]})
    assert (copied.questions, copied.columns, copied.digest) == (alone.questions, alone.columns, alone.digest)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "nothing to ask"),
        ({"dimensions": [NOISE], "between": "Look!"}, "'Look!' is more than white space"),
        ({"dimensions": [LOOKS]}, "levels must be 5 distinct words"),
        ({"dimensions": [LOOKS], "levels": LEVELS["levels"]}, "answer_prefix: give one"),
        ({"dimensions": [NOISE], **LEVELS}, "levels are set, but every dimension has answers of its own"),
        (
            {"dimensions": [SHOWN], "slots": ["prompt"], "answer_prefix": "It"},
            "answer_prefix is set, but",
        ),
        ({"dimensions": [SHOWN]}, r"\{prompt\} in it, which is no slot"),
        ({"dimensions": [SHOWN], "slots": ["prompt", "style"]}, r"no query has \{style\}"),
        ({"dimensions": [SHOWN], "slots": ["prompt", "prompt"]}, "slots must differ"),
        ({"dimensions": [SHOWN], "slots": ["Prompt"]}, "lower-case identifier"),
        ({"dimensions": [SHOWN | {"answers": {"Yes": 1}}], "slots": ["prompt"]}, "1 answers; a closed set has 2 to 20"),
        ({"dimensions": [SHOWN | {"answers": dict.fromkeys(map(str, range(21)), 1)}]}, "21 answers"),
        ({"dimensions": [SHOWN | {"answers": {"a": 1, "b": 1}}]}, "all answers are worth 1"),
        ({"dimensions": [SHOWN | {"answers": {"a ": 1, "b": 2}}]}, "no white space around"),
        ({"dimensions": [SHOWN | {"answers": {"a": float("nan"), "b": 2}}]}, "Input should be"),
        ({"dimensions": [NOISE | {"worst": 9}]}, "must lie between worst 9 and best 1"),
        ({"dimensions": [LOOKS | {"worst": 5}], **LEVELS}, "there are none beside the rubric's levels"),
        ({"dimensions": [NOISE | {"weight": 0}]}, "greater than 0"),
        ({"dimensions": [NOISE | {"paraphrases": ["{prompt}?"]}]}, "must have the placeholders of its query"),
        ({"checklist": CHECKLIST, "dimensions": [NOISE]}, "need each other"),
        ({"statements": [DOG]}, "need each other"),
        ({"checklist": CHECKLIST | {"query": "True?"}, "statements": [DOG]}, r"must have \{statement\} in it"),
        ({"checklist": CHECKLIST | {"answers": {"a": 1, "b": 2}}, "statements": [DOG]}, "two answers, worth 0 and 1"),
        ({"checklist": CHECKLIST | {"best": 1}, "statements": [DOG]}, "leave worst and best out"),
        ({"checklist": CHECKLIST, "statements": [DOG, DOG]}, "question names must differ"),
        ({"checklist": CHECKLIST, "statements": [DOG], "dimensions": [NOISE | {"name": "dog"}]}, "question names must"),
        ({"dimensions": [SHOWN], "slots": ["prompt"], "system": "See {prompt}."}, "behind the image"),
        ({"checklist": CHECKLIST, "statements": [DOG, DARK | {"name": "things"}]}, "dimension names must differ"),
        (
            {"checklist": CHECKLIST, "statements": [DOG, DARK | {"name": "things_yes"}]},
            "column of a group",
        ),
        ({"checklist": CHECKLIST, "statements": [DARK | {"name": f"s{i}"} for i in range(257)]}, "at most 256"),
    ],
)
def test_what_breaks_a_rule_is_named(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        rubric(**parts)
