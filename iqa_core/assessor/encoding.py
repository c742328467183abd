"""Prepared images and a rubric's prompts -> token ids and pixel tensors, as a model takes them.

Two encoders. The one for any model has the checkpoint's own processor do all of it, once per image. The one for the
Qwen2-VL family normalises and cuts patches on the device, and makes token ids without the processor.

Shape suffixes: N images, K dimensions, A axes of rotary positions, P patches, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iqa_core.assessor.prompts import adds_special_tokens, with_visual_tokens


@dataclass(frozen=True)
class PromptTokens:
    """Token ids of one image's K prompts: what they begin with alike, and how each goes on (never empty)."""

    prefix: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    types: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """What else the model is told of each token of the prefix, by argument; 0 for all that follow."""
    positions: torch.Tensor | None = None
    """Rotary positions (A, length of prefix) where the model does not simply count."""

    @property
    def next_position(self) -> int:
        return len(self.prefix) if self.positions is None else int(self.positions.max()) + 1


@dataclass(frozen=True)
class EncodedBatch:
    """Images as a model takes them."""

    prompts: tuple[PromptTokens, ...]
    pixels: Mapping[str, torch.Tensor]
    """By argument: what is large on the device, sizes on the CPU, where they are read without waiting for a GPU."""


class Encoder(Protocol):
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch: ...


def split_prompts(prompts_K: Sequence[Sequence[int]]) -> PromptTokens:
    """Whole prompts -> their longest common beginning, and what is left of each (at least one token)."""
    shortest = min(len(prompt) for prompt in prompts_K) - 1
    differing = (j for j in range(shortest) if any(a[j] != b[j] for a, b in pairwise(prompts_K)))
    length = next(differing, shortest)
    return PromptTokens(tuple(prompts_K[0][:length]), tuple(tuple(prompt[length:]) for prompt in prompts_K))


