"""Images with texts through every family of models: what a text changes, and what it may not.

Tests iqa_core/assessor/encoders/base.py and iqa_core/assessor/model/backend.py as far as texts go.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, load
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.prefix_sharing import SeparatePrompts, Strategy
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.records import Assessment, ImageLimits, Reason, Rejection
from tests.assessor.ovis2_5.golden import FOLDER as OVIS2_5
from tests.assessor.tiny import FAMILIES, make_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # PaliGemma's processor
]

TOML = """
id = "shown"
domain = "Tests."
prompt_version = 1
description = "What a picture was to show."
slots = ["prompt", "style"]
answer_prefix = "The answer is"
levels = ["bad", "poor", "fair", "good", "excellent"]
dimensions = [
  { name = "faithful", query = 'Does this picture show "{prompt}"?' },
  { name = "style", query = 'Does this picture show "{prompt}" in the style of {style}' },
  { name = "good", query = "How good is this picture?" },
]
"""
IMAGES = make_images((64, 64), (112, 56), (40, 150))
TEXTS = [
    {"prompt": "a dog", "style": "noir"},
    {"prompt": 'two cats, one of them on a sofa that says "no"', "style": "oil on wood, 1890"},
    {"prompt": "<|im_end|> {style} <image>\n<start_of_image>", "style": "<|vision_start|><|image_pad|></s>"},
]


def open_assessor(folder: Path, toml: Path, **settings: Any) -> TransformersAssessor:
    config = AssessorConfig(checkpoint=str(folder), threads=1, dtype="float32", **settings)
    assessor = load(describe(config, str(toml), ImageLimits()), config)
    assert isinstance(assessor, TransformersAssessor)
    return assessor


@pytest.fixture(scope="module")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slots") / "shown.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(scope="module")
def assessor(qwen: Path, toml: Path) -> TransformersAssessor:
    return open_assessor(qwen, toml)


@torch.inference_mode()
def plain_logits(folder: Path, assessor: TransformersAssessor, pixels: np.ndarray, texts: dict[str, str]) -> np.ndarray:
    """Logits, shape (K, L), of an untouched model whose own processor gets prompts with the texts in them."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), load_processor(folder)
    rows = []
    for question in assessor.rubric.questions:
        prompt = build_prompt(processor, question.filled(texts), assessor.rubric.system)
        inputs = processor(text=[prompt], images=[[Image.fromarray(pixels)]], return_tensors="pt")
        rows.append(model(**inputs).logits[0, -1, assessor._columns.ids_V].numpy())
    return np.stack(rows)


def separately(model: Any, *_: object) -> Strategy:
    return SeparatePrompts(model)


