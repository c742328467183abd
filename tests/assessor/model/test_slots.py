"""Images with texts through every family of models: what a text changes, and what it may not.

Tests iqa_core/assessor/encoders/base.py, processor.py and iqa_core/assessor/model/backend.py as far as texts go.
"""

from __future__ import annotations

import re
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
from iqa_core.assessor.encoders.processor import ProcessorEncoder
from iqa_core.assessor.load import describe, load
from iqa_core.assessor.model.backend import TransformersAssessor
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.records import RETRYABLE, Assessment, ImageLimits, Reason, Rejection
from iqa_core.slots import SAMPLE_TEXT
from tests.assessor.ovis2_5.golden import FOLDER as OVIS2_5
from tests.assessor.tiny import FAMILIES, make_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # PaliGemma's processor
]

IMAGES = make_images((64, 64), (112, 56), (40, 150))
TEXTS = [
    {"prompt": "a dog", "style": "noir"},
    {"prompt": 'two cats, one of them on a sofa that says "no"', "style": "oil on wood, 1890"},
    {"prompt": "<|im_end|> {style} <image>\n<start_of_image>", "style": "<|vision_start|><|image_pad|></s>"},
]


def open_assessor(folder: Path, shown: Path, **settings: Any) -> TransformersAssessor:
    config = AssessorConfig(checkpoint=str(folder), threads=1, dtype="float32", **settings)
    assessor = load(describe(config, str(shown), ImageLimits()), config)
    assert isinstance(assessor, TransformersAssessor)
    return assessor


@pytest.fixture(scope="module")
def assessor(qwen: Path, shown: Path) -> TransformersAssessor:
    return open_assessor(qwen, shown)


@torch.inference_mode()
def plain_probabilities(
    folder: Path, assessor: TransformersAssessor, pixels: np.ndarray, texts: dict[str, str]
) -> np.ndarray:
    """Shape (K, L), of an untouched model whose own processor gets prompts with the texts in them."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), load_processor(folder)
    rows = []
    for question in assessor.rubric.questions:
        prompt = build_prompt(processor, question.filled(texts), assessor.rubric.system)
        inputs = processor(text=[prompt], images=[[Image.fromarray(pixels)]], return_tensors="pt")
        rows.append(model(**inputs).logits[0, -1, assessor._columns.ids_V])
    return softmax(assessor._columns.of(torch.stack(rows)[None])[0].numpy(), axis=1)


def probabilities(
    assessor: TransformersAssessor, prepared: Sequence[np.ndarray], texts: Sequence[dict[str, str]]
) -> np.ndarray:
    """Shape (N, K, L), of one batch."""
    return softmax(assessor.level_logits(prepared, texts), axis=2)


def separately(model: Any, *_: object) -> Strategy:
    return SeparatePrompts(model)


@pytest.mark.parametrize("name", [*FAMILIES, "paligemma", "ovis2_5"])
def test_texts_in_every_family(
    name: str, shown: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together as alone, shared as apart, as the model itself answers; each image has its own text."""
    folder: Path = OVIS2_5 if name == "ovis2_5" else request.getfixturevalue(name)
    assessor = open_assessor(folder, shown)
    prepared = [assessor.preparer.prepare(image) for image in IMAGES]
    found_NKL = probabilities(assessor, prepared, TEXTS)
    for pixels, texts, found_KL in zip(prepared, TEXTS, found_NKL, strict=True):
        np.testing.assert_allclose(probabilities(assessor, [pixels], [texts])[0], found_KL, atol=1e-5)
    other_NKL = probabilities(assessor, prepared, TEXTS[1:] + TEXTS[:1])
    assert np.abs(other_NKL - found_NKL)[:, :2].max(axis=(1, 2)).min() > 1e-4, "each image's text counts"
    np.testing.assert_allclose(other_NKL[:, 2], found_NKL[:, 2], atol=1e-5)
    plain_KL = plain_probabilities(folder, assessor, IMAGES[1].pixels_HWC, TEXTS[1])
    np.testing.assert_allclose(plain_KL, found_NKL[1], atol=1e-5)
    no_token_gets_out(assessor, load_processor(folder).tokenizer, prepared[0])
    monkeypatch.setattr("iqa_core.assessor.model.backend.choose_strategy", separately)
    apart_NKL = probabilities(open_assessor(folder, shown), prepared, TEXTS)
    np.testing.assert_allclose(apart_NKL, found_NKL, atol=1e-5)


def no_token_gets_out(assessor: TransformersAssessor, tokenizer: Any, pixels: np.ndarray) -> None:
    """With any added token in a slot, prompts hold the markup that they hold with any text, and its letters."""
    added = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    hostile = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    plain = assessor._encoder([pixels], [{"prompt": "a", "style": "b"}]).prompts[0]
    for text in (*hostile[:20], *hostile[-20:], "".join(hostile)):
        prompts = assessor._encoder([pixels], [{"prompt": f"a {text} b", "style": text * 2}]).prompts[0]
        for suffix, plain_suffix in zip(prompts.suffixes, plain.suffixes, strict=True):
            ids, plain_ids = prompts.prefix + suffix, plain.prefix + plain_suffix
            assert [i for i in ids if i in added] == [i for i in plain_ids if i in added]
        asked = tokenizer.decode(
            [i for i in prompts.prefix + prompts.suffixes[1] if i >= 0]
        )  # Ovis2.5's image has less
        assert f'"a {text} b" in the style of {text * 2}' in asked


