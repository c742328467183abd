"""Attention inside segments against one dense call under a mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from iqa_core.assessor.fast.segment_attention import attend_segments, segments_of

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=12).map(tuple)


def masked(lengths: tuple[int, ...], query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    segment_S = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    seen = segment_S[:, None] == segment_S[None]
    query, key, value = (part.transpose(0, 1) for part in (query, key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=0.5).transpose(0, 1)


@settings(max_examples=40)
@given(LENGTHS, st.sampled_from([1, 3]))
def test_every_patch_sees_its_own_segment_and_nothing_else(lengths: tuple[int, ...], heads: int) -> None:
    query, key, value = torch.randn(3, sum(lengths), heads, 8, generator=torch.Generator().manual_seed(len(lengths)))
    attended = attend_segments(segments_of(lengths, CPU), query, key, value, 0.5)
    torch.testing.assert_close(attended, masked(lengths, query, key, value), atol=1e-5, rtol=1e-5)


def test_segments_of_a_length_are_one_group_and_nothing_is_gathered_where_they_are_neighbours() -> None:
    first, second = segments_of((3, 2, 2), CPU).groups
    assert (first.length, first.rows) == (2, slice(3, 7))
    assert (second.length, second.rows) == (3, slice(0, 3))


def test_scattered_segments_are_gathered() -> None:
    first, second = segments_of((2, 3, 2), CPU).groups
    assert isinstance(first.rows, torch.Tensor)
    assert first.rows.tolist() == [0, 1, 5, 6]
    assert second.rows == slice(2, 5)


def test_what_inference_has_kept_serves_training() -> None:
    """torch forbids gradients through tensors that were made in inference mode."""
    lengths = (2, 1, 2, 1, 5)
    query, key, value = torch.randn(3, sum(lengths), 1, 8).requires_grad_().unbind()
    with torch.inference_mode():
        attend_segments(segments_of(lengths, CPU), query, key, value, 0.5)
    attend_segments(segments_of(lengths, CPU), query, key, value, 0.5).sum().backward()
