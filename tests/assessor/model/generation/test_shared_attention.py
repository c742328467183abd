"""Attention of samples to one copy of their prompt, against attention to copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import DynamicLayer

from iqa_core.assessor.model.generation.shared_attention import REFUSED, Groups, RowsCache, SharedLayer, attend
from tests.assessor.model.generation.test_decoding import Writer

KEY_HEADS, HEADS, WIDTH, PROMPT, ROOM = 2, 6, 8, 11, 4
IMAGES_R = torch.tensor([0, 2, 2, 2, 1, 2])
"""Of unlike number, and not in order."""


def layer_of(dtype: torch.dtype) -> DynamicLayer:
    generator = torch.Generator().manual_seed(0)
    layer = DynamicLayer()
    keys, values = (torch.randn(3, KEY_HEADS, PROMPT, WIDTH, generator=generator).to(dtype) for _ in range(2))
    layer.update(keys, values)
    return layer


def plainly(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    found = scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=mask, enable_gqa=True)
    return found[:, :, 0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.03)])
def test_unequal_groups_attend_as_rows_with_copies_do(dtype: torch.dtype, tolerance: float) -> None:
    """Also when rows have left, and with an image all of whose rows have."""
    prompt = layer_of(dtype)
    shared = SharedLayer(prompt, Groups(IMAGES_R), ROOM)
    keys, values, images = prompt.keys[IMAGES_R], prompt.values[IMAGES_R], IMAGES_R
    generator = torch.Generator().manual_seed(1)
    for step in range(ROOM):
        rows = len(images)
        query = torch.randn(rows, HEADS, WIDTH, generator=generator).to(dtype)
        new_keys, new_values = (torch.randn(rows, KEY_HEADS, 1, WIDTH, generator=generator).to(dtype) for _ in range(2))
        shared.update(new_keys, new_values)
        keys, values = torch.cat([keys, new_keys], 2), torch.cat([values, new_values], 2)
        mask = torch.rand(rows, 1, 1, keys.shape[2], generator=generator) > 0.3
        mask[..., -1] = True
        assert shared.get_seq_length() == PROMPT + step + 1
        found = shared.attended(query, mask, WIDTH**-0.5)
        torch.testing.assert_close(found, plainly(query, keys, values, mask), atol=tolerance, rtol=tolerance)
        if step == 1:
            kept = torch.tensor([0, 2, 3, 5])
            left, images = images[kept].unique(return_inverse=True)
            shared.kept(kept, left, Groups(images))
            keys, values = keys[kept], values[kept]


@pytest.mark.parametrize(("name", "num_shared"), [("qwen", 2), ("gemma3", 1), ("qwen3_5", 1)])
def test_prompts_of_whole_attention_are_kept_once(name: str, num_shared: int, request: pytest.FixtureRequest) -> None:
    """Windows are repeated, and so are states of linear attention."""
    writer = Writer(request.getfixturevalue(name))
    prefilled = writer.prefilled(writer.pixels)
    images_R = torch.tensor([0, 0, 0, 1, 2, 2])
    cache = RowsCache(prefilled.cache, images_R, 4, shares=True)
    pairs: list[tuple[Any, Any]] = list(zip(cache.cache.layers, prefilled.cache.layers, strict=True))
    shared = [(ours, theirs) for ours, theirs in pairs if isinstance(ours, SharedLayer)]
    assert len(shared) >= num_shared
    for ours, theirs in shared:
        assert ours._prompt_keys is theirs.keys
        assert ours.keys.shape[2] == 4
    copied = RowsCache(prefilled.cache, images_R, 4, shares=False)
    assert not any(isinstance(layer, SharedLayer) for layer in copied.cache.layers)
    assert len(shared) == len(pairs) or name != "qwen"


@pytest.mark.parametrize("name", REFUSED)
def test_scores_that_are_changed_otherwise_are_refused(name: str) -> None:
    shared = SharedLayer(layer_of(torch.float32), Groups(IMAGES_R), ROOM)
    rows = torch.randn(len(IMAGES_R), KEY_HEADS, 1, WIDTH)
    keys, values = shared.update(rows, rows)
    query = torch.randn(len(IMAGES_R), HEADS, 1, WIDTH)
    found, _ = attend(torch.nn.Module(), query, keys, values, None, sliding_window=None)
    assert found.shape == (len(IMAGES_R), 1, HEADS, WIDTH)
    with pytest.raises(TypeError, match="capped or extended"):
        attend(torch.nn.Module(), query, keys, values, None, None, **{name: torch.tensor(1.0)})


def test_rows_are_grouped_on_the_device_of_their_layer() -> None:
    """As in a model over several devices; `meta` refuses an index that lies elsewhere, as a GPU does."""
    groups = Groups(torch.tensor([0, 1, 1]))
    found = groups.gathered(torch.zeros(3, 2, 1, WIDTH, device="meta"))
    assert (found.shape, found.device.type) == ((2, 2, 2, WIDTH), "meta")
