"""The golden checkpoint, loaded once per session."""

from __future__ import annotations

import pytest

from tests.assessor.ovis2_5.golden import Golden


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden.load()
