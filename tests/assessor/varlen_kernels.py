"""What torch documents of `torch.nn.attention.varlen.varlen_attn`, computed on the CPU; told what torch 2.11 can be."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def attend_each(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert window_size in ((-1, -1), (-1, 0))
    attended = torch.empty_like(query)
    bounds = (ends.unfold(0, 2, 1).tolist() for ends in (cu_seq_q, cu_seq_k))
    for (q0, q1), (k0, k1) in zip(*bounds, strict=True):
        assert 0 < q1 - q0 <= max_q
        assert 0 < k1 - k0 <= max_k
        seen = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool)
        seen = seen.tril(k1 - k0 - (q1 - q0)) if window_size == (-1, 0) else seen
        own, keys, values = (part.transpose(0, 1)[None] for part in (query[q0:q1], key[k0:k1], value[k0:k1]))
        found = scaled_dot_product_attention(own, keys, values, attn_mask=seen, scale=scale, enable_gqa=True)
        attended[q0:q1] = found[0].transpose(0, 1)
    return attended