class ProcessorEncoder:
    """For any model: the checkpoint's own processor on the first prompt; the other prompts only add their ends."""

    def __init__(self, processor: Any, prompts_K: Sequence[str], model: Any, *, resizes: bool) -> None:
        self._processor = processor
        self._prompt = prompts_K[0]
        self._model = model
        self._settings = {} if resizes else {"do_resize": False}
        self._adds_special = adds_special_tokens(processor.tokenizer, prompts_K[0])
        self._suffixes_K = self._common_suffixes(prompts_K)

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        inputs = self._processed([self._prompt] * len(images), images)
        ids_NT, mask_NT = inputs.pop("input_ids"), inputs.pop("attention_mask").bool()
        per_token = {name: value for name, value in inputs.items() if value.shape == ids_NT.shape}
        prompts = []
        for i, mask_T in enumerate(mask_NT):
            ids = tuple(ids_NT[i][mask_T].tolist())
            length = len(ids) - len(self._suffixes_K[0])
            if ids[length:] != self._suffixes_K[0]:
                raise ValueError(
                    f"the prompt ends in other tokens behind an image of {images[i].shape[:2]} than behind a grey one"
                )
            types = {name: tuple(value[i][mask_T].tolist()[:length]) for name, value in per_token.items()}
            prompts.append(PromptTokens(ids[:length], self._suffixes_K, types))
        pixels = {name: value for name, value in inputs.items() if name not in per_token}
        return EncodedBatch(tuple(prompts), pixels)

    def _processed(self, texts: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        return processed(
            self._processor,
            self._model,
            texts,
            [Image.fromarray(pixels) for pixels in images],
            {"padding": True, "add_special_tokens": self._adds_special},
            self._settings,
        )

    def _common_suffixes(self, prompts_K: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Ends of the prompts with the image in place; they are the same for every image. Tried on a grey one."""
        grey = np.full((64, 64, 3), 128, np.uint8)
        encoded = [self._processed([prompt], [grey])["input_ids"][0].tolist() for prompt in prompts_K]
        return split_prompts(encoded).suffixes


def processed(
    processor: Any,
    model: Any,
    texts: Sequence[str],
    images: Sequence[Image.Image],
    text_settings: Mapping[str, Any],
    image_settings: Mapping[str, Any],
) -> dict[str, torch.Tensor]:
    """What a checkpoint's own processor makes of prompts with an image each, on the model's device."""
    inputs = processor(
        text=list(texts),
        images=[[image] for image in images],
        text_kwargs=dict(text_settings),
        images_kwargs=dict(image_settings),
        return_tensors="pt",
    )
    inputs.pop("labels", None)  # PaliGemma's processor makes some for training
    return dict(inputs.to(model.device, model.dtype))


@dataclass(frozen=True)
class Patching:
    """What the Qwen2-VL family's image processors do to a picture of its final size, on any device."""

    side: int
    """Of a patch, pixels."""
    merge: int
    """Patches along a side of what becomes one visual token."""
    frames: int
    """How often each patch is repeated."""
    scale_C: torch.Tensor
    shift_C: torch.Tensor

    @classmethod
    def of(cls, settings: Any, device: torch.device) -> Patching:
        """settings: a checkpoint's image processor."""
        sides = int(settings.patch_size), int(settings.merge_size), int(settings.temporal_patch_size)
        return cls(*sides, *normalisation(settings, device))

    def grid(self, pixels_HWC: NDArray[np.uint8]) -> tuple[int, int]:
        """Rows and columns of patches."""
        return pixels_HWC.shape[0] // self.side, pixels_HWC.shape[1] // self.side

    def visual_tokens(self, grid: tuple[int, int]) -> int:
        return grid[0] * grid[1] // self.merge**2

    def __call__(self, pixels_HWC: NDArray[np.uint8]) -> torch.Tensor:
        """Normalised patches (P, C * frames * side * side), float32; those that will be merged are neighbours."""
        side, merge = self.side, self.merge
        rows, columns = (length // (side * merge) for length in pixels_HWC.shape[:2])
        image = torch.from_numpy(np.require(pixels_HWC, requirements="W")).to(self.scale_C.device)
        blocks = image.reshape(rows, merge, side, columns, merge, side, 3).permute(0, 3, 1, 4, 6, 2, 5)
        values = blocks.float().mul_(self.scale_C[:, None, None]).add_(self.shift_C[:, None, None])
        frames = values.flatten(0, 3)[:, :, None].expand(-1, -1, self.frames, -1, -1)
        return frames.flatten(1)


class PatchEncoder:
    """For the Qwen2-VL family: everything on the device, from pixels that have their final size.

    The family takes each picture as two equal frames; our own tower takes one (see vision_speed).
    """

    def __init__(self, processor: Any, prompts_K: Sequence[str], model: Any) -> None:
        self._processor = processor
        self._prompts_K = prompts_K
        self._model = model
        self.patching_of_model = self.patching = Patching.of(processor.image_processor, model.device)
        self._adds_special = adds_special_tokens(processor.tokenizer, prompts_K[0])
        self._known: dict[tuple[int, int], PromptTokens] = {}

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        grids = [self.patching.grid(pixels) for pixels in images]
        patches = torch.cat([self.patching(pixels) for pixels in images])
        grid_N3 = torch.tensor([(1, *grid) for grid in grids])
        return EncodedBatch(
            tuple(self.tokens(grid) for grid in grids),
            {"pixel_values": patches.to(self._model.dtype), "image_grid_thw": grid_N3},
        )

    def tokens(self, grid: tuple[int, int]) -> PromptTokens:
        """Of all prompts around an image of so many patches; made once per size."""
        if grid not in self._known:
            self._known[grid] = self._tokens(grid)
        return self._known[grid]

    def _tokens(self, grid: tuple[int, int]) -> PromptTokens:
        tokenizer, token_id = self._processor.tokenizer, self._model.config.image_token_id
        num_visual = self.patching.visual_tokens(grid)
        prompts_K = []
        for prompt in self._prompts_K:
            ids = tokenizer.encode(prompt, add_special_tokens=self._adds_special)
            prompts_K.append(with_visual_tokens(ids, token_id, num_visual))
        tokens = split_prompts(prompts_K)
        types = {"mm_token_type_ids": tuple(int(token == token_id) for token in tokens.prefix)}
        return PromptTokens(tokens.prefix, tokens.suffixes, types, self._positions(tokens.prefix, types, grid))

    def _positions(
        self, prefix: tuple[int, ...], types: Mapping[str, tuple[int, ...]], grid: tuple[int, int]
    ) -> torch.Tensor:
        """(A, length of prefix), as the model itself computes them."""
        positions_A1T, _ = self._model.model.get_rope_index(
            torch.tensor([prefix]),
            **{name: torch.tensor([values]) for name, values in types.items()},
            image_grid_thw=torch.tensor([(1, *grid)]),
        )
        return torch.as_tensor(positions_A1T[:, 0])


def normalisation(settings: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and summand per channel, float32, that turn 8 bits into what an image processor's settings ask for."""
    factor = settings.rescale_factor if settings.do_rescale else 1.0
    mean_C = torch.tensor(settings.image_mean if settings.do_normalize else [0.0] * 3, dtype=torch.float64)
    std_C = torch.tensor(settings.image_std if settings.do_normalize else [1.0] * 3, dtype=torch.float64)
    return (factor / std_C).float().to(device), (-mean_C / std_C).float().to(device)
