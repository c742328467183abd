"""What goes to the model against what the checkpoint's processor would send."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_core.assessor.ovis2_5.encoder import Ovis2_5Encoder
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.rubrics import load_rubric
from tests.assessor.ovis2_5.golden import Golden

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("sizes", [[(64, 64)], [(64, 128), (96, 64), (64, 128)]])
def test_patches_grids_and_tokens_are_the_processors(golden: Golden, sizes: list[tuple[int, int]]) -> None:
    rubric, rng = load_rubric("interior-v2"), np.random.default_rng(3)
    prompts = [build_prompt(golden.processor, question, "Be fair.") for question in rubric.questions]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    batch = Ovis2_5Encoder(golden.processor, prompts, golden.model)(images)
    for k, prompt in enumerate(prompts):
        theirs = golden.processor(
            text=[prompt] * len(images),
            images=[[Image.fromarray(pixels)] for pixels in images],
            text_kwargs={"padding": True},
            images_kwargs={"do_resize": False},
            return_tensors="pt",
        )
        for ours, ids, mask in zip(batch.prompts, theirs["input_ids"], theirs["attention_mask"].bool(), strict=True):
            assert ids[mask].tolist() == [*ours.prefix, *ours.suffixes[k]]
    torch.testing.assert_close(batch.pixels["pixel_values"], theirs["pixel_values"], atol=1e-6, rtol=0)
    assert batch.pixels["grid_thws"].tolist() == theirs["grid_thws"].tolist()
