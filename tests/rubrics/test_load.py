"""Rubric files -> questions; every rule that a file can break.

Tests iqa_core/rubrics/base.py and iqa_core/rubrics/rubric.py.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iqa_core.errors import CallerError
from iqa_core.rubrics import Rubric, load_rubric, rubric_names

CONTENT: dict[str, Any] = {
    "id": "r",
    "domain": "Cats.",
    "prompt_version": 1,
    "description": "About cats.",
    "answer_prefix": "The {dimension} is",
    "levels": ["bad", "poor", "fair", "good", "excellent"],
    "dimensions": [{"name": "fur", "query": "How is the fur?"}, {"name": "tail", "query": "How is the tail?"}],
}


def changed(**values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CONTENT), **values}


@pytest.mark.parametrize("name", rubric_names())
def test_every_shipped_rubric_is_valid_and_named_after_its_file(name: str) -> None:
    rubric = load_rubric(name)
    assert rubric.id == name
    assert rubric.levels == ("bad", "poor", "fair", "good", "excellent")
    assert "\n" not in rubric.domain


def test_interior_rubrics_ask_about_the_dimensions_of_sa_iqa() -> None:
    for version in (1, 2, 3, 4):
        rubric = load_rubric(f"interior-v{version}")
        assert rubric.names == ("layout", "harmony", "lighting", "distortion")
        assert rubric.prompt_version == version
        for dimension in rubric.dimensions:
            assert dimension.query.startswith(f"<{dimension.name}>") == (version > 1)
            assert len(dimension.paraphrases) == (3 if version < 4 else 2)
            expected = f"The spatial aesthetic {dimension.name} quality level of this image is"
            assert rubric.answer_start(dimension) == expected


def test_digests_tell_rubrics_apart_and_ignore_what_the_model_does_not_see() -> None:
    assert len({load_rubric(name).digest for name in rubric_names()}) == len(rubric_names())
    digest = Rubric.model_validate(CONTENT).digest
    assert Rubric.model_validate(changed(id="x", domain="Dogs.", description="d", prompt_version=2)).digest == digest
    dimensions = [{**dimension, "paraphrases": ["In other words?"]} for dimension in CONTENT["dimensions"]]
    assert Rubric.model_validate(changed(dimensions=dimensions)).digest == digest, "no score depends on a paraphrase"
    assert Rubric.model_validate(changed(system="You judge.")).digest != digest
    assert Rubric.model_validate(changed(answer_prefix="{dimension}:")).digest != digest
    assert Rubric.model_validate(changed(dimensions=CONTENT["dimensions"][::-1])).digest != digest


def test_a_rubric_is_a_value() -> None:
    rubric = load_rubric("q-align")
    assert pickle.loads(pickle.dumps(rubric)) == rubric
    with pytest.raises(ValidationError):
        rubric.id = "other"


@pytest.mark.parametrize(
    "name",
    [
        *("key", "source", "sha256", "offset", "length", "row", "width", "height", "format", "frames"),
        *("status", "reason", "detail", "reward", "json", "txt", "a_std", "a_probs", "input_a"),
        *("Layout", "1st", "two words", "", "_x", "é"),
    ],
)
def test_a_name_that_cannot_be_a_column_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Rubric.model_validate(changed(dimensions=[{"name": name, "query": "How?"}]))


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"levels": ["bad", "poor", "fair", "good"]},
        {"levels": ["bad", "poor", "fair", "good", "good"]},
        {"levels": ["bad", "poor", "fair", "good", " best"]},
        {"levels": ["bad", "poor", "fair", "good", ""]},
        {"dimensions": []},
        {"dimensions": [{"name": "fur", "query": "a"}, {"name": "fur", "query": "b"}]},
        {"dimensions": [{"name": "fur", "query": " \n"}]},
        {"dimensions": [{"name": "fur"}]},
        {"dimensions": [{"name": "fur", "query": "a", "wait": 1}]},
        {"dimensions": [{"name": "fur", "query": "a", "paraphrases": [" "]}]},
        {"dimensions": [{"name": "fur", "query": "a", "paraphrases": ["b", "a"]}]},
        {"dimensions": [{"name": "fur", "query": "a", "paraphrases": ["b", "b"]}]},
        {"dimensions": [{"name": "fur", "query": "<fur>a", "paraphrases": ["b"]}]},
        {"answer_prefix": "The {quality} is"},
        {"answer_prefix": "The {} is"},
        {"answer_prefix": "The {dimension!r} is"},
        {"answer_prefix": "The {dimension:>9} is"},
        {"answer_prefix": "The {dimension is"},
        {"answer_prefix": "The {dimension} is "},
        {"prompt_version": 0},
        {"domain": ""},
    ],
)
def test_a_broken_rule_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rubric.model_validate(changed(**change))


def test_a_file_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'id = "mine"\ndomain = "d"\nprompt_version = 1\ndescription = "d"\nanswer_prefix = "It is"\n'
        'levels = ["a", "b", "c", "d", "e"]\n[[dimensions]]\nname = "fun"\nquery = "Is {it} fun?"\n'
    )
    rubric = load_rubric(str(path))
    assert rubric.dimensions[0].query == "Is {it} fun?"
    assert rubric.answer_start(rubric.dimensions[0]) == "It is"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(CallerError, match=r"interior-v1, .*q-align"):
        load_rubric("interior-v9")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id = ", "not TOML"),
        (b"id = " + b"[" * 5000, "not TOML"),
        (b"id = " + b"1" * 5000, "not TOML"),
        (b"\xff", "not TOML"),
        (b"", "id: Field"),
    ],
)
def test_a_bad_file_is_the_callers_mistake(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(CallerError, match=message):
        load_rubric(str(tmp_path / "r.toml"))
    with pytest.raises(CallerError, match="does not exist"):
        load_rubric(str(tmp_path / "none.toml"))
