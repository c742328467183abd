"""Attention in one call, with stand-ins for the kernels of several versions of torch; and on a GPU where there is one.

A stand-in computes what torch documents of `varlen_attn`, on the CPU, and takes what that version takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import signature
from typing import Any

import pytest
import torch

from iqa_core.assessor.fast import packing, segment_attention, varlen
from iqa_core.assessor.fast.packing import PromptLengths, packing_of
from iqa_core.assessor.fast.segment_attention import attend_segments, segments_of
from tests.assessor.varlen_kernels import attend_each

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LENGTHS = (5, 2, 2, 7)
PROMPTS = (PromptLengths(6, (3, 2)), PromptLengths(4, (1, 5)))


def of_torch_2_13(
    *heads_and_ends: Any,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    num_splits: int | None = None,
) -> torch.Tensor:
    assert num_splits == 1
    query, key, *_ = heads_and_ends
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError("as many heads of keys as of queries, or enable_gqa")
    return attend_each(*heads_and_ends, scale=scale, window_size=window_size)


@wraps(of_torch_2_13)
def of_a_build_that_cannot_be_told(
    *heads_and_ends: Any, num_splits: int | None = None, **settings: Any
) -> torch.Tensor:
    if num_splits is not None:
        raise RuntimeError("num_splits requires another kernel")
    return of_torch_2_13(*heads_and_ends, num_splits=1, **settings)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What is known of torch's function is found out anew, before and after."""
    for cached in (varlen._parameters, varlen._unsplit):
        cached.cache_clear()
    yield
    for cached in (varlen._parameters, varlen._unsplit):
        cached.cache_clear()


@pytest.fixture(params=[attend_each, of_torch_2_13, of_a_build_that_cannot_be_told])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Callable[..., torch.Tensor] = request.param
    monkeypatch.setattr(varlen, "_kernel", lambda: kernel)


def heads_of(count: int, *heads: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(count, number, 8, generator=generator) for number in heads]


@pytest.mark.usefixtures("_kernel")
def test_segments_in_one_call_are_segments_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    known = segments_of(LENGTHS, CPU)
    query, key, value = heads_of(sum(LENGTHS), 3, 3, 3)
    expected = attend_segments(known, query, key, value, 0.5)
    monkeypatch.setattr(segment_attention, "takes_varlen", lambda _: True)
    torch.testing.assert_close(attend_segments(known, query, key, value, 0.5), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("_kernel")
def test_prompts_in_one_call_are_prompts_image_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer heads of keys than of queries."""
    packed = packing_of(PROMPTS, CPU)
    query, key, value = heads_of(packed.begins[-1], 4, 2, 2)
    expected = packing.attend(packed, query, key, value, 0.5)
    monkeypatch.setattr(packing, "takes_varlen", lambda _: True)
    torch.testing.assert_close(packing.attend(packed, query, key, value, 0.5), expected, atol=1e-5, rtol=1e-5)


def test_a_cpu_has_no_kernel() -> None:
    assert not varlen.takes_varlen(torch.zeros(2, 1, 8, dtype=torch.bfloat16))


def test_the_installed_torch_has_the_kernel_with_a_fixed_order_of_summation() -> None:
    """Else a GPU would silently go the slower way."""
    names = list(signature(varlen._kernel()).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"scale", "window_size", "enable_gqa", "num_splits"} <= varlen._parameters()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("width", [72, 80, 128])
def test_the_kernel_of_a_gpu_is_the_stand_in(width: int) -> None:
    """Widths of heads of Ovis2.5's and Qwen2.5-VL's towers and of their language models; heads as views of a whole."""
    device = torch.device("cuda")
    packed = packing_of(PROMPTS, device)
    whole = torch.randn(packed.begins[-1], 8, width, device=device, dtype=torch.bfloat16)
    query, key, value = whole.split([4, 2, 2], dim=1)
    assert varlen.takes_varlen(query)
    plain = whole.float().cpu().split([4, 2, 2], dim=1)
    expected = packing.attend(packing_of(PROMPTS, CPU), plain[0], plain[1], plain[2], 0.1)
    found = packing.attend(packed, query, key, value, 0.1).float().cpu()
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_segments_on_a_gpu_are_those_of_the_cpu() -> None:
    device, lengths = torch.device("cuda"), (100, 36, 100, 7)
    query, key, value = torch.randn(3, sum(lengths), 4, 72, device=device, dtype=torch.bfloat16)
    plain = [part.float().cpu() for part in (query, key, value)]
    expected = attend_segments(segments_of(lengths, CPU), plain[0], plain[1], plain[2], 0.1)
    found = attend_segments(segments_of(lengths, device), query, key, value, 0.1).float().cpu()
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
