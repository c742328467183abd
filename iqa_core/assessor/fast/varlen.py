"""Many sequences of different lengths, one after another -> attention inside each, in one call on a GPU.

The kernel is torch's (torch.nn.attention.varlen, since 2.11), for half precision on NVIDIA cards since Ampere. Keys
must not be split among its blocks: into how many would depend on the rest of the batch, and an image's score must not.
A kernel that cannot be told so splits keys only where each sequence is a single query, which prompts and images never
are.

Shape suffixes: S queries and T keys of all sequences, H heads, G heads of keys and values, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch

MAX_WIDTH, WIDTH_STEP = 256, 8
"""Of a head, as the kernel takes them."""


@dataclass(frozen=True)
class Ends:
    """Where sequences begin and end, on the device: 32-bit, one more than there are sequences."""

    query: torch.Tensor
    key: torch.Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, query_sizes: Sequence[int], key_sizes: Sequence[int], device: torch.device) -> Ends:
        query, key = (torch.tensor([0, *sizes]).cumsum(0).to(device, torch.int32) for sizes in (query_sizes, key_sizes))
        return cls(query, key, max(query_sizes), max(key_sizes))


def takes_varlen(heads_SHE: torch.Tensor) -> bool:
    """Whether there is a kernel for such queries."""
    width = heads_SHE.shape[-1]
    return (
        heads_SHE.is_cuda
        and heads_SHE.dtype in (torch.bfloat16, torch.float16)
        and width % WIDTH_STEP == 0
        and width <= MAX_WIDTH
        and torch.cuda.get_device_capability(heads_SHE.device) >= (8, 0)
        and "window_size" in _parameters()
    )


def attend_varlen(
    ends: Ends,
    query_SHE: torch.Tensor,
    key_TGE: torch.Tensor,
    value_TGE: torch.Tensor,
    scale: float,
    *,
    is_causal: bool,
) -> torch.Tensor:
    """Shape (S, H, E); causality is counted from the ends of queries and keys. A head's numbers must be neighbours."""
    settings = dict(_unsplit(query_SHE.device))
    if "enable_gqa" in _parameters():  # before, fewer heads of keys needed no word
        settings["enable_gqa"] = query_SHE.shape[1] != key_TGE.shape[1]
    attended: torch.Tensor = _kernel()(
        query_SHE,
        key_TGE,
        value_TGE,
        ends.query,
        ends.key,
        ends.longest_query,
        ends.longest_key,
        scale=scale,
        window_size=(-1, 0) if is_causal else (-1, -1),
        **settings,
    )
    return attended


def _kernel() -> Any:
    from torch.nn.attention import varlen

    return varlen.varlen_attn


@cache
def _parameters() -> frozenset[str]:
    """What torch's function can be told; nothing where it has none."""
    try:
        return frozenset(signature(_kernel()).parameters)
    except ImportError:
        return frozenset()


@cache
def _unsplit(device: torch.device) -> dict[str, int]:
    """How the kernel is told not to split keys, tried on two tokens: some builds know the word and refuse it."""
    if "num_splits" not in _parameters():
        return {}
    heads = torch.zeros(2, 1, WIDTH_STEP, dtype=torch.bfloat16, device=device)
    ends = torch.tensor([0, 2], dtype=torch.int32, device=device)
    try:
        _kernel()(heads, heads, heads, ends, ends, 2, 2, num_splits=1)
    except RuntimeError:
        return {}
    return {"num_splits": 1}
