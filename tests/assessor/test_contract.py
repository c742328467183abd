"""The same contract for the fake assessor and for real checkpoints of two architectures.

Tests iqa_core/assessor/protocol.py.
"""

from __future__ import annotations

import pytest

from iqa_core.assessor.direct import load_assessor
from tests.assessor.contract import check_assessor
from tests.assessor.tiny import make_images

IMAGES = make_images((64, 64), (112, 56), (40, 150), (200, 180), (112, 112))


@pytest.mark.parametrize("checkpoint", ["fake:", "qwen", "idefics"])
def test_an_assessor_keeps_the_contract(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder = checkpoint if checkpoint == "fake:" else str(request.getfixturevalue(checkpoint))
    check_assessor(load_assessor(folder, threads=1), IMAGES)
