"""Greedy answers against transformers' own `generate`; samples in any company.

Tests iqa_core/assessor/model/caches.py, iqa_core/assessor/model/left_padding.py and
iqa_core/assessor/model/generation/prefill.py too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, GenerationConfig

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.encoders.base import Encoder
from iqa_core.assessor.load import describe
from iqa_core.assessor.model.asking import make_encoder
from iqa_core.assessor.model.generation.decoding import Answer, Decoder
from iqa_core.assessor.model.generation.memory import LayerMemory
from iqa_core.assessor.model.generation.prefill import Prefill, length, prefill
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import render_prompt
from iqa_core.records import Finish, ImageLimits
from iqa_core.rubrics.written import Decoding
from iqa_core.written.keys import key_of
from tests.assessor.tiny import FAMILIES, make_images

pytestmark = pytest.mark.slow

IMAGES = make_images((96, 64), (64, 64), (120, 90))
TOKENS = 12
GREEDY = Decoding(max_new_tokens=TOKENS)
SAMPLED = Decoding(temperature=1.0, top_k=40, top_p=0.95, max_new_tokens=TOKENS)


class Writer:
    """A tiny checkpoint that writes."""

    def __init__(self, folder: Path) -> None:
        config = AssessorConfig(checkpoint=str(folder), threads=1)
        preparer: Any = describe(config, None, ImageLimits()).preparer
        self.processor = load_processor(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.prompt = render_prompt(self.processor, [None, "\nDescribe the quality."], "", None)
        self.encoder: Encoder = make_encoder(self.processor, [self.prompt], self.model, preparer)
        self.pixels = [preparer.prepare(image) for image in IMAGES]

    def prefilled(self, pixels: Sequence[np.ndarray], width: int | None = None) -> Prefill:
        batch = self.encoder(pixels)
        widest = max(map(length, batch.prompts))
        with torch.inference_mode():
            return prefill(self.model, batch, batch.pixels, width or widest)

    def decoder(self, decoding: Decoding = SAMPLED, **settings: Any) -> Decoder:
        return Decoder(self.model, decoding, self.processor.tokenizer.decode, **settings)


def texts_of(answers: Sequence[Sequence[Answer]]) -> list[list[str]]:
    return [[answer.text for answer in row] for row in answers]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", [*FAMILIES, "paligemma"])
def test_greedy_answers_are_those_of_generate(name: str, request: pytest.FixtureRequest) -> None:
    """Three images of unlike sizes at once, one after another in `generate`."""
    writer = Writer(request.getfixturevalue(name))
    found = writer.decoder(GREEDY)(writer.prefilled(writer.pixels), [[0]] * len(IMAGES))
    settings = GenerationConfig(do_sample=False, max_new_tokens=TOKENS, eos_token_id=None, pad_token_id=0)
    for image, (answer,) in zip(IMAGES, found, strict=True):
        inputs = writer.processor(
            text=[writer.prompt], images=[[Image.fromarray(image.pixels_HWC)]], return_tensors="pt"
        )
        ids = writer.model.generate(**inputs, generation_config=settings)[0, inputs["input_ids"].shape[1] :]
        assert answer.ids == tuple(ids.tolist())
        assert answer.finish is Finish.LENGTH


@pytest.fixture(scope="module")
def writer(qwen: Path) -> Writer:
    return Writer(qwen)


def keys_of(images: Sequence[int], samples: int) -> list[list[int]]:
    return [[key_of("of a test", image, sample) for sample in range(samples)] for image in images]


def test_samples_do_not_depend_on_company_order_or_padding(writer: Writer) -> None:
    together = writer.decoder()(writer.prefilled(writer.pixels), keys_of(range(3), 4))
    alone = [writer.decoder()(writer.prefilled([writer.pixels[i]], 70), keys_of([i], 4))[0] for i in (2, 0, 1)]
    assert texts_of(together) == texts_of([alone[1], alone[2], alone[0]])
    assert len({text for row in texts_of(together) for text in row}) > 3


def test_prefills_of_one_width_are_joined(writer: Writer) -> None:
    whole = writer.prefilled(writer.pixels)
    width = whole.mask_NT.shape[1]
    parts = Prefill.join([writer.prefilled([pixels], width) for pixels in writer.pixels])
    np.testing.assert_allclose(parts.logits_NV, whole.logits_NV, atol=1e-4)
    keys = keys_of(range(3), 2)
    assert texts_of(writer.decoder()(parts, keys)) == texts_of(writer.decoder()(whole, keys))


def test_windows_hold_no_more_memory_than_is_set_aside_for_them(gemma3: Path) -> None:
    """Tokens that a window has passed are let go of."""
    writer = Writer(gemma3)
    prefilled = writer.prefilled(writer.pixels)
    width, layers = prefilled.mask_NT.shape[1], prefilled.cache.layers
    stored = [sum(one.untyped_storage().nbytes() for one in (layer.keys, layer.values)) for layer in layers]
    assert stored == [len(IMAGES) * LayerMemory.of(layer).row_bytes(width) for layer in layers]
    assert min(stored) < max(stored)


@pytest.mark.parametrize("name", ["qwen", "qwen3_5", "gemma3"])
def test_rows_that_end_leave_and_change_nothing_for_the_others(name: str, request: pytest.FixtureRequest) -> None:
    """Whole rows first; then a token that many of them write ends them, at unlike times."""
    writer = Writer(request.getfixturevalue(name))
    keys = keys_of(range(3), 4)
    whole = [answer.ids for row in writer.decoder()(writer.prefilled(writer.pixels), keys) for answer in row]
    ends = frozenset(ids[3 + i] for i, ids in enumerate(whole[:6]))
    decoder = writer.decoder(ends=ends)
    found = [answer for row in decoder(writer.prefilled(writer.pixels), keys) for answer in row]
    expected = [ids[: next((t for t, token in enumerate(ids) if token in ends), TOKENS)] for ids in whole]
    assert [answer.ids for answer in found] == expected
    assert [answer.finish for answer in found] == [
        Finish.STOP if len(ids) < TOKENS else Finish.LENGTH for ids in expected
    ]
    assert len({len(ids) for ids in expected}) > 2


def test_answers_of_unlike_limits_are_those_of_each_alone_and_cost_their_own_tokens(writer: Writer) -> None:
    limits, keys, rows = [1, TOKENS, 3], keys_of(range(3), 2), list[int]()
    prefilled = writer.prefilled(writer.pixels)
    whole = writer.decoder()(prefilled, keys)
    with writer.model.register_forward_pre_hook(
        lambda _module, _args, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    ):
        found = writer.decoder()(prefilled, keys, limits)
    assert rows == [4, 4, *[2] * (TOKENS - 3)]
    for one, uncut, limit in zip(found, whole, limits, strict=True):
        assert [answer.ids for answer in one] == [answer.ids[:limit] for answer in uncut]
        assert [answer.finish for answer in one] == [Finish.LENGTH] * 2
    alone = writer.decoder(SAMPLED.model_copy(update={"max_new_tokens": 3}))
    assert texts_of(alone(writer.prefilled(writer.pixels[2:]), keys[2:])) == texts_of(found[2:])


def test_a_text_ends_an_answer_and_stands_in_it(writer: Writer) -> None:
    (whole,) = writer.decoder()(writer.prefilled(writer.pixels[:1]), keys_of([0], 1))[0]
    stop = whole.text[len(whole.text) // 2 :][:3]
    decoder = writer.decoder(SAMPLED.model_copy(update={"stop": (stop,)}))
    (answer,) = decoder(writer.prefilled(writer.pixels[:1]), keys_of([0], 1))[0]
    assert answer.text == whole.text[: whole.text.index(stop) + len(stop)]
    assert answer.finish is Finish.STOP
    assert answer.ids == whole.ids[: len(answer.ids)]
    assert len(answer.ids) < TOKENS


def test_suppressed_tokens_are_not_written(writer: Writer) -> None:
    keys = keys_of(range(3), 4)
    prefilled = writer.prefilled(writer.pixels)
    written = {token for row in writer.decoder()(prefilled, keys) for answer in row for token in answer.ids}
    forbidden = sorted(written)[::2]
    found = writer.decoder(suppressed=forbidden)(prefilled, keys)
    assert not {token for row in found for answer in row for token in answer.ids} & set(forbidden)


def test_watched_tokens_are_those_of_the_whole_distribution(writer: Writer) -> None:
    prefilled = writer.prefilled(writer.pixels[:1])
    (answer,) = writer.decoder(watched=(5, 9))(prefilled, keys_of([0], 1))[0]
    assert answer.watched_TW.shape == (TOKENS, 2)
    expected = prefilled.logits_NV[0].log_softmax(-1)[[5, 9]]
    np.testing.assert_allclose(answer.watched_TW[0], expected, rtol=1e-5)


def test_log_probabilities_of_what_was_written_are_those_of_the_whole_distribution(writer: Writer) -> None:
    """That of the token which ended a turn too: it was chosen like the others."""
    keys = keys_of(range(3), 2)
    size = writer.model.get_output_embeddings().weight.shape[0]
    whole = writer.decoder(watched=range(size))(writer.prefilled(writer.pixels), keys)
    end = whole[0][0].ids[3]
    found = writer.decoder(measures=True, ends={end})(writer.prefilled(writer.pixels), keys)
    for one, longer in zip((a for row in found for a in row), (a for row in whole for a in row), strict=True):
        chosen = longer.ids[: len(one.log_probs)]
        assert one.ids + (() if one.end is None else (end,)) == chosen
        expected = longer.watched_TW[np.arange(len(chosen)), list(chosen)]
        np.testing.assert_allclose(one.log_probs, expected, atol=1e-5)
    assert found[0][0].end == end
    assert whole[0][0].end is None
    assert whole[0][0].log_probs == (), "none where none are asked for"