@pytest.mark.parametrize("name", [*FAMILIES, "paligemma", "ovis2_5"])
def test_texts_in_every_family(
    name: str, toml: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together as alone, shared as apart, as the model itself answers, and another answer for another text."""
    folder: Path = OVIS2_5 if name == "ovis2_5" else request.getfixturevalue(name)
    assessor = open_assessor(folder, toml)
    prepared = [assessor.preparer.prepare(image) for image in IMAGES]
    found_NKL = probabilities(assessor, prepared, TEXTS)
    for pixels, texts, found_KL in zip(prepared, TEXTS, found_NKL, strict=True):
        np.testing.assert_allclose(probabilities(assessor, [pixels], [texts])[0], found_KL, atol=1e-5)
    other_NKL = probabilities(assessor, prepared, TEXTS[1:] + TEXTS[:1])
    assert np.abs(other_NKL - found_NKL)[:, :2].max(axis=(1, 2)).min() > 1e-4, "each image's text counts"
    np.testing.assert_allclose(other_NKL[:, 2], found_NKL[:, 2], atol=1e-5)
    for image, texts, found_KL in zip(IMAGES[:2], TEXTS, found_NKL, strict=False):
        plain_KV = plain_logits(folder, assessor, image.pixels_HWC, texts)
        plain_KL = assessor._columns.of(torch.from_numpy(plain_KV)[None])[0].numpy()
        np.testing.assert_allclose(softmax(plain_KL, axis=1), found_KL, atol=1e-5)
    monkeypatch.setattr("iqa_core.assessor.model.backend.choose_strategy", separately)
    apart_NKL = probabilities(open_assessor(folder, toml), prepared, TEXTS)
    np.testing.assert_allclose(apart_NKL, found_NKL, atol=1e-5)


def probabilities(
    assessor: TransformersAssessor, prepared: Sequence[np.ndarray], texts: Sequence[dict[str, str]]
) -> np.ndarray:
    """Shape (N, K, L), of one batch."""
    return softmax(assessor.level_logits(prepared, texts), axis=2)


@pytest.mark.parametrize("name", [*FAMILIES, "paligemma", "ovis2_5"])
def test_no_token_of_a_family_gets_out_of_a_text(name: str, toml: Path, request: pytest.FixtureRequest) -> None:
    """Every added token in both slots: the prompts hold the markup that they hold with any text, and the letters."""
    folder: Path = OVIS2_5 if name == "ovis2_5" else request.getfixturevalue(name)
    assessor = open_assessor(folder, toml)
    pixels = assessor.preparer.prepare(IMAGES[0])
    tokenizer = load_processor(folder).tokenizer
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    hostile = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    texts = [{"prompt": f"a {text} b", "style": text * 2} for text in (*hostile, "".join(hostile))]
    plain = assessor._encoder([pixels], [{"prompt": "a", "style": "b"}]).prompts[0]
    for own in texts:
        prompts = assessor._encoder([pixels], [own]).prompts[0]
        for suffix, plain_suffix in zip(prompts.suffixes, plain.suffixes, strict=True):
            ids, plain_ids = prompts.prefix + suffix, plain.prefix + plain_suffix
            assert [i for i in ids if i in added] == [i for i in plain_ids if i in added]
        assert own["style"] in tokenizer.decode(prompts.prefix + prompts.suffixes[1])


def test_the_image_is_shared_and_what_all_questions_say_behind_it(assessor: TransformersAssessor) -> None:
    pixels = assessor.preparer.prepare(IMAGES[0])
    short, long = assessor._encoder([pixels] * 2, [TEXTS[0], TEXTS[0] | {"prompt": "a dog " * 50}]).prompts
    assert long.prefix[: len(short.prefix) - 5] == short.prefix[: len(short.prefix) - 5]
    assert short.positions is not None
    assert long.positions is not None
    assert short.positions.shape[1] == len(short.prefix)
    assert short.types["mm_token_type_ids"] == tuple(
        int(token == assessor.model.config.image_token_id) for token in short.prefix
    )


def test_a_text_that_cannot_be_asked_about_costs_its_own_image_alone(assessor: TransformersAssessor) -> None:
    prepared = [assessor.preparer.prepare(image) for image in IMAGES]
    first, refused, last = assessor.assess(prepared, [TEXTS[0], TEXTS[1] | {"style": "\ud83d"}, TEXTS[2]])
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.detail) == (
        Reason.ASSESSOR_FAILED,
        "the text has half a surrogate pair, which is no character",
    )
    for result, pixels, texts in ((first, prepared[0], TEXTS[0]), (last, prepared[2], TEXTS[2])):
        [alone] = assessor.assess([pixels], [texts])
        assert isinstance(result, Assessment)
        assert isinstance(alone, Assessment)
        np.testing.assert_allclose(result.scores_K, alone.scores_K, atol=1e-4)


def test_long_texts_make_small_batches(qwen: Path, toml: Path) -> None:
    assessor = open_assessor(qwen, toml, batch_tokens=2000)
    pixels, seen = assessor.preparer.prepare(IMAGES[0]), list[int]()
    assessor.model.register_forward_pre_hook(lambda _m, _a, inputs: seen.append(inputs["input_ids"].numel()), with_kwargs=True)
    texts = [{"prompt": "a dog " * (1 + 20 * (i % 4)), "style": "noir"} for i in range(16)]
    results = assessor.assess([pixels] * 16, texts)
    assert all(isinstance(result, Assessment) for result in results)
    assert 1 < len(seen) < 16
    assert max(seen) <= 2000


def test_a_rubric_with_slots_gets_texts_and_another_none(assessor: TransformersAssessor, qwen: Path) -> None:
    pixels = assessor.preparer.prepare(IMAGES[0])
    with pytest.raises(ValueError, match="slots"):
        assessor.assess([pixels])
    config = AssessorConfig(checkpoint=str(qwen), threads=1)
    without = load(describe(config, None, ImageLimits()), config)
    with pytest.raises(ValueError, match="slots"):
        without.assess([pixels], [TEXTS[0]])
