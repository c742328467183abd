"""Opinions and descriptions -> samples: questions, answers, targets, weights, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.opinions.opinion import Opinion
from iqa_core.rubrics import Rubric, load_rubric
from iqa_core.training.samples import level_samples, require_known_weights, text_samples
from tests.unlike import ASKING, TRAINABLE

RUBRIC = load_rubric("interior-v2")


def opinion(dimension: str = "layout", mos: float = 3.6, dataset: str = "a") -> Opinion:
    return Opinion(image="x.png", path=Path("/data/x.png"), dimension=dimension, mos=mos, dataset=dataset)


def test_an_opinion_becomes_the_rubrics_question_and_its_sentence() -> None:
    [sample] = level_samples([opinion()], RUBRIC, "linear", {})
    assert sample.query == RUBRIC.dimensions[0].query
    assert sample.answer == "The spatial aesthetic layout quality level of this image is good."
    assert sample.level is not None
    assert sample.level.target == pytest.approx((0, 0, 0.4, 0.6, 0))


def test_weights_of_data_set_and_dimension_multiply() -> None:
    weights = {"a": 2.0, "harmony": 3.0}
    found = level_samples([opinion(), opinion("harmony"), opinion("harmony", dataset="b")], RUBRIC, "hard", weights)
    assert [sample.weight for sample in found] == [2, 6, 3]


def test_a_dimension_that_the_rubric_does_not_have_is_refused() -> None:
    with pytest.raises(CallerError, match="opinions on sharpness, but rubric interior-v2 asks for layout"):
        level_samples([opinion("sharpness")], RUBRIC, "hard", {})


def test_weights_of_nothing_are_refused() -> None:
    samples = level_samples([opinion()], RUBRIC, "hard", {})
    with pytest.raises(CallerError, match="--weight layuot"):
        require_known_weights({"layuot": 2.0}, samples)
    with pytest.raises(CallerError, match="above 0"):
        require_known_weights({"layout": 0.0}, samples)


def test_descriptions_are_samples_without_a_level(tmp_path: Path) -> None:
    lines = [
        {"query": "<image>What is wrong?", "response": "The chair floats.", "images": ["a.png"]},
        {"query": "<image>\nDescribe it.", "response": "A room.", "image": "b.png"},
    ]
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = text_samples([tmp_path / "words.jsonl"], {"words": 0.5})
    assert (first.query, first.answer, first.level, first.weight) == ("What is wrong?", "The chair floats.", None, 0.5)
    assert (second.query, second.image) == ("Describe it.", tmp_path / "b.png")


def test_a_description_of_two_images_is_refused(tmp_path: Path) -> None:
    line = {"query": "<image>Compare.", "response": "The first.", "images": ["a.png", "b.png"]}
    (tmp_path / "words.jsonl").write_text(json.dumps(line))
    with pytest.raises(CallerError, match=r"words.jsonl, line 1: images is .* a list of one path"):
        text_samples([tmp_path / "words.jsonl"], {})


def test_an_opinion_on_a_range_of_its_own_lies_between_the_two_nearest_answers() -> None:
    given = [opinion("shown", 4.0), opinion("noise", 4.0), opinion("layout", 4.0)]
    shown, noise, layout = level_samples(given, TRAINABLE, "linear", {})
    assert [sample.answer for sample in (shown, noise, layout)] == ["Yes", "It is B.", "It is good."]
    assert [sample.level.target for sample in (shown, noise, layout) if sample.level] == [
        pytest.approx((0.25, 0.75)),
        pytest.approx((0, 0.5625, 0.4375)),
        pytest.approx((0, 0, 0, 1, 0)),
    ]
    assert noise.level is not None
    assert noise.level.answers == ("A", "B", "C")
    assert noise.level.worths == pytest.approx((1, 1 + 20 / 9, 5))


def test_slots_statements_and_equal_worths_become_samples() -> None:
    texts = (("prompt", "a cat"),)
    given = [replace(opinion("faithful", 5.0), texts=texts), opinion("cat", 2.0), opinion("layout", 4.0)]
    faithful, cat, layout = level_samples(given, ASKING, "linear", {})
    assert (faithful.query, faithful.texts) == (ASKING.dimensions[0].query, texts), "filled where it is tokenised"
    assert (faithful.answer, cat.answer, layout.answer) == ("Yes", "No", "It is good.")
    assert "There is a cat. Is it true?" in cat.query
    assert cat.level is not None
    assert cat.level.target == pytest.approx((0.75, 0.25)), "the share of yes is its probability"
    content = TRAINABLE.model_dump(exclude_unset=True)
    shown, *others = content["dimensions"]
    equal = {**shown, "answers": {"No": 0, "Never": 0, "Yes": 1}}
    [sample] = level_samples(
        [opinion("shown", 4.0)], Rubric.model_validate(content | {"dimensions": [equal, *others]}), "linear", {}
    )
    assert sample.level is not None
    assert sample.level.target == pytest.approx((0.125, 0.125, 0.75))


def test_a_group_is_trained_by_its_statements() -> None:
    with pytest.raises(CallerError, match="opinions on things, a group of statements of rubric asking"):
        level_samples([opinion("things")], ASKING, "linear", {})
