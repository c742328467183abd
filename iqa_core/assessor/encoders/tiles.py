"""Prepared tiles and a rubric's prompts -> token ids and pixel tensors, for models that see tiles.

Pixels travel as 8 bits and are normalised on the device. The checkpoint's own processor writes the prompts, once for
all images that are cut alike: it is given a stand-in for its image processor that reports how an image was cut.

Shape suffixes: N tiles of one image, K dimensions, H, W and C.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens, normalisation, split_prompts
from iqa_core.assessor.families import TILED
from iqa_core.assessor.preparing.grids import Size
from iqa_core.assessor.preparing.tiling import Arrangement, TilePlan, Tiling, unstacked
from iqa_core.assessor.prompts.chat import adds_special_tokens


class TileEncoder(Encoder):
    """An `Encoder` for images that `TilingPreparer` prepared."""

    def __init__(self, processor: Any, prompts_K: Sequence[str], model: Any, tiling: Tiling) -> None:
        self._processor = processor
        self._prompts_K = prompts_K
        self._model = model
        self._tiling = tiling
        self._scale_C, self._shift_C = normalisation(processor.image_processor, model.device)
        self._adds_special = adds_special_tokens(processor.tokenizer, prompts_K[0])
        self._arranged = ARRANGEMENTS[TILED[model.config.model_type].arrangement]
        self._suffixes_K: tuple[tuple[int, ...], ...] = ()
        self._known: dict[TilePlan, PromptTokens] = {}
        self._ints: dict[int, int] = {}
        """One int object per token id: equal ones in 650 prompts of LLaVA-OneVision would take 190 MB."""

    def encoded(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        """See `Encoder.encoded`."""
        tiles, sizes = zip(*(unstacked(pixels, self._tiling.tile) for pixels in images), strict=True)
        counts = [len(one) for one in tiles]
        pixels = self._normalised(np.concatenate(tiles)).split(counts)
        return EncodedBatch(tuple(self.tokens(size) for size in sizes), self._arranged(pixels, sizes))

    def _normalised(self, tiles_NHWC: NDArray[np.uint8]) -> torch.Tensor:
        bytes_NCHW = torch.from_numpy(tiles_NHWC).to(self._scale_C.device).permute(0, 3, 1, 2).contiguous()
        values_NCHW = bytes_NCHW.float().mul_(self._scale_C[:, None, None]).add_(self._shift_C[:, None, None])
        return values_NCHW.to(self._model.dtype)

    def tokens(self, size: Size) -> PromptTokens:
        """All prompts around a picture of this size."""
        plan = self._tiling.plan(*size)
        alike = replace(plan, resizes=())
        if alike not in self._known:
            self._known[alike] = self._tokens(_told(self._processor, plan, size, self._tiling.tile))
        return self._known[alike]

    def _tokens(self, told: Any) -> PromptTokens:
        """All prompts by a processor that is told of a picture.

        Only the first is encoded if its suffix is that of an earlier picture: 40 ms for 7,400 tokens instead of 140.
        """
        first = self._per_token(told, self._prompts_K[0])
        ids = first.pop("input_ids")
        if not self._suffixes_K or ids[-len(self._suffixes_K[0]) :] != self._suffixes_K[0]:
            others = [self._per_token(told, prompt)["input_ids"] for prompt in self._prompts_K[1:]]
            self._suffixes_K = split_prompts([ids, *others]).suffixes
        length = len(ids) - len(self._suffixes_K[0])
        types = {name: values[:length] for name, values in first.items()}
        return PromptTokens(ids[:length], self._suffixes_K, types)

    def _per_token(self, told: Any, prompt: str) -> dict[str, tuple[int, ...]]:
        """Token ids of a prompt and, where a processor gives them, token types."""
        inputs = told(
            text=[prompt],
            images=[[Image.new("RGB", (1, 1))]],
            text_kwargs={"add_special_tokens": self._adds_special},
        )
        names = [name for name in inputs if name == "input_ids" or name.endswith("token_type_ids")]
        return {name: tuple(map(self._ints.setdefault, inputs[name][0], inputs[name][0])) for name in names}


def _told(processor: Any, plan: TilePlan, size: Size, tile: Size) -> Any:
    """A copy of a processor that takes every image for one of this size with this plan, and reads no pixels."""
    is_split = plan.grid != (1, 1)
    found = {
        "pixel_values": torch.empty(1, 1, 1, *tile),
        "num_patches": [plan.num_tiles],
        "num_crops": [0],
        "grids": [list(plan.grid)],
        "rows": [[plan.grid[0] * is_split]],
        "cols": [[plan.grid[1] * is_split]],
        "image_sizes": [list(size)],
        "batch_num_images": [1],
    }
    told = copy.copy(processor)
    told.image_processor = copy.copy(processor.image_processor)
    told.image_processor.preprocess = lambda *_, **__: BatchFeature(found, tensor_type="pt")
    return told


def _flat(pixels: Sequence[torch.Tensor], _sizes: Sequence[Size]) -> dict[str, torch.Tensor]:
    """Most models: the tiles of all images one after another."""
    return {"pixel_values": torch.cat(list(pixels))}


def _with_sizes(pixels: Sequence[torch.Tensor], sizes: Sequence[Size]) -> dict[str, torch.Tensor]:
    """LLaVA-OneVision: an axis of images, padded with zeros, and the images' sizes, by which it drops the margins."""
    device = pixels[0].device
    return {
        "pixel_values": pad_sequence(list(pixels), batch_first=True),
        "image_sizes": torch.tensor(sizes, device=device),
        "batch_num_images": torch.ones(len(pixels), dtype=torch.long, device=device),
    }


def _with_mask(pixels: Sequence[torch.Tensor], _sizes: Sequence[Size]) -> dict[str, torch.Tensor]:
    """Idefics3: an axis of images, padded with zeros, and a mask of the real pixels."""
    masks = [torch.ones_like(one[:, 0], dtype=torch.long) for one in pixels]
    return {
        "pixel_values": pad_sequence(list(pixels), batch_first=True),
        "pixel_attention_mask": pad_sequence(masks, batch_first=True),
    }


ARRANGEMENTS: Mapping[Arrangement, Callable[[Sequence[torch.Tensor], Sequence[Size]], dict[str, torch.Tensor]]] = {
    "flat": _flat,
    "with_sizes": _with_sizes,
    "with_mask": _with_mask,
}
"""How a model takes the tiles of a batch -> its arguments."""
