"""Tiny checkpoints: one that says its answer by itself, one that was never tuned; and a cache of the session's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.assessor import tiny
from tests.inspection.speaking import save_speaking


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speaking(tmp_path_factory.mktemp("speaking"))


@pytest.fixture(scope="session")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It says its answer, but the image moves nothing."""
    return save_speaking(tmp_path_factory.mktemp("blind"), image_gain=0)


@pytest.fixture(scope="session")
def untuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("untuned"))
