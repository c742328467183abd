"""Files of written rubrics -> a question, an answer's form and columns of scores; every rule that a file can break."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from iqa_core.errors import CallerError
from iqa_core.fusion import FusionWeights
from iqa_core.questions import LEVELS
from iqa_core.records import ScoreRange
from iqa_core.rubrics import WrittenRubric, load_any_rubric, load_rubric, rubric_names, written_names
from iqa_core.rubrics.load import parse_rubric, shipped_name
from iqa_core.rubrics.written import Decoding
from tests.written.forms import ATTRIBUTES, JSON, PERCEPTION, TAGGED_JSON

CONTENT: dict[str, Any] = {
    "kind": "written",
    "id": "r",
    "domain": "Cats.",
    "prompt_version": 1,
    "description": "About cats.",
    "question": "How is the cat?",
    "output": {"grammar": "attributes"},
    "attributes": [{"name": "fur", "label": "Fur"}, {"name": "quality", "label": "Overall"}],
}
ONE = {"attributes": [{"name": "quality"}], "output": {"grammar": "tagged-number"}}
RATED: dict[str, Any] = {"attributes": [{"name": "quality", "label": "rating"}]}


def changed(**values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CONTENT), **values}


def rubric_of(**values: Any) -> WrittenRubric:
    return WrittenRubric.model_validate(changed(**values))


def written(name: str) -> WrittenRubric:
    rubric = load_any_rubric(name)
    assert isinstance(rubric, WrittenRubric)
    return rubric


@pytest.mark.parametrize("name", written_names())
def test_every_shipped_rubric_is_valid_and_named_after_its_file(name: str) -> None:
    rubric = written(name)
    assert rubric.id == name
    assert shipped_name(rubric.digest) == name
    assert "quality" in rubric.names
    assert rubric.decoding.temperature == 0
    assert all((one.label or "") in rubric.question for one in rubric.attributes)


def test_shipped_rubrics_have_the_forms_and_columns_that_they_are_known_by() -> None:
    assert set(written_names()) == {
        "attributes-v1",
        "perception-v1",
        "interior-written-v1",
        "interior-perception-v1",
    }
    assert written("attributes-v1").form == ATTRIBUTES
    assert written("attributes-v1").names == ("sharpness", "color", "noise", "composition", "quality")
    assert written("perception-v1").form.grammar == PERCEPTION.grammar
    assert written("perception-v1").names == written("interior-perception-v1").names == ("quality",)
    assert written("interior-written-v1").names == (*load_rubric("interior-v4").names, "quality")


def test_a_written_rubric_is_none_of_closed_sets() -> None:
    assert not set(written_names()) & set(rubric_names())
    with pytest.raises(CallerError, match="attributes-v1 is a written rubric"):
        load_rubric("attributes-v1")
    with pytest.raises(CallerError, match=r"interior-v4.*attributes-v1"):
        load_any_rubric("no-such")


def test_the_overall_number_is_the_reward_unless_weights_say_otherwise() -> None:
    rubric = rubric_of()
    assert [(column.name, column.weight, column.scale) for column in rubric.columns] == [
        ("fur", 0.0, LEVELS),
        ("quality", 1.0, LEVELS),
    ]
    assert FusionWeights.of_columns(rubric.columns).weights == (0.0, 1.0)
    weighed = rubric_of(attributes=[{"name": "fur", "label": "Fur", "weight": 2}, {"name": "tail", "label": "Tail"}])
    assert FusionWeights.of_columns(weighed.columns).weights == (1.0, 0.0)


def test_forms_are_those_of_released_models() -> None:
    assert rubric_of(**RATED, output={"grammar": "tagged-json", "thought": "thinking"}).form == TAGGED_JSON
    quoted = {"grammar": "json", "reasoning": ["evidence", "solution"], "quoted": True}
    assert rubric_of(**RATED, output=quoted).form == JSON
    assert rubric_of(**ONE).form.thought == "think"
    assert rubric_of(**{**ONE, "output": {"grammar": "tagged-number", "thought": "none"}}).form.thought is None


def test_slots_are_filled_as_in_other_rubrics() -> None:
    rubric = rubric_of(slots=["prompt"], question='Is this {prompt}? Say {"x": 1}.')
    assert rubric.asked({"prompt": "a {cat}"}) == 'Is this a {cat}? Say {"x": 1}.'
    assert rubric_of(slots=[], question="Is this {prompt}?").asked({}) == "Is this {prompt}?"


def test_the_digest_is_of_what_the_model_sees_and_how_its_answer_is_read() -> None:
    digest = rubric_of().digest
    same: dict[str, Any] = {
        "id": "x",
        "domain": "Dogs.",
        "description": "d",
        "prompt_version": 2,
        "decoding": {"max_new_tokens": 9},
    }
    assert rubric_of(**same).digest == digest
    weighed = [{"name": "fur", "label": "Fur", "weight": 3}, {"name": "quality", "label": "Overall"}]
    assert rubric_of(attributes=weighed).digest == digest, "a weight is no part of a score"
    assert rubric_of(output={"grammar": "attributes", "thought": "think"}).digest == digest
    others: list[dict[str, Any]] = [
        {"system": ""},
        {"question": "Is it?"},
        {"parts": ["text", "image"]},
        {"template": {"add_vision_id": True}},
        {"output": {"grammar": "attributes", "thought": "thinking"}},
        {"output": {"grammar": "attributes", "thought": "none", "strip_prefix": True}},
        {"attributes": [{"name": "fur", "label": "Coat"}, {"name": "quality", "label": "Overall"}]},
        {"attributes": [{"name": "fur", "label": "Fur", "decimals": 1}, {"name": "quality", "label": "Overall"}]},
        {"attributes": [{"name": "fur", "label": "Fur", "worst": 5, "best": 1}, CONTENT["attributes"][1]]},
    ]
    assert len({digest, *(rubric_of(**other).digest for other in others)}) == len(others) + 1


def test_a_rubric_is_a_value() -> None:
    rubric = written("attributes-v1")
    assert pickle.loads(pickle.dumps(rubric)) == rubric
    assert rubric.attributes[0].form.range == ScoreRange(1, 5)
    assert rubric.decoding == Decoding(max_new_tokens=768)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"kind": "spoken"}, "kind is 'spoken'"),
        ({"parts": ["image"]}, "in some order"),
        ({"parts": ["image", "image"]}, "in some order"),
        ({"template": {"tokenize": False}}, "no argument of a chat template"),
        ({"template": {"two words": 1}}, "no argument of a chat template"),
        ({"question": "Is this {prompt}?"}, "which is no slot"),
        ({"slots": ["prompt"]}, r"no query has \{prompt\}"),
        ({"levels": ["bad"]}, "Extra inputs"),
        ({"attributes": []}, "at least 1"),
        ({"attributes": [{"name": "fur", "label": "Fur"}]}, "nothing counts in the reward"),
        ({"attributes": [{"name": "quality", "label": "A"}, {"name": "quality", "label": "B"}]}, "names must differ"),
        ({"attributes": [{"name": "quality", "label": "A"}, {"name": "fur", "label": "A"}]}, "none of them twice"),
        ({"attributes": [{"name": "quality"}]}, "needs a label"),
        ({"attributes": [{"name": "quality", "label": "a: b"}]}, "must be printable"),
        ({"attributes": [{"name": "quality", "label": " a"}]}, "must be printable"),
        ({"attributes": [{"name": "written_quality", "label": "A", "weight": 1}]}, "written answers begin with"),
        ({"attributes": [{"name": "reward", "label": "A"}]}, "clashes with a column"),
        ({"attributes": [{"name": "quality", "label": "A", "worst": 5}]}, "are both 5"),
        ({"attributes": [{"name": "quality", "label": "A", "worst": -1}]}, "greater than or equal to 0"),
        ({**ONE, "attributes": [{"name": "quality", "label": "A"}]}, "one number without a label"),
        ({"output": {"grammar": "perception"}}, "one number without a label"),
        ({"output": {"grammar": "attributes", "reasoning": ["why"]}}, "reasoning would be ignored"),
        ({"output": {"grammar": "attributes", "quoted": True}}, "quoted would be ignored"),
        ({"output": {"grammar": "attributes", "last_answer": True}}, "last_answer would be ignored"),
        ({"output": {"grammar": "attributes", "strip_prefix": True}}, "strip_prefix takes off"),
        ({"output": {"grammar": "json", "thought": "think"}}, "thought would be ignored"),
        ({"output": {"grammar": "json", "reasoning": ["a", "a"]}}, "keys must differ"),
        ({"output": {"grammar": "prose"}}, "attributes"),
        ({"decoding": {"samples": 3}}, "temperature 0"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(CallerError, match=fault):
        parse_rubric(_toml(changed(**values)).encode(), "r.toml")


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(_toml(changed(system="")))
    rubric = written(str(tmp_path / "r.toml"))
    assert rubric == rubric_of(system="")
    assert rubric.system == ""


def _toml(content: dict[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in content.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{name}" = {_value(one)}' for name, one in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
