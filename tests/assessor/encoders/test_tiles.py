"""Tiles and prompts against those of the checkpoint's own processor, which gets the whole images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.encoders.base import EncodedBatch
from iqa_core.assessor.encoders.processor import ProcessorEncoder
from iqa_core.assessor.encoders.tiles import TileEncoder
from iqa_core.assessor.model.prefix_sharing import SeparatePrompts
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import TilingPreparer, make_preparer
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.records import ImageLimits
from iqa_core.rubrics import load_rubric
from tests.assessor.tiny import RUBRIC, TILED, make_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # PaliGemma's processor
]

IMAGES = make_images((64, 64), (1, 1), (1, 500), (3000, 8), (256, 256), (100, 300), (40, 150), (300, 290), (1200, 1600))


@pytest.fixture(scope="module", params=TILED)
def both(request: pytest.FixtureRequest) -> tuple[TilingPreparer, Any, EncodedBatch, EncodedBatch]:
    """The preparer, the model, and what the images become: by tiles, and by the checkpoint's own processor."""
    folder: Path = request.getfixturevalue(request.param)
    processor, rubric = load_processor(folder), load_rubric(RUBRIC)
    preparer = make_preparer(folder, rubric, ImageLimits(), None)
    assert isinstance(preparer, TilingPreparer)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    prompts = [build_prompt(processor, question, None) for question in rubric.questions]
    ours = TileEncoder(processor, prompts, model, preparer.tiling)([preparer.prepare(image) for image in IMAGES])
    theirs = ProcessorEncoder(processor, prompts, model, resizes=True)([image.pixels_HWC for image in IMAGES])
    return preparer, model, ours, theirs


def test_pixels_are_the_processors(both: tuple[TilingPreparer, Any, EncodedBatch, EncodedBatch]) -> None:
    _, _, ours, theirs = both
    assert ours.pixels.keys() == theirs.pixels.keys()
    for name, expected in theirs.pixels.items():
        torch.testing.assert_close(ours.pixels[name], expected, atol=1e-5, rtol=0)


def test_prompts_are_the_processors(both: tuple[TilingPreparer, Any, EncodedBatch, EncodedBatch]) -> None:
    _, _, ours, theirs = both
    for found, expected in zip(ours.prompts, theirs.prompts, strict=True):
        assert [found.prefix + end for end in found.suffixes] == [expected.prefix + end for end in expected.suffixes]
        assert found.types == expected.types


def test_visual_tokens_are_known_beforehand(both: tuple[TilingPreparer, Any, EncodedBatch, EncodedBatch]) -> None:
    """Exactly, from the size alone; and so is everything else that the processor writes around them."""
    preparer, model, ours, _ = both
    plans = [preparer.tiling.plan(image.header.height, image.header.width) for image in IMAGES]
    counts = [prompt.prefix.count(model.config.image_token_id) for prompt in ours.prompts]
    assert [plan.visual_tokens for plan in plans] == counts
    text = {len(prompt.prefix) - plan.tokens for prompt, plan in zip(ours.prompts, plans, strict=True)}
    assert len(text) == 1, "what is left is the same for every image"


def test_scores_are_those_of_the_processors_own_inputs(
    both: tuple[TilingPreparer, Any, EncodedBatch, EncodedBatch],
) -> None:
    """Probabilities over the vocabulary, in one batch of images cut into different numbers of tiles."""
    _, model, ours, theirs = both
    found, expected = (SeparatePrompts(model).logits(batch).softmax(-1) for batch in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-5)
