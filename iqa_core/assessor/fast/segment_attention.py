"""A flat sequence of many images' patches -> attention inside each image or window, without padding.

It is one call on a GPU in half precision (varlen), elsewhere one dense call per distinct length. Measured on two busy
CPU cores, for one layer, medians of 5 or 7, against one call per image, jagged nested tensors, and one call under a
block mask:

| images (patches each), heads x width of a head | by length | by image | nested | mask |
|---|---|---|---|---|
| 8 x 784, 8 x 32, float32 | 121 ms | 192 ms | | 1111 ms |
| 8 x 784, 8 x 32, bfloat16 | 124 ms | 180 ms | | 915 ms |
| 7 sizes of 640 to 1300, 8 x 32, float32 | 230 ms | 200 ms | | 1248 ms |
| 8 x 784, 4 x 12, float32 | 105 ms | 207 ms | 1520 ms | 490 ms |
| 80 windows of 36, 8 x 32, float32 | 16 ms | 484 ms | 796 ms | 223 ms |

Shape suffixes: S patches of all images, H heads, E width of a head, B segments of one length, L patches of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch.nn import functional

from iqa_core.assessor.fast.varlen import Ends, attend_varlen, takes_varlen


@dataclass(frozen=True)
class Group:
    """Segments of one length: a slice of rows, or an index where they are not consecutive."""

    length: int
    rows: slice | torch.Tensor


@dataclass(frozen=True)
class Segments:
    """Lengths of images or windows that lie one after another.

    Cached tensors are created outside of inference mode, so that training can reuse those that scoring made.
    """

    lengths: tuple[int, ...]
    device: torch.device

    @cached_property
    @torch.inference_mode(False)
    def ends(self) -> Ends:
        """The segments' limits, for attention in one call."""
        return Ends.of(self.lengths, self.lengths, self.device)

    @cached_property
    @torch.inference_mode(False)
    def groups(self) -> tuple[Group, ...]:
        """Segments by length, the shortest first."""
        lengths_B = torch.tensor(self.lengths)
        begins_B = lengths_B.cumsum(0) - lengths_B
        groups = []
        for length in sorted(set(self.lengths)):
            rows_S = (begins_B[lengths_B == length, None] + torch.arange(length)).flatten()
            first, count = int(rows_S[0]), len(rows_S)
            is_run = int(rows_S[-1]) - first + 1 == count
            groups.append(Group(length, slice(first, first + count) if is_run else rows_S.to(self.device)))
        return tuple(groups)


@lru_cache(maxsize=128)
def segments_of(lengths: tuple[int, ...], device: torch.device) -> Segments:
    """The segments of these lengths on a device, made once for all batches that have them."""
    return Segments(lengths, device)


def attend_segments(
    segments: Segments, query_SHE: torch.Tensor, key_SHE: torch.Tensor, value_SHE: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention of every patch to all patches of its own segment, shape (S, H, E)."""
    if takes_varlen(query_SHE):
        return attend_varlen(segments.ends, query_SHE, key_SHE, value_SHE, scale, is_causal=False)
    if len(segments.groups) == 1:
        return _attend_group(segments.groups[0], query_SHE, key_SHE, value_SHE, scale)
    attended = torch.empty_like(value_SHE, memory_format=torch.contiguous_format)
    for group in segments.groups:
        attended[group.rows] = _attend_group(group, query_SHE, key_SHE, value_SHE, scale)
    return attended


def _attend_group(
    group: Group, query_SHE: torch.Tensor, key_SHE: torch.Tensor, value_SHE: torch.Tensor, scale: float
) -> torch.Tensor:
    query_BHLE, key_BHLE, value_BHLE = (
        part[group.rows].unflatten(0, (-1, group.length)).transpose(1, 2) for part in (query_SHE, key_SHE, value_SHE)
    )
    attended_BHLE = functional.scaled_dot_product_attention(query_BHLE, key_BHLE, value_BHLE, scale=scale)
    return attended_BHLE.transpose(1, 2).flatten(0, 1)
