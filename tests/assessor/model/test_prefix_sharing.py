"""Strategies that share a prefix, and which model gets which.

Tests iqa_core/assessor/fast/packed_decoder.py and iqa_core/assessor/model/level_head.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.model.backend import make_encoder
from iqa_core.assessor.model.level_head import LevelHead
from iqa_core.assessor.model.prefix_sharing import (
    PackedSequences,
    PrefixCaching,
    SeparatePrompts,
    Strategy,
    TokenCount,
    choose_strategy,
)
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import make_preparer
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.records import ImageLimits
from iqa_core.rubrics import load_rubric
from tests.assessor.tiny import RUBRIC, make_images

pytestmark = pytest.mark.slow

IMAGES = make_images((64, 64), (112, 56), (40, 150))


def parts(folder: Path) -> tuple[Any, Any, list[Any]]:
    """Model with a level head, its encoder, prepared images."""
    manifest = read_manifest(folder)
    assert manifest is not None
    rubric, processor = load_rubric(RUBRIC), load_processor(folder)
    preparer = make_preparer(folder, rubric, ImageLimits(), None)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    model.set_output_embeddings(LevelHead(model.get_output_embeddings(), [50, 51, 52, 53, 54]))
    prompts = [build_prompt(processor, question, None) for question in rubric.questions]
    return model, make_encoder(processor, prompts, model, preparer), [preparer.prepare(image) for image in IMAGES]


@pytest.mark.parametrize("name", ["qwen", "qwen3", "idefics", "gemma3"])
def test_the_cached_way_is_the_plain_one(name: str, request: pytest.FixtureRequest) -> None:
    """Images of different lengths in one batch; positions with three axes, and windows, go on behind the padding."""
    model, encoder, images = parts(request.getfixturevalue(name))
    batch = encoder(images)
    expected = SeparatePrompts(model).logits(batch).softmax(-1)
    torch.testing.assert_close(PrefixCaching(model).logits(batch).softmax(-1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("qwen", PrefixCaching), ("idefics", PrefixCaching), ("gemma3", PrefixCaching), ("internvl", PackedSequences)],
)
def test_images_whose_prompts_end_at_unlike_lengths_share_a_batch(
    name: str, strategy: type[Strategy], request: pytest.FixtureRequest
) -> None:
    """As from a tokenizer that joins an image's last token with what follows, at some sizes and not at others."""
    model, encoder, images = parts(request.getfixturevalue(name))
    batch = encoder(images)
    prompts = tuple(
        replace(
            prompt, suffixes=tuple(end[: 1 + k] + (60,) * i + end[1 + k :] for k, end in enumerate(prompt.suffixes))
        )
        for i, prompt in enumerate(batch.prompts)
    )
    unlike = replace(batch, prompts=prompts)
    expected = SeparatePrompts(model).logits(unlike).softmax(-1)
    chosen = strategy.of(model, encoder)
    assert chosen is not None
    torch.testing.assert_close(chosen.logits(unlike).softmax(-1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("qwen", PackedSequences), ("llava", PackedSequences), ("gemma3", PrefixCaching), ("idefics", PackedSequences)],
)
def test_a_model_gets_the_fastest_way_that_fits(
    name: str, strategy: type, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    model, encoder, images = parts(request.getfixturevalue(name))
    assert type(choose_strategy(model, encoder, images, 1e-4)) is strategy
    assert caplog.messages == []


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_model_that_looks_back_is_noticed_and_said(paligemma: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, encoder, images = parts(paligemma)
    with caplog.at_level(logging.WARNING):
        assert type(choose_strategy(model, encoder, images, 1e-4)) is SeparatePrompts
    assert len(caplog.messages) == 1
    assert "one forward per prompt" in caplog.messages[0]


def test_a_decoder_that_is_not_what_it_seems_keeps_its_own_forward(
    qwen: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one whose MLP a later transformers computes otherwise: noticed by trying, and nothing stays replaced."""
    model, encoder, images = parts(qwen)
    batch = encoder(images)
    for layer in model.get_decoder().layers:
        layer.mlp.register_forward_hook(lambda _module, _args, output: 0.5 * output)
    expected = SeparatePrompts(model).logits(batch)
    strategy = choose_strategy(model, encoder, images, 1e-4)
    assert type(strategy) is PrefixCaching
    assert "PackedSequences does not fit" in caplog.text
    torch.testing.assert_close(strategy.logits(encoder(images)).softmax(-1), expected.softmax(-1), atol=1e-5, rtol=0)


def padding_of(strategy: Any, encoder: Any, images: Sequence[Any]) -> TokenCount:
    strategy.logits(encoder(images))
    count: TokenCount = strategy.count
    return count


def test_padding_is_counted_where_there_is_some(qwen: Path) -> None:
    model, encoder, images = parts(qwen)
    plain = padding_of(SeparatePrompts(model), encoder, images)
    tokens = encoder(images).prompts
    longest = max(len(prompt.prefix) for prompt in tokens)
    assert plain.padding == 4 * sum(longest - len(prompt.prefix) for prompt in tokens) > 0
    assert padding_of(PrefixCaching(model), encoder, images).padding == plain.padding // 4
    packed = padding_of(PackedSequences(model, encoder), encoder, images)
    assert packed == TokenCount(sum(len(p.prefix) + sum(map(len, p.suffixes)) for p in tokens), 0)
    np.testing.assert_allclose(TokenCount(95, 5).waste, 0.05)
