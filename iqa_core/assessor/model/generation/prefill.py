"""Encoded images -> what a model knows at the end of their prompts: its cache, and the logits of the first token.

Shape suffixes: N images, T tokens, V tokens of the vocabulary, A axes of rotary positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from iqa_core.assessor.encoders.base import EncodedBatch, PromptTokens
from iqa_core.assessor.model.caches import free_beyond_windows, joined
from iqa_core.assessor.model.left_padding import prefix_arguments


@dataclass
class Prefill:
    """Prompts of N images that went through a model."""

    cache: Any
    """The model's own: keys, values and states."""
    logits_NV: torch.Tensor
    """Logits of the first token of an answer."""
    mask_NT: torch.Tensor
    """1 where a prompt has a token, 0 where there is padding, on the left."""
    positions_N: torch.Tensor
    """Rotary position of the first token of an answer."""
    prompts: tuple[tuple[int, ...], ...]
    """Token ids."""
    num_axes: int | None
    """Axes of rotary positions; None where a model has positions without axes."""
    types: tuple[str, ...]
    """Names of arguments with an entry per token; answers have 0."""

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """All of their images, in order; prompts are of one width. The first is used up."""
        first = parts[0]
        tensors = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in ("logits_NV", "mask_NT", "positions_N")
        }
        prompts = tuple(prompt for part in parts for prompt in part.prompts)
        return cls(
            joined([part.cache for part in parts]),
            **tensors,
            prompts=prompts,
            num_axes=first.num_axes,
            types=first.types,
        )


def length(prompt: PromptTokens) -> int:
    """Tokens of a prompt with one question."""
    return len(prompt.prefix) + len(prompt.suffixes[0])


def prefill(model: Any, batch: EncodedBatch, pixels: Mapping[str, torch.Tensor], width: int) -> Prefill:
    """A batch whose prompts have one question each, through the model in one forward.

    pixels: arguments of the model; width: tokens to which prompts are padded, on the left.
    """
    prompts = [prompt.whole() for prompt in batch.prompts]
    tokens = prefix_arguments(prompts, width, model.device)
    output = model(**tokens, **pixels, use_cache=True, logits_to_keep=1)
    free_beyond_windows(output.past_key_values)
    return Prefill(
        output.past_key_values,
        output.logits[:, -1],
        tokens["attention_mask"],
        torch.tensor([prompt.next_position for prompt in prompts], device=model.device),
        tuple(prompt.prefix for prompt in prompts),
        None if prompts[0].positions is None else len(prompts[0].positions),
        tuple(prompts[0].types),
    )
