"""Many sequences of different lengths, one after another -> attention inside each, in one call on a GPU.

The kernel is torch's (torch.nn.attention.varlen, since 2.11), for half precision on NVIDIA GPUs since Ampere. It must
not split keys among its blocks: the number of parts would depend on the rest of the batch, and so would an image's
score. A kernel without that setting splits keys only for sequences of a single query, which prompts and images never
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
"""Widths of a head that the kernel takes: at most 256, in steps of 8."""


@dataclass(frozen=True)
class Ends:
    """Cumulative lengths of sequences from 0 on (cu_seqlens), 32-bit, on the device; one longer than their number."""

    query: torch.Tensor
    key: torch.Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, query_sizes: Sequence[int], key_sizes: Sequence[int], device: torch.device) -> Ends:
        """The ends of sequences with so many queries and keys each."""
        query, key = (torch.tensor([0, *sizes]).cumsum(0).to(device, torch.int32) for sizes in (query_sizes, key_sizes))
        return cls(query, key, max(query_sizes), max(key_sizes))


def takes_varlen(heads_SHE: torch.Tensor) -> bool:
    """Whether the kernel takes such queries: device, dtype, width and version of torch."""
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
    """Attention inside each sequence, shape (S, H, E). The numbers of a head must be neighbours in memory.

    is_causal: the last query of a sequence sees its last key, the query before it one key less, and so on.
    """
    settings = dict(_unsplit(query_SHE.device))
    if "enable_gqa" in _parameters():  # earlier versions take fewer heads of keys as they are
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
    """Names of the parameters of torch's function; none where torch has no such function."""
    try:
        return frozenset(signature(_kernel()).parameters)
    except ImportError:
        return frozenset()


@cache
def _unsplit(device: torch.device) -> dict[str, int]:
    """Arguments that keep the kernel from splitting keys; tried on two tokens, since some builds refuse them."""
    if "num_splits" not in _parameters():
        return {}
    heads = torch.zeros(2, 1, WIDTH_STEP, dtype=torch.bfloat16, device=device)
    ends = torch.tensor([0, 2], dtype=torch.int32, device=device)
    try:
        _kernel()(heads, heads, heads, ends, ends, 2, 2, num_splits=1)
    except RuntimeError:
        return {}
    return {"num_splits": 1}
