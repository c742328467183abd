"""What the tests of training share: tiny checkpoints of three architectures, and a few scenes with opinions."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.opinions.opinion import Opinion
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
def opinions(tmp_path_factory: pytest.TempPathFactory) -> list[Opinion]:
    """Of 16 scenes in four dimensions, image by image."""
    return scene_opinions(tmp_path_factory.mktemp("scenes"), 16)
