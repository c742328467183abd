"""Prepared images and a rubric's prompts -> token ids and pixel tensors: what every encoder gives, and its parts.

`processor.py` is for any model: the checkpoint's own processor does all of it, once per image. The others normalise on
the device and make token ids without the processor: `patches.py` for the Qwen2-VL family, `tiles.py` for models that
cut a picture into tiles, `ovis2_5/encoder.py` for Ovis2.5.

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


def normalisation(settings: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and summand per channel, float32, that turn 8 bits into what an image processor's settings ask for."""
    factor = settings.rescale_factor if settings.do_rescale else 1.0
    mean_C = torch.tensor(settings.image_mean if settings.do_normalize else [0.0] * 3, dtype=torch.float64)
    std_C = torch.tensor(settings.image_std if settings.do_normalize else [1.0] * 3, dtype=torch.float64)
    return (factor / std_C).float().to(device), (-mean_C / std_C).float().to(device)
