"""Strategies that share a prefix, and which model gets which.

Tests iqa_core/assessor/model/prefix_sharing/strategy.py, iqa_core/assessor/model/prefix_sharing/separate.py,
iqa_core/assessor/model/prefix_sharing/packed.py, iqa_core/assessor/model/prefix_sharing/cached.py,
iqa_core/assessor/model/prefix_sharing/choosing.py, iqa_core/assessor/fast/packed_decoder.py and
iqa_core/assessor/model/level_head.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    CacheLayerMixin,
    LinearAttentionCacheLayerMixin,
)

from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.encoders.base import EncodedBatch
from iqa_core.assessor.model.asking import make_encoder
from iqa_core.assessor.model.caches import tensors_of, with_rows
from iqa_core.assessor.model.level_head import LevelHead
from iqa_core.assessor.model.prefix_sharing.cached import (
    MAX_SUFFIX_PADDING,
    PrefixCaching,
    SuffixRow,
    blocks_of,
)
from iqa_core.assessor.model.prefix_sharing.choosing import AskedRubric, choose_strategy
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy, TokenCount
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.preparing.preparers import make_preparer
from iqa_core.assessor.prompts.chat import build_prompt
from iqa_core.records import ImageLimits
from iqa_core.rubrics import load_rubric
from tests.assessor.tiny import HYBRID, RUBRIC, make_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # GLM-4V's and PaliGemma's
]

IMAGES = make_images((64, 64), (112, 56), (40, 150))
ROWS = range(5)
"""Of the output matrix, those that are kept."""


def parts(folder: Path) -> tuple[Any, Any, list[Any]]:
    """Model with a level head, its encoder, prepared images."""
    manifest = read_manifest(folder)
    assert manifest is not None
    preparer = make_preparer(folder, load_rubric(RUBRIC), ImageLimits(), None)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    model.set_output_embeddings(LevelHead(model.get_output_embeddings(), [50 + row for row in ROWS]))
    return model, encoder_of(folder, model, RUBRIC), [preparer.prepare(image) for image in IMAGES]


def encoder_of(folder: Path, model: Any, name: str) -> Any:
    rubric, processor = load_rubric(name), load_processor(folder)
    prompts = [build_prompt(processor, question, None) for question in rubric.questions]
    return make_encoder(processor, prompts, model, make_preparer(folder, rubric, ImageLimits(), None))


@pytest.mark.parametrize("name", ["qwen", "qwen3", "idefics", "gemma3", "gemma4", "glm4v", *HYBRID])
def test_the_cached_way_is_the_plain_one(name: str, request: pytest.FixtureRequest) -> None:
    """Images of different lengths in one batch; positions with three axes, and windows, go on behind the padding."""
    model, encoder, images = parts(request.getfixturevalue(name))
    batch = encoder(images)
    expected = SeparatePrompts(model).logits(batch).softmax(-1)
    torch.testing.assert_close(PrefixCaching(model).logits(batch).softmax(-1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("qwen", PrefixCaching),
        ("idefics", PrefixCaching),
        ("gemma3", PrefixCaching),
        ("qwen3_5", PrefixCaching),
        ("internvl", PackedSequences),
    ],
)
def test_images_whose_prompts_end_at_unlike_lengths_share_a_batch(
    name: str, strategy: type[Strategy], request: pytest.FixtureRequest
) -> None:
    """As from a tokenizer that joins an image's last token with what follows, at some sizes and not at others."""
    model, encoder, images = parts(request.getfixturevalue(name))

    def unlike(batch: EncodedBatch) -> EncodedBatch:
        ends = [
            tuple(end[: 1 + k] + (60,) * i + end[1 + k :] for k, end in enumerate(prompt.suffixes))
            for i, prompt in enumerate(batch.prompts)
        ]
        return with_suffixes(batch, ends)

    expected = SeparatePrompts(model).logits(unlike(encoder(images))).softmax(-1)
    chosen = strategy.of(model, [encoder])
    assert chosen is not None
    torch.testing.assert_close(chosen.logits(unlike(encoder(images))).softmax(-1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "strategy"), [("qwen", PackedSequences), ("gemma3", PrefixCaching), ("qwen3_5", PrefixCaching)]
)
def test_64_questions_are_64_forwards(
    name: str, strategy: type[Strategy], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 to 20 tokens, and others behind each image; a cache that is bounded does not hold all at once."""
    model, encoder, images = parts(request.getfixturevalue(name))

    def checklists() -> EncodedBatch:
        ends = [
            tuple(tuple((7 * i + k + n) % 50 + 20 for i in range(12 + (k + n) % 9)) for k in range(64))
            for n in range(len(images))
        ]
        return with_suffixes(encoder(images), ends)

    expected = SeparatePrompts(model).logits(checklists()).softmax(-1)
    chosen = strategy.of(model, [encoder])
    assert chosen is not None
    chosen.commit()
    monkeypatch.setattr("iqa_core.assessor.model.prefix_sharing.cached.MAX_CACHE_BYTES", 2**19)
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    torch.testing.assert_close(chosen.logits(checklists()).softmax(-1), expected, atol=1e-5, rtol=0)
    assert max(rows) < len(images) * 64


def with_suffixes(batch: EncodedBatch, ends: Sequence[tuple[tuple[int, ...], ...]]) -> EncodedBatch:
    """A batch with other questions behind each image."""
    prompts = (replace(prompt, suffixes=own) for prompt, own in zip(batch.prompts, ends, strict=True))
    return replace(batch, prompts=tuple(prompts))


@pytest.mark.parametrize("kind", sorted(set(DYNAMIC_LAYER_TYPE_MAPPING) - {"compressed_sparse_attention"}))
def test_a_repeated_cache_of_any_kind_of_layer_leaves_the_first_as_it_is(kind: str) -> None:
    """All of the kinds that transformers makes for a model, but those that want a whole configuration."""
    layer = DYNAMIC_LAYER_TYPE_MAPPING[kind](sliding_window=4)
    cache = Cache(layers=[layer])
    grow(cache, torch.arange(2.0))
    before = copy.deepcopy(cache)
    chosen = torch.tensor([1, 0, 1])
    again = with_rows(cache, chosen)
    assert all(torch.equal(a, b[chosen]) for a, b in zip(states(again), states(cache), strict=True))
    grow(again, torch.arange(3.0))
    assert all(torch.equal(a, b) for a, b in zip(states(cache), states(before), strict=True))


def grow(cache: Cache, values_R: torch.Tensor) -> None:
    """Let five tokens of each row go through a layer, as a model does."""
    tokens = values_R[:, None, None, None].expand(-1, 1, 5, 2)
    if isinstance(cache.layers[0], LinearAttentionCacheLayerMixin):
        cache.update_conv_state(tokens[:, 0].transpose(1, 2), 0, conv_kernel_size=3)
        cache.update_recurrent_state(tokens + 7, 0)
    if isinstance(cache.layers[0], CacheLayerMixin):
        cache.update(tokens, tokens + 9, 0)


def states(cache: Cache) -> list[torch.Tensor]:
    """Tensors of a layer that have a row per sequence."""
    return [tensor for tensor in tensors_of(cache.layers[0]) if tensor.ndim]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 20))
def test_blocks_hold_every_question_once_and_little_padding(lengths: list[int], max_rows: int) -> None:
    rows = [SuffixRow(0, k, (1,) * length) for k, length in enumerate(lengths)]
    blocks = list(blocks_of(rows, max_rows))
    assert sorted(one.number for block in blocks for one in block) == list(range(len(lengths)))
    for block in blocks:
        sizes = [len(one.ends) for one in block]
        assert len(block) <= max_rows
        assert sum(sizes) >= (1 - MAX_SUFFIX_PADDING) * max(sizes) * len(sizes) - 1e-9


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("qwen", PackedSequences),
        ("llava", PackedSequences),
        ("idefics", PackedSequences),
        ("gemma3", PrefixCaching),
        ("gemma4", PrefixCaching),
        ("glm4v", PrefixCaching),
        *((name, PrefixCaching) for name in HYBRID),
    ],
)
def test_a_model_gets_the_fastest_way_that_fits(
    name: str, strategy: type, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    model, encoder, images = parts(request.getfixturevalue(name))
    assert type(choose_strategy(model, [AskedRubric(encoder, ROWS)], images, 1e-4)) is strategy
    assert caplog.messages == []


def test_a_model_that_looks_back_is_noticed_and_said(paligemma: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, encoder, images = parts(paligemma)
    with caplog.at_level(logging.WARNING):
        assert type(choose_strategy(model, [AskedRubric(encoder, ROWS)], images, 1e-4)) is SeparatePrompts
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
    strategy = choose_strategy(model, [AskedRubric(encoder, ROWS)], images, 1e-4)
    assert type(strategy) is PrefixCaching
    assert "PackedSequences does not fit" in caplog.text
    torch.testing.assert_close(strategy.logits(encoder(images)).softmax(-1), expected.softmax(-1), atol=1e-5, rtol=0)


def test_a_decoder_that_ours_cannot_be_made_of_leaves_the_model_untouched(qwen: Path) -> None:
    """Such as one that names its parts otherwise: its vision tower, which ours could replace, stays too."""
    model, encoder, _ = parts(qwen)
    del model.get_decoder().layers[-1].self_attn.q_proj.out_features
    patching = encoder.patching
    with pytest.raises(AttributeError, match="out_features"):
        PackedSequences.of(model, [encoder])
    assert encoder.patching is patching
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("rubrics", "is_packed"), [((0,), True), ((1,), False), ((0, 1), False), ((1, 0), False)])
def test_a_way_has_to_fit_each_rubric(rubrics: Sequence[int], is_packed: bool, qwen: Path) -> None:
    """Here the model takes longer prompts than the first rubric's otherwise, which our own decoder does not know."""
    model, short, images = parts(qwen)
    long = encoder_of(qwen, model, "interior-v4")
    lengths = [
        max(len(one.prefix) + len(end) for one in encoder(images).prompts for end in one.suffixes)
        for encoder in (short, long)
    ]
    assert lengths[0] < lengths[1]
    for layer in model.get_decoder().layers:
        layer.mlp.register_forward_hook(
            lambda _module, _args, output: output * (0.5 if output.shape[1] > lengths[0] else 1.0)
        )
    asked = [AskedRubric((short, long)[place], ROWS) for place in rubrics]
    assert (type(choose_strategy(model, asked, images, 1e-4)) is PackedSequences) == is_packed


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
    packed = padding_of(PackedSequences.of(model, [encoder]), encoder, images)
    assert packed == TokenCount(sum(len(p.prefix) + sum(map(len, p.suffixes)) for p in tokens), 0)
    np.testing.assert_allclose(TokenCount(95, 5).waste, 0.05)
