"""Token ids and pixels made here against those of the checkpoint's own processor.

Tests iqa_core/assessor/encoders/patches.py and iqa_core/assessor/encoders/processor.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.encoders.base import PromptTokens, split_prompts, with_tails
from iqa_core.assessor.encoders.patches import PatchEncoder
from iqa_core.assessor.encoders.processor import ProcessorEncoder
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.assessor.prompts.slot_texts import Tails
from iqa_core.rubrics import load_rubric
from tests.assessor.tiny import RUBRIC

pytestmark = pytest.mark.slow


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(TOKENS, min_size=1, max_size=4))
def test_prompts_are_put_together_again(prompts: list[list[int]]) -> None:
    split = split_prompts(prompts)
    assert [list(split.prefix + suffix) for suffix in split.suffixes] == prompts
    assert all(split.suffixes)
    firsts = {suffix[0] for suffix in split.suffixes}
    assert len(firsts) > 1 or any(len(suffix) == 1 for suffix in split.suffixes)


def test_ends_are_put_in_place_of_ends() -> None:
    """Behind the image, whose rotary positions end at 2, what the new ends share joins the prefix."""
    prompts = PromptTokens((9, 9, 1), ((2, 3), (4,)), {"types": (1, 1, 0)}, torch.tensor([[0, 1, 3], [0, 2, 3]]))
    found = with_tails(prompts, ((1, 2, 3), (1, 4)), ((1, 5, 6), (1, 5, 7, 7)))
    assert (found.prefix, found.suffixes) == ((9, 9, 1, 5), ((6,), (7, 7)))
    assert found.types == {"types": (1, 1, 0, 0)}
    assert found.positions is not None
    assert found.positions.tolist() == [[0, 1, 3, 4], [0, 2, 3, 4]]
    assert with_tails(prompts, ((1, 2, 3), (1, 4)), ((8,), (1, 1))).prefix == (9, 9)


@pytest.mark.parametrize(
    ("old", "types"),
    [
        (((1, 2, 2), (1, 4)), (1, 1, 0)),
        (((2, 3), (1, 4)), (1, 1, 0)),
        (((9, 9, 1, 2, 3), (9, 9, 1, 4)), (1, 1, 0)),
        (((1, 2, 3), (1, 4)), (1, 1, 1)),
    ],
)
def test_prompts_that_end_otherwise_than_expected_are_refused(old: Tails, types: tuple[int, ...]) -> None:
    """In other tokens, behind unequal heads, behind nothing, or with types that are not those of text."""
    prompts = PromptTokens((9, 9, 1), ((2, 3), (4,)), {"types": types})
    with pytest.raises(ValueError, match="does not end"):
        with_tails(prompts, old, old)


@pytest.mark.parametrize("name", ["qwen", "qwen2", "qwen3"])
@pytest.mark.parametrize("size", [(64, 64), (128, 64), (64, 192)])
def test_patches_tokens_and_positions_are_the_processors(
    name: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(name)
    processor, rubric = load_processor(folder), load_rubric(RUBRIC)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    prompts = [build_prompt(processor, question, None) for question in rubric.questions]
    side = processor.image_processor.patch_size * 2
    pixels = np.random.default_rng(1).integers(0, 256, (size[0] // 32 * side, size[1] // 32 * side, 3), dtype=np.uint8)
    batch = PatchEncoder(processor, prompts, model)([pixels])
    [ours] = batch.prompts
    for k, prompt in enumerate(prompts):
        theirs = processor(
            text=[prompt], images=[Image.fromarray(pixels)], images_kwargs={"do_resize": False}, return_tensors="pt"
        )
        assert theirs["input_ids"][0].tolist() == [*ours.prefix, *ours.suffixes[k]]
    torch.testing.assert_close(batch.pixels["pixel_values"], theirs["pixel_values"], atol=1e-5, rtol=0)
    assert batch.pixels["image_grid_thw"].tolist() == theirs["image_grid_thw"].tolist()
    positions, _ = model.model.get_rope_index(
        theirs["input_ids"], theirs["mm_token_type_ids"], image_grid_thw=theirs["image_grid_thw"]
    )
    assert ours.positions is not None
    assert torch.equal(ours.positions, positions[:, 0, : len(ours.prefix)])
    assert ours.next_position == int(positions[0, 0, len(ours.prefix)])


@pytest.mark.parametrize("name", ["internvl", "ovis2", "llava", "gemma3", "idefics"])
def test_a_processors_prompts_are_split_the_same_for_every_image(name: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(name)
    processor, rubric = load_processor(folder), load_rubric(RUBRIC)
    prompts = [build_prompt(processor, question, None) for question in rubric.questions]
    model = AutoModelForImageTextToText.from_pretrained(folder)
    images = [np.zeros(shape, np.uint8) for shape in ((50, 150, 3), (130, 90, 3))]
    for pixels, ours in zip(
        images, ProcessorEncoder(processor, prompts, model, resizes=True)(images).prompts, strict=True
    ):
        for k, prompt in enumerate(prompts):
            theirs = processor(text=[prompt], images=[[Image.fromarray(pixels)]], return_tensors="pt")
            assert theirs["input_ids"][0].tolist() == [*ours.prefix, *ours.suffixes[k]]


def test_a_prompt_that_ends_otherwise_behind_another_image_is_refused(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, rubric = load_processor(qwen), load_rubric(RUBRIC)
    model = AutoModelForImageTextToText.from_pretrained(qwen)
    prompts = [build_prompt(processor, question, None) for question in rubric.questions]
    encoder = ProcessorEncoder(processor, prompts, model, resizes=True)
    made = encoder._processed

    def ends_otherwise(*given: object) -> dict[str, torch.Tensor]:
        inputs = made(*given)  # type: ignore[arg-type]
        inputs["input_ids"][0, -1] += 1
        return inputs

    monkeypatch.setattr(encoder, "_processed", ends_otherwise)
    with pytest.raises(ValueError, match=r"other tokens behind an image of \(64, 96\)"):
        encoder([np.zeros((64, 96, 3), np.uint8)])
