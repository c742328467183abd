"""A rubric and args.json -> the system prompt, and that it is part of what determines a score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from iqa_core.assessor.checkpoint.system_prompt import SystemPrompt, system_prompt
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, load
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.records import Assessment, ImageLimits
from iqa_core.rubrics import Rubric, load_rubric
from tests.assessor.tiny import make_images

PLAIN = load_rubric("q-align")
STRICT = Rubric.model_validate(PLAIN.model_dump() | {"system": "You are strict."})


@pytest.fixture
def folder(qwen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "checkpoint"))


def write_args(folder: Path, **values: object) -> None:
    (folder / "args.json").write_text(json.dumps({"model_type": "x", **values}))


def described(folder: Path) -> AssessorSpec:
    return describe(AssessorConfig(checkpoint=str(folder), threads=1), "q-align", ImageLimits())


def test_the_rubrics_own_wins_then_args_json_then_none(tmp_path: Path) -> None:
    assert system_prompt(PLAIN, tmp_path) == SystemPrompt(None, "none")
    write_args(tmp_path, system="You are kind.")
    assert system_prompt(PLAIN, tmp_path) == SystemPrompt("You are kind.", "args.json")
    assert system_prompt(STRICT, tmp_path) == SystemPrompt("You are strict.", "rubric")
    assert system_prompt(STRICT, None) == SystemPrompt("You are strict.", "rubric")


@pytest.mark.parametrize("values", [{}, {"system": None}, {"system": ""}])
def test_args_json_without_a_text_gives_none(values: dict[str, object], tmp_path: Path) -> None:
    write_args(tmp_path, **values)
    assert system_prompt(PLAIN, tmp_path) == SystemPrompt(None, "none")


def test_a_system_prompt_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write_args(tmp_path, system=["a"])
    with pytest.raises(CallerError, match=r"args.json: system is \['a'\]; a text is wanted"):
        system_prompt(PLAIN, tmp_path)


def test_it_is_said_in_a_line() -> None:
    assert SystemPrompt(None, "none").describe() == "none given; the chat template decides"
    assert SystemPrompt("Be kind.\n", "args.json").describe() == r"'Be kind.\n', from args.json"
    assert SystemPrompt("Be kind.", "rubric").describe() == "'Be kind.', from the rubric"


def test_a_digest_that_was_computed_before_is_not_kept() -> None:
    before = PLAIN.digest
    assert SystemPrompt("You are strict.", "args.json").within(PLAIN).digest == STRICT.digest != before
    assert SystemPrompt(None, "none").within(PLAIN) is PLAIN


@pytest.mark.slow
def test_args_json_changes_the_fingerprint_exactly_as_the_same_words_in_a_rubric_do(folder: Path) -> None:
    without = described(folder)
    write_args(folder, system="You are strict.")
    given = described(folder)
    assert given.system == SystemPrompt("You are strict.", "args.json")
    different = {name for name, value in given.fingerprint_parts.items() if value != without.fingerprint_parts[name]}
    assert different == {"rubric"}
    assert given.fingerprint_parts["rubric"] == STRICT.digest


@pytest.mark.slow
def test_the_model_is_given_it(folder: Path) -> None:
    config = AssessorConfig(checkpoint=str(folder), threads=1)
    spec = described(folder)
    pixels = [spec.preparer.prepare(image) for image in make_images((60, 80))]
    [before] = load(spec, config).assess(pixels)
    write_args(folder, system="You are strict.")
    [after] = load(described(folder), config).assess(pixels)
    assert isinstance(before, Assessment)
    assert isinstance(after, Assessment)
    assert np.abs(before.scores_K - after.scores_K).max() > 1e-3
