"""Prepared images and a rubric's prompts -> token ids and patches of Ovis2.5, made on the device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens, split_prompts
from iqa_core.assessor.ovis2_5.configuration import IMAGE_ID
from iqa_core.assessor.ovis2_5.patches import patchify
from iqa_core.assessor.ovis2_5.sizes import MERGE, PATCH


class Ovis2_5Encoder(Encoder):
    """An `Encoder` for Ovis2.5, which takes images that `Ovis2_5Preparer` prepared."""

    image_token = IMAGE_ID

    def __init__(self, processor: Any, prompts_K: Sequence[str], model: Any) -> None:
        self._settings = processor.image_processor
        self._model = model
        self._tokens = cache(
            lambda visual_tokens: split_prompts(processor.token_ids(prompts_K, [visual_tokens] * len(prompts_K)))
        )

    def encoded(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        """See `Encoder.encoded`."""
        grids = [(pixels.shape[0] // PATCH, pixels.shape[1] // PATCH) for pixels in images]
        patches = torch.cat([self.patches(pixels) for pixels in images])
        return EncodedBatch(
            tuple(self.tokens(grid) for grid in grids),
            {
                "pixel_values": patches.to(self._model.dtype),
                "grid_thws": torch.tensor([(1, *grid) for grid in grids]),
            },
        )

    def patches(self, pixels_HWC: NDArray[np.uint8]) -> torch.Tensor:
        """Normalised patches (P, 768), float32, on the model's device."""
        settings = self._settings
        pixels = torch.from_numpy(np.require(pixels_HWC, requirements="W")).to(self._model.device)
        return patchify(pixels, settings.image_mean, settings.image_std, settings.rescale_factor)

    def tokens(self, grid: tuple[int, int]) -> PromptTokens:
        """All prompts around an image with a grid of so many rows and columns of patches; made once per number."""
        return self._tokens(grid[0] * grid[1] // MERGE**2)
