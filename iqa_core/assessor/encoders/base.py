"""Prepared images and a rubric's prompts -> token ids and pixel tensors: the protocol of encoders, and their parts.

`processor.py` serves any model: the checkpoint's own processor encodes each image. The others normalise on the device
and make token ids without the processor: `patches.py` for the Qwen2-VL family, `tiles.py` for models that cut a picture
into tiles, `ovis2_5/encoder.py` for Ovis2.5.

Shape suffixes: N images, K prompts, A axes of rotary positions, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class PromptTokens:
    """Token ids of one image's K prompts: their common prefix, and the suffix of each (never empty)."""

    prefix: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    types: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Argument of the model, such as token types -> one value per token of the prefix; tokens of suffixes have 0."""
    positions: torch.Tensor | None = None
    """Rotary positions (A, length of prefix); None where they are 0, 1, 2, …"""

    @property
    def next_position(self) -> int:
        """Rotary position of the first token behind the prefix."""
        return len(self.prefix) if self.positions is None else int(self.positions.max()) + 1


@dataclass(frozen=True)
class EncodedBatch:
    """Prompts and pixels of a batch, as a model takes them."""

    prompts: tuple[PromptTokens, ...]
    pixels: Mapping[str, torch.Tensor]
    """Argument of the model -> tensor: pixels on the device; sizes on the CPU, where reading them waits for no GPU."""


class Encoder(Protocol):
    """Turns prepared images, each in the rubric's K prompts, into a batch."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch: ...


def split_prompts(prompts_K: Sequence[Sequence[int]]) -> PromptTokens:
    """Prompts split into their longest common prefix and their suffixes of at least one token."""
    shortest = min(len(prompt) for prompt in prompts_K) - 1
    differing = (j for j in range(shortest) if any(a[j] != b[j] for a, b in pairwise(prompts_K)))
    length = next(differing, shortest)
    return PromptTokens(tuple(prompts_K[0][:length]), tuple(tuple(prompt[length:]) for prompt in prompts_K))


def normalisation(settings: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and summand per channel, float32, that scale and normalise 8 bits by an image processor's settings."""
    factor = settings.rescale_factor if settings.do_rescale else 1.0
    mean_C = torch.tensor(settings.image_mean if settings.do_normalize else [0.0] * 3, dtype=torch.float64)
    std_C = torch.tensor(settings.image_std if settings.do_normalize else [1.0] * 3, dtype=torch.float64)
    return (factor / std_C).float().to(device), (-mean_C / std_C).float().to(device)
