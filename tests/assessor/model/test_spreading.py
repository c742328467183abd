"""A model over several devices: what goes where, that everything meets on one device, and that nothing changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2Model, Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from iqa_core.assessor.fast.packed_decoder import PackedDecoder
from iqa_core.assessor.fast.packing import PromptLengths, packing_of
from iqa_core.assessor.model.loading import load_model
from iqa_core.assessor.model.prefix_sharing.cached import PrefixCaching
from iqa_core.assessor.model.prefix_sharing.packed import PackedSequences
from iqa_core.assessor.model.prefix_sharing.separate import SeparatePrompts
from iqa_core.assessor.model.spreading import bring_along, layer_places, spread
from iqa_core.errors import CallerError
from tests.assessor.model.test_prefix_sharing import parts

pytestmark = pytest.mark.slow

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


@pytest.mark.parametrize(
    ("sizes", "model_size", "num_devices", "places"),
    [
        ([1] * 4, 4, 2, [0, 0, 1, 1]),
        ([1] * 4, 8, 2, [1, 1, 1, 1]),  # the rest is half of the model
        ([1] * 6, 8, 2, [0, 0, 1, 1, 1, 1]),
        ([2, 2, 1, 1], 6, 3, [0, 1, 2, 2]),
    ],
)
def test_every_device_has_its_share(sizes: list[int], model_size: int, num_devices: int, places: list[int]) -> None:
    assert layer_places(sizes, model_size, num_devices) == places


def on_two(decoder: Any) -> Any:
    """A decoder of four layers whose second half lies on a device without values, from which nothing comes back.

    An operation on tensors of both devices raises, as on two GPUs.
    """
    for module in (*decoder.layers[2:], decoder.norm):
        module.to("meta")
    return decoder.eval()


@torch.inference_mode()
def test_a_decoder_on_two_devices_brings_its_tensors_along() -> None:
    decoder = on_two(Qwen2Model(Qwen2Config(**SIZES)))
    tokens = torch.zeros(2, 9, dtype=torch.long)
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": True}
    with pytest.raises(RuntimeError, match="device"):
        decoder(**given)
    bring_along(decoder)
    hidden = decoder(**given).last_hidden_state
    assert (hidden.shape, hidden.device.type) == ((2, 9, 16), "meta")


@torch.inference_mode()
def test_a_packed_decoder_on_two_devices_brings_its_tensors_along() -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    packed = PackedDecoder(on_two(Qwen3VLTextModel(Qwen3VLTextConfig(**SIZES, rope_parameters=rope))))
    packed.packing = packing_of((PromptLengths(5, (2, 2)), PromptLengths(5, (2, 2))), torch.device("cpu"))
    found = packed.forward(torch.zeros(2, 9, 16))
    assert (found.last_hidden_state.shape, found.last_hidden_state.device.type) == ((2, 2, 16), "meta")


def test_a_model_spread_over_one_device_twice_says_the_same(qwen: Path) -> None:
    cpu = torch.device("cpu")
    model, encoder, images = parts(qwen)
    expected = SeparatePrompts(model).logits(encoder(images)).softmax(-1)
    model = spread(model, [cpu, cpu])
    for strategy in (SeparatePrompts, PrefixCaching, PackedSequences):
        made = strategy.of(model, [encoder])
        assert made is not None
        torch.testing.assert_close(made.logits(encoder(images)).softmax(-1), expected, atol=1e-5, rtol=0)


def test_a_decoder_with_too_few_layers_is_refused() -> None:
    model = Qwen2Model(Qwen2Config(**{**SIZES, "num_hidden_layers": 1}))
    with pytest.raises(CallerError, match=r"num-gpus 2: the decoder of this checkpoint has 1 layers"):
        spread(model, [torch.device("cpu")] * 2)


def test_gpus_that_are_not_there_are_refused(qwen: Path) -> None:
    for device in ("auto", "cpu"):
        with pytest.raises(CallerError, match=r"--assessor.num-gpus 2, but this process has 0 CUDA devices"):
            load_model(qwen, "float32", device, 1, num_gpus=2)
