"""The same contract for the fake assessor and for real checkpoints of two architectures.

Tests iqa_core/assessor/protocol.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.protocol import texts_of_images
from iqa_core.rubrics import written_names
from tests.assessor.contract import check_assessor
from tests.assessor.tiny import make_images

IMAGES = make_images((64, 64), (112, 56), (40, 150), (200, 180), (112, 112))
MODELS = [pytest.param(name, marks=pytest.mark.slow) for name in ("qwen", "idefics")]


@pytest.mark.parametrize("checkpoint", ["fake:", *MODELS])
def test_an_assessor_keeps_the_contract(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder = checkpoint if checkpoint == "fake:" else str(request.getfixturevalue(checkpoint))
    check_assessor(load_assessor(folder, threads=1), IMAGES)


@pytest.mark.parametrize("name", written_names())
def test_a_fake_that_writes_keeps_the_contract(name: str) -> None:
    check_assessor(load_assessor("fake:", name), IMAGES)


@pytest.mark.parametrize("checkpoint", ["fake:", MODELS[0]])
def test_it_keeps_the_contract_with_texts(checkpoint: str, shown: Path, request: pytest.FixtureRequest) -> None:
    folder = checkpoint if checkpoint == "fake:" else str(request.getfixturevalue(checkpoint))
    check_assessor(load_assessor(folder, str(shown), threads=1), IMAGES)


@pytest.mark.parametrize(
    ("slots", "texts", "message"),
    [
        (("prompt",), None, "1 slots, and images come without texts"),
        ((), [{}, {}], "0 slots, and images come with texts"),
        (("prompt",), [{"prompt": "a"}], "1 texts for 2 images"),
    ],
)
def test_texts_come_with_slots_one_for_each_image(
    slots: tuple[str, ...], texts: list[dict[str, str]] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        texts_of_images(slots, texts, 2)
