"""Prompts with views -> the masks under which a model's own forward keeps their suffixes to what they may see.

Where nothing is gathered, as `fast/packing` does, a view is a mask of four dimensions. What the packed way gives is
held against it. Shape suffixes: N images, R rows of a forward, P tokens of a prefix, T tokens of a prompt or suffix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from iqa_core.assessor.encoders.base import PromptTokens


def whole_arguments(
    prompts: Sequence[PromptTokens], dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """Mask (N, 1, T, T) and rotary positions of prompts with one suffix each, padded on the right.

    The positions come along because models count them from a mask of two dimensions.
    """
    positions = [_positions(prompt.whole()) for prompt in prompts]
    width = max(one.shape[-1] for one in positions)
    seen_NTT = torch.stack([_padded(_seen_by_all(prompt), width, width) for prompt in prompts])
    return {
        "attention_mask": _additive(seen_NTT, dtype).to(device),
        "position_ids": torch.stack([pad(one, (0, width - one.shape[-1])) for one in positions], dim=-2).to(device),
    }


def suffix_mask(
    rows: Sequence[tuple[PromptTokens, int]], num_before: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Mask (R, 1, T, P + T) of suffixes, by prompt and number, behind prefixes padded on the left to `num_before`."""
    width = max(len(prompt.suffixes[k]) for prompt, k in rows)
    seen = []
    for prompt, k in rows:
        padding = num_before - len(prompt.prefix)
        seen.append(_padded(pad(_seen_by_suffix(prompt, k), (padding, 0)), width, num_before + width))
    return _additive(torch.stack(seen), dtype).to(device)


def _seen_by_suffix(prompt: PromptTokens, k: int) -> torch.Tensor:
    """Which tokens each token of a suffix sees, (T, P + T): those of its view, and its own up to itself."""
    assert prompt.views is not None, "no mask is needed without views"
    own = len(prompt.suffixes[k])
    view_P = torch.zeros(len(prompt.prefix), dtype=torch.bool)
    view_P[list(prompt.views[k])] = True
    return torch.cat([view_P.expand(own, -1), torch.ones(own, own, dtype=torch.bool).tril()], dim=1)


def _seen_by_all(prompt: PromptTokens) -> torch.Tensor:
    """Which tokens each token of a prompt with one suffix sees, (T, T)."""
    num_prefix = len(prompt.prefix)
    before = torch.ones(num_prefix, num_prefix, dtype=torch.bool).tril()
    behind = _seen_by_suffix(prompt, 0)
    return torch.cat([pad(before, (0, len(behind))), behind])


def _padded(seen_TT: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The mask with rows below and columns on the right; a row of padding sees nothing, and is never read."""
    return pad(seen_TT, (0, width - seen_TT.shape[1], 0, height - seen_TT.shape[0]))


def _additive(seen_NTT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention's logits: 0, or the least number of the dtype, since -inf in a whole row gives NaN."""
    return torch.where(seen_NTT, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]


def _positions(prompt: PromptTokens) -> torch.Tensor:
    """Rotary positions: (T,) where they are 0, 1, 2, …, else (A, T)."""
    return torch.arange(len(prompt.prefix)) if prompt.positions is None else prompt.positions
