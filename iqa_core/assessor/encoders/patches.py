"""Prepared images of their final size -> patches and token ids of the Qwen2-VL family, made on the device.

Shape suffixes: N images, K prompts, A axes of rotary positions, T tokens, P patches, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens, normalisation, split_prompts
from iqa_core.assessor.prompts.chat import adds_special_tokens, with_visual_tokens


@dataclass(frozen=True)
class Patching:
    """Normalising and cutting as the Qwen2-VL family's image processors do it, on any device."""

    side: int
    """Side of a patch, pixels."""
    merge: int
    """Patches along a side of what becomes one visual token."""
    frames: int
    """How often each patch is repeated along the time axis."""
    scale_C: torch.Tensor
    shift_C: torch.Tensor

    @classmethod
    def of(cls, settings: Any, device: torch.device) -> Patching:
        """The patching of a checkpoint's image processor."""
        sides = int(settings.patch_size), int(settings.merge_size), int(settings.temporal_patch_size)
        return cls(*sides, *normalisation(settings, device))

    def grid(self, pixels_HWC: NDArray[np.uint8]) -> tuple[int, int]:
        """Rows and columns of patches."""
        return pixels_HWC.shape[0] // self.side, pixels_HWC.shape[1] // self.side

    def visual_tokens(self, grid: tuple[int, int]) -> int:
        """Tokens of an image with a grid of so many rows and columns of patches."""
        return grid[0] * grid[1] // self.merge**2

    def __call__(self, pixels_HWC: NDArray[np.uint8]) -> torch.Tensor:
        """Normalised patches (P, C * frames * side * side), float32; patches of one token are neighbours."""
        side, merge = self.side, self.merge
        rows, columns = (length // (side * merge) for length in pixels_HWC.shape[:2])
        image = torch.from_numpy(np.require(pixels_HWC, requirements="W")).to(self.scale_C.device)
        blocks = image.reshape(rows, merge, side, columns, merge, side, 3).permute(0, 3, 1, 4, 6, 2, 5)
        values = blocks.float().mul_(self.scale_C[:, None, None]).add_(self.shift_C[:, None, None])
        frames = values.flatten(0, 3)[:, :, None].expand(-1, -1, self.frames, -1, -1)
        return frames.flatten(1)


class PatchEncoder(Encoder):
    """An `Encoder` for the Qwen2-VL family, which takes images that `SmartResizePreparer` prepared.

    Models of the family see each image as two equal frames; `PackedTower` sees one.
    """

    def __init__(self, processor: Any, prompts_K: Sequence[str], model: Any) -> None:
        self._processor = processor
        self._prompts_K = prompts_K
        self._model = model
        self.image_token: int = model.config.image_token_id
        self.patching_of_model = self.patching = Patching.of(processor.image_processor, model.device)
        self._adds_special = adds_special_tokens(processor.tokenizer, prompts_K[0])
        self._known: dict[tuple[int, int], PromptTokens] = {}

    def encoded(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        """See `Encoder.encoded`."""
        grids = [self.patching.grid(pixels) for pixels in images]
        patches = torch.cat([self.patching(pixels) for pixels in images])
        grid_N3 = torch.tensor([(1, *grid) for grid in grids])
        return EncodedBatch(
            tuple(self.tokens(grid) for grid in grids),
            {"pixel_values": patches.to(self._model.dtype), "image_grid_thw": grid_N3},
        )

    def tokens(self, grid: tuple[int, int]) -> PromptTokens:
        """All prompts around an image with a grid of so many rows and columns of patches; made once per grid."""
        if grid not in self._known:
            self._known[grid] = self._tokens(grid)
        return self._known[grid]

    def _tokens(self, grid: tuple[int, int]) -> PromptTokens:
        tokenizer, token_id = self._processor.tokenizer, self.image_token
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
        """Rotary positions (A, length of prefix), computed by the model's own function."""
        positions_A1T, _ = self._model.model.get_rope_index(
            torch.tensor([prefix]),
            **{name: torch.tensor([values]) for name, values in types.items()},
            image_grid_thw=torch.tensor([(1, *grid)]),
        )
        return torch.as_tensor(positions_A1T[:, 0])
