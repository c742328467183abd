"""Tiny checkpoints, made once per session, and a cache of the session's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.assessor import tiny


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_idefics3(tmp_path_factory.mktemp("idefics"))
