"""Packed attention against one dense call under a mask."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from iqa_core.assessor.ovis2_5.attention import Parts, attend, packed_attention

CPU = torch.device("cpu")


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, part_T: torch.Tensor) -> torch.Tensor:
    mask = part_T[:, None] == part_T[None]
    q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(0, 1)


def as_parts(numbers: list[int]) -> torch.Tensor:
    """Any numbers -> 0 and up, each of them used."""
    return torch.tensor(numbers).unique(return_inverse=True)[1]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.sampled_from([1, 3]))
def test_every_token_sees_its_own_part_and_nothing_else(numbers: list[int], heads: int) -> None:
    """Parts in any order, scattered or whole, of any lengths."""
    part_T = as_parts(numbers)
    q, k, v = torch.randn(3, len(part_T), heads, 8, generator=torch.Generator().manual_seed(len(numbers)))
    torch.testing.assert_close(attend(q, k, v, Parts.of(part_T, CPU)), masked(q, k, v, part_T), atol=1e-5, rtol=1e-5)


def test_parts_of_a_length_are_one_group_and_nothing_moves_when_they_are_adjacent() -> None:
    parts = Parts.of(as_parts([0, 0, 1, 1, 2, 2, 2]), CPU)
    assert parts.groups == ((2, 2), (1, 3))
    assert parts.bounds.tolist() == [0, 2, 4, 7]
    assert parts.order_T is None
    assert parts.back_T is None


def test_parts_out_of_order_are_moved_and_moved_back() -> None:
    parts = Parts.of(as_parts([0, 0, 0, 1, 1, 2, 2, 2]), CPU)
    assert parts.groups == ((1, 2), (2, 3))
    assert parts.order_T is not None
    assert parts.back_T is not None
    assert parts.order_T.tolist() == [3, 4, 0, 1, 2, 5, 6, 7]
    assert parts.order_T[parts.back_T].tolist() == list(range(8))


def test_the_installed_torch_has_the_packed_kernel_with_a_fixed_order_of_summation() -> None:
    """Else a GPU would silently take the slower way."""
    packed = packed_attention()
    assert packed is not None
    names = list(signature(packed.func).parameters)  # type: ignore[attr-defined]
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_packed_kernel_agrees_with_the_mask() -> None:
    device = torch.device("cuda")
    part_T = as_parts([0] * 100 + [1] * 36 + [2] * 100 + [3] * 7)
    q, k, v = torch.randn(3, len(part_T), 4, 72, device=device, dtype=torch.bfloat16)
    expected = masked(q.float(), k.float(), v.float(), part_T.to(device))
    torch.testing.assert_close(attend(q, k, v, Parts.of(part_T, device)).float(), expected, atol=0.03, rtol=0)
