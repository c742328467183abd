"""What the tests of training share: tiny checkpoints of four architectures, and a few scenes with opinions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from iqa_core.opinions.opinion import Opinion
from tests.assessor.ovis2_5.golden import FOLDER, rubric_toml
from tests.assessor.tiny import save_idefics3, save_qwen2_5_vl, save_qwen3_vl
from tests.training.tasks import scene_opinions


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen3_vl(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_idefics3(tmp_path_factory.mktemp("idefics"))


@pytest.fixture(scope="session")
def ovis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint of Ovis2.5, bounded to 64 x 64 pixels and with the rubric of its cases."""
    folder = tmp_path_factory.mktemp("ovis")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(FOLDER / name, folder / name)
    settings = json.loads((FOLDER / "preprocessor_config.json").read_text())
    bounds = {"min_pixels": 32 * 32, "max_pixels": 64 * 64}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | bounds))
    (folder / "golden.toml").write_text(rubric_toml())
    (folder / "assessor.toml").write_text('rubric = "golden.toml"\nprompt_version = 1\ndtype = "float32"\n')
    return folder


@pytest.fixture(scope="session")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> list[Opinion]:
    """Of 16 scenes in four dimensions, image by image."""
    return scene_opinions(tmp_path_factory.mktemp("scenes"), 16)
