"""Prompts to the token, images to the patch, and the processor's files.

Tests iqa_core/assessor/ovis2_5/registration.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.ovis2_5.processing import Ovis2_5ImageProcessor
from iqa_core.assessor.ovis2_5.registration import register_ovis2_5
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.rubrics import load_rubric
from tests.assessor.ovis2_5.golden import FOLDER, Golden, rubric_toml

pytestmark = pytest.mark.slow

QWEN3_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Like the released one where it matters: text only, and a thinking block before the answer."""


@pytest.fixture
def rubric_file(tmp_path: Path) -> str:
    path = tmp_path / "golden.toml"
    path.write_text(rubric_toml())
    return str(path)


@pytest.mark.parametrize("template", [None, QWEN3_TEMPLATE])
def test_prompts_are_the_golden_ones_to_the_token(
    tmp_path: Path, golden: Golden, rubric_file: str, template: str | None
) -> None:
    """Whatever template the tokenizer brings."""
    folder = Path(shutil.copytree(FOLDER, tmp_path / "checkpoint"))
    if template:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    processor, rubric = load_processor(folder), load_rubric(rubric_file)
    for question, expected in zip(rubric.questions, golden.prompts, strict=True):
        prompt = build_prompt(processor, question, rubric.system)
        assert prompt == expected
        before, after = (processor.tokenizer.encode(piece) for piece in expected.split("<image>"))
        assert processor.token_ids([prompt], [3]) == [[*before, -301, -300, -300, -300, -302, *after]]


def test_without_a_system_prompt_the_markup_begins_with_the_user(golden: Golden, rubric_file: str) -> None:
    rubric = load_rubric(rubric_file)
    prompt = build_prompt(golden.processor, rubric.questions[0], None)
    assert prompt == golden.prompts[0].partition("<|im_end|>\n")[2]


def test_padding_is_on_the_right_and_masked(golden: Golden) -> None:
    inputs = golden.inputs(3, 0)
    short = int(inputs["attention_mask"][0].sum())
    assert short < inputs["input_ids"].shape[1]
    assert (inputs["attention_mask"][0, short:] == 0).all()
    assert (inputs["input_ids"][0, short:] == golden.processor.tokenizer.pad_token_id).all()
    assert inputs["pixel_values"].shape == (24 * 36 + 28 * 40, 768)


def test_text_alone_is_taken_too(golden: Golden) -> None:
    inputs = golden.processor(text="How is it?", return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert torch.equal(inputs["input_ids"][0], torch.tensor(golden.processor.tokenizer.encode("How is it?")))


@pytest.mark.parametrize(("text", "images"), [("no place", 1), ("<image>", 0), ("<image> and <image>", 1)])
def test_places_and_images_must_agree(golden: Golden, text: str, images: int) -> None:
    pictures = [golden.pictures[3]] * images
    with pytest.raises(ValueError, match="places for images"):
        golden.processor(text=text, images=pictures or None)


def test_a_misspelt_setting_is_no_setting(golden: Golden) -> None:
    with pytest.raises(TypeError, match="do_resise"):
        golden.processor(text="<image>", images=golden.pictures[3], do_resise=False)


def test_prepared_images_are_taken_as_they_are(golden: Golden) -> None:
    processor = golden.processor.image_processor
    prepared = processor.resized(golden.pictures[3])
    whole, cut = processor(golden.pictures[3]), processor(np.asarray(prepared), do_resize=False)
    np.testing.assert_array_equal(whole["pixel_values"], cut["pixel_values"])
    with pytest.raises(ValueError, match="multiples of 32"):
        processor(golden.pictures[3], do_resize=False)


def test_a_grey_picture_becomes_a_coloured_one(golden: Golden) -> None:
    grey = golden.pictures[3].convert("L")
    processor = golden.processor.image_processor
    np.testing.assert_array_equal(processor(grey)["pixel_values"], processor(grey.convert("RGB"))["pixel_values"])


@pytest.mark.parametrize("step", ["do_resize", "do_rescale", "do_normalize"])
def test_a_step_that_is_switched_off_is_refused(step: str) -> None:
    settings: dict[str, Any] = {step: False}
    with pytest.raises(ValueError, match=step):
        Ovis2_5ImageProcessor(**settings)


def test_bounds_may_stand_in_the_file(tmp_path: Path) -> None:
    processor = Ovis2_5ImageProcessor(min_pixels=64 * 64, max_pixels=128 * 128)
    processor.save_pretrained(tmp_path)
    again = Ovis2_5ImageProcessor.from_pretrained(tmp_path)
    assert again.resized(Image.new("RGB", (1000, 1000))).size == (128, 128)


def test_saving_writes_the_released_files_back(tmp_path: Path, golden: Golden) -> None:
    golden.processor.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (tmp_path / "tokenizer.json").read_bytes() == (FOLDER / "tokenizer.json").read_bytes()
    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        released = json.loads((FOLDER / name).read_text())
        saved = json.loads((tmp_path / name).read_text())
        assert {key: saved.get(key) for key in released} == released


def test_transformers_finds_the_processor_by_itself() -> None:
    register_ovis2_5()
    register_ovis2_5()
    processor = AutoProcessor.from_pretrained(FOLDER)
    assert type(processor).__name__ == "Ovis2_5Processor"
    assert isinstance(processor.image_processor, Ovis2_5ImageProcessor)