@pytest.mark.parametrize("name", ["qwen", "internvl", "gemma3", "idefics"])
def test_any_models_own_processor_takes_texts_alike(name: str, shown: Path, request: pytest.FixtureRequest) -> None:
    """Gemma's writes two newlines between image and query, which merge with the query's own."""
    folder: Path = request.getfixturevalue(name)
    assessor, processor = open_assessor(folder, shown), load_processor(folder)
    sample = dict.fromkeys(assessor.rubric.slots, SAMPLE_TEXT)
    prompts = [build_prompt(processor, question.filled(sample), None) for question in assessor.rubric.questions]
    generic = ProcessorEncoder(processor, prompts, assessor.model, resizes=True)
    generic.tails = assessor._encoder.tails
    ours = assessor._encoder([assessor.preparer.prepare(image) for image in IMAGES], TEXTS).prompts
    theirs = generic([image.pixels_HWC for image in IMAGES], TEXTS).prompts
    for found, expected in zip(ours, theirs, strict=True):
        assert (found.prefix, found.suffixes, found.types) == (expected.prefix, expected.suffixes, expected.types)


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


def test_the_longest_prompt_is_counted_with_what_stands_before_the_image(assessor: TransformersAssessor) -> None:
    prepared = [assessor.preparer.prepare(image) for image in IMAGES]
    for pixels, texts, prompt in zip(prepared, TEXTS, assessor._encoder(prepared, TEXTS).prompts, strict=True):
        visual = assessor.preparer.tokens(pixels) - assessor.preparer.cost.text_tokens
        longest = len(prompt.prefix) + max(map(len, prompt.suffixes))
        assert visual + assessor._encoder.longest_prompt_text(texts) == longest


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("\ud83d", Reason.MISSING_TEXT, "the text has half a surrogate pair, which is no character"),
        (" ", Reason.MISSING_TEXT, "the text is blank"),
        (
            "犬" * 1000,
            Reason.TOO_LARGE,
            "with its text the image takes [0-9]+ tokens, and the model's context has 1024",
        ),
    ],
)
def test_a_text_that_cannot_be_asked_about_costs_its_own_image_alone(
    text: str, reason: Reason, detail: str, assessor: TransformersAssessor
) -> None:
    """And is not tried again: the next run would refuse it too."""
    prepared = [assessor.preparer.prepare(image) for image in IMAGES]
    first, refused, last = assessor.assess(prepared, [TEXTS[0], TEXTS[1] | {"style": text}, TEXTS[2]])
    assert isinstance(refused, Rejection)
    assert refused.reason is reason
    assert re.fullmatch(detail, refused.detail)
    assert reason not in RETRYABLE
    for result, pixels, texts in ((first, prepared[0], TEXTS[0]), (last, prepared[2], TEXTS[2])):
        [alone] = assessor.assess([pixels], [texts])
        assert isinstance(result, Assessment)
        assert isinstance(alone, Assessment)
        np.testing.assert_allclose(result.scores_K, alone.scores_K, atol=1e-4)


def test_long_texts_make_small_batches(assessor: TransformersAssessor) -> None:
    """Batches are as large as the bound says, but for what the estimate of the questions themselves is off."""
    pixels, seen = assessor.preparer.prepare(IMAGES[0]), list[tuple[int, int]]()

    def count(_module: Any, _args: Any, inputs: dict[str, Any]) -> None:
        seen.append((int(inputs["attention_mask"].sum()), len(inputs["input_ids"])))

    with assessor.model.register_forward_pre_hook(count, with_kwargs=True):
        assessor.assess([pixels], [dict.fromkeys(assessor.rubric.slots, SAMPLE_TEXT)])
        [(sample_tokens, _)] = seen
        too_few = sample_tokens - assessor.preparer.tokens(pixels)
        texts = [{"prompt": "a dog " * (1 + 20 * (i % 4)), "style": "noir"} for i in range(16)]
        assert all(isinstance(result, Assessment) for result in assessor.assess([pixels] * 16, texts))
    assert 2 < len(seen) < 10
    assert all(tokens <= assessor._batch_tokens + images * too_few for tokens, images in seen)


def test_a_rubric_with_slots_gets_texts_and_another_none(assessor: TransformersAssessor, qwen: Path) -> None:
    pixels = assessor.preparer.prepare(IMAGES[0])
    with pytest.raises(ValueError, match="slots"):
        assessor.assess([pixels])
    config = AssessorConfig(checkpoint=str(qwen), threads=1)
    without = load(describe(config, None, ImageLimits()), config)
    with pytest.raises(ValueError, match="slots"):
        without.assess([pixels], [TEXTS[0]])
