"""Tiny checkpoints, made once per session, and a cache of the session's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.assessor import tiny
from tests.assessor.ovis2_5.golden import Golden


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_qwen2_vl(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_qwen3_vl(tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_internvl(tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="session")
def ovis2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_ovis2(tmp_path_factory.mktemp("ovis2"))


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_llava_onevision(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_gemma3(tmp_path_factory.mktemp("gemma3"))


@pytest.fixture(scope="session")
def paligemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_paligemma(tmp_path_factory.mktemp("paligemma"))


@pytest.fixture(scope="session")
def idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_idefics3(tmp_path_factory.mktemp("idefics"))


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rubric with two slots."""
    path = tmp_path_factory.mktemp("shown") / "shown.toml"
    path.write_text(tiny.SHOWN)
    return path


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The checkpoint with Ovis2.5's recorded values."""
    return Golden.load()
