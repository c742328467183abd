"""Settings -> description -> assessor: where the rubric, the dtype and the fingerprint come from."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, fingerprint, load, load_all
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError, RunError
from iqa_core.records import ImageLimits
from iqa_core.rubrics import load_rubric

LIMITS = ImageLimits()


@pytest.fixture
def folder(qwen: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint to be changed."""
    return Path(shutil.copytree(qwen, tmp_path / "checkpoint"))


def describe_folder(folder: Path, rubric: str | None = None, **settings: Any) -> AssessorSpec:
    return describe(AssessorConfig(checkpoint=str(folder), **settings), rubric, LIMITS)


def test_a_description_is_a_value_that_travels(folder: Path) -> None:
    spec = describe_folder(folder)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.rubric.id == "interior-v2"
    assert spec.fingerprint_parts["rubric"] == spec.rubric.digest
    assert set(spec.fingerprint_parts) == set(
        "weights tokenizer rubric prompt_version image_limits max_pixels dtype scoring_version".split()
    )


def test_the_fingerprint_is_sixteen_hex_characters_of_all_parts(folder: Path) -> None:
    parts = describe_folder(folder).fingerprint_parts
    digest = fingerprint(parts)
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert fingerprint(dict(sorted(parts.items()))) == digest
    for name in parts:
        assert fingerprint({**parts, name: "other"}) != digest


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("dtype", lambda folder: describe_folder(folder, dtype="bfloat16")),
        ("max_pixels", lambda folder: describe_folder(folder, max_pixels=5000)),
        ("rubric", lambda folder: describe_folder(folder, "q-align")),
        ("image_limits", lambda folder: describe(AssessorConfig(checkpoint=str(folder)), None, ImageLimits(16))),
    ],
)
def test_what_changes_a_score_changes_its_part(folder: Path, part: str, change: Callable[[Path], AssessorSpec]) -> None:
    assert change(folder).fingerprint_parts[part] != describe_folder(folder).fingerprint_parts[part]


def test_how_it_runs_is_no_part_of_the_fingerprint(folder: Path) -> None:
    other = describe_folder(folder, device="cpu", batch_tokens=7, timeout_s=1, threads=2)
    assert other.fingerprint_parts == describe_folder(folder).fingerprint_parts


def test_without_assessor_toml_the_rubric_must_be_named(folder: Path) -> None:
    (folder / "assessor.toml").unlink()
    with pytest.raises(CallerError, match="--rubric"):
        describe_folder(folder)
    spec = describe_folder(folder, "q-align")
    assert spec.rubric == load_rubric("q-align")
    assert spec.fingerprint_parts["dtype"] == "float32"


def test_a_checkpoint_may_bring_its_own_rubric(folder: Path) -> None:
    (folder / "mine.toml").write_text(
        'id = "mine"\ndomain = "d"\nprompt_version = 7\ndescription = "d"\nanswer_prefix = "It is"\n'
        'levels = ["bad", "poor", "fair", "good", "excellent"]\n[[dimensions]]\nname = "fun"\nquery = "Is it fun?"\n'
    )
    (folder / "assessor.toml").write_text(
        'rubric = "mine.toml"\nprompt_version = 7\ndtype = "bfloat16"\nmax_pixels = 6272'
    )
    parts = describe_folder(folder).fingerprint_parts
    assert (parts["prompt_version"], parts["dtype"], parts["max_pixels"]) == ("7", "bfloat16", "6272")
    assert describe_folder(folder, dtype="float32", max_pixels=5000).fingerprint_parts["max_pixels"] == "5000"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('rubric = "interior-v2"\nprompt_version = 3\ndtype = "float32"', "trained on prompt version 3"),
        ('rubric = "interior-v9"\nprompt_version = 3\ndtype = "float32"', "no rubric 'interior-v9'"),
        ('rubric = "interior-v2"\nprompt_version = 2\ndtype = "float16"', "dtype"),
        ('rubric = "interior-v2"\nprompt_version = 2\ndtype = "float32"\nrubic = "x"', "rubic"),
        ("rubric = ", "not TOML"),
        ("rubric = " + "[" * 5000, "not TOML"),
    ],
)
def test_a_bad_assessor_toml_is_refused(folder: Path, content: str, message: str) -> None:
    (folder / "assessor.toml").write_text(content)
    with pytest.raises(CallerError, match=message):
        describe_folder(folder)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float32"}, "float32"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
    ],
)
def test_dtype_is_what_the_configuration_says(folder: Path, values: dict[str, Any], expected: str) -> None:
    (folder / "assessor.toml").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", **values}))
    assert describe_folder(folder, "q-align").fingerprint_parts["dtype"] == expected


@pytest.mark.parametrize("values", [{}, {"dtype": "float16"}])
def test_a_dtype_that_is_not_ours_must_be_chosen(folder: Path, values: dict[str, Any]) -> None:
    (folder / "assessor.toml").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl", **values}))
    with pytest.raises(CallerError, match=r"--assessor\.dtype"):
        describe_folder(folder, "q-align")
    assert describe_folder(folder, "q-align", dtype="float32").fingerprint_parts["dtype"] == "float32"


def test_a_checkpoint_that_changed_under_way_is_not_loaded(folder: Path) -> None:
    config = AssessorConfig(checkpoint=str(folder), threads=1)
    spec = describe(config, None, LIMITS)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(RunError, match="not the one"):
        load(spec, config)


def test_a_fake_is_described_without_a_checkpoint() -> None:
    slow = describe(AssessorConfig(checkpoint="fake:?sleep_s=3&exit_on=ff0000"), None, LIMITS)
    plain = describe(AssessorConfig(checkpoint="fake:"), None, LIMITS)
    assert slow.fingerprint_parts == plain.fingerprint_parts
    assert pickle.loads(pickle.dumps(slow)) == slow
    assert describe(AssessorConfig(checkpoint="fake:"), "q-align", LIMITS).fingerprint_parts != plain.fingerprint_parts


@pytest.mark.parametrize("checkpoint", ["fake:", "demo"])
def test_a_written_rubric_shares_no_model(checkpoint: str) -> None:
    config = AssessorConfig(checkpoint=checkpoint)
    specs = [describe(config, rubric, LIMITS) for rubric in ("interior-v1", "interior-written-v1")]
    with pytest.raises(CallerError, match=r"interior-written-v1 is a written rubric, .*; serve it by itself"):
        load_all(specs, config)


def test_the_shipped_demo_is_described_and_loaded() -> None:
    config = AssessorConfig(threads=1)
    spec = describe(config, None, LIMITS)
    assert spec.fingerprint_parts["dtype"] == "float32"
    assert load(spec, config).rubric.names == ("layout", "harmony", "lighting", "distortion")
