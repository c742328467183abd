"""Prefixes of prompts -> a model's arguments with an entry per token, padded on the left.

That is exact: a window then reaches back over real tokens only, and a recurrent state is still zero where the first of
them comes. Shape suffixes: N images, A axes of rotary positions, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from iqa_core.assessor.encoders.base import PromptTokens


def prefix_arguments(prompts: Sequence[PromptTokens], width: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Ids, mask and types (N, T), and rotary positions (N, T) or (A, N, T). width: T, at least that of the longest."""
    rows = {name: [prompt.types[name] for prompt in prompts] for name in prompts[0].types}
    rows |= {
        "input_ids": [prompt.prefix for prompt in prompts],
        "attention_mask": [(1,) * len(prompt.prefix) for prompt in prompts],
    }
    tokens = {name: [_padded(torch.tensor(row), width) for row in of_name] for name, of_name in rows.items()}
    tokens["position_ids"] = [_padded(_positions(prompt), width) for prompt in prompts]
    return {name: torch.stack(of_name, dim=-2).to(device) for name, of_name in tokens.items()}


def _padded(values: torch.Tensor, width: int) -> torch.Tensor:
    return pad(values, (width - values.shape[-1], 0))


def _positions(prompt: PromptTokens) -> torch.Tensor:
    """Rotary positions of the prefix: (T,) where they are 0, 1, 2, …, else (A, T)."""
    return torch.arange(len(prompt.prefix)) if prompt.positions is None else prompt.positions
