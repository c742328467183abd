"""A model on its device -> names for its versions, and the memory and arithmetic that suit the device."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import transformers

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt, from glibc's malloc.h."""

CPU_BATCH_TOKENS = 2048
"""Largest batch on a CPU, whose caches a larger one overflows: 206 ms per image of 585 tokens alone, 183 in pairs, 185
in fours, 197 in eights (one thread, 7.4 million parameters)."""


def versions_of(model: Any) -> dict[str, str]:
    """Names of a model's device and the versions of torch and transformers."""
    name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    return {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}


def bounded_batch_tokens(batch_tokens: int, device: torch.device) -> int:
    """Tokens of one batch that suit the device, at most those that are asked for."""
    return min(batch_tokens, CPU_BATCH_TOKENS) if device.type == "cpu" else batch_tokens


@contextmanager
def without_denormals() -> Iterator[None]:
    """Floats below 1e-38 are zero inside: attention whose softmax made many took 126 ms on a CPU instead of 12."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks: allocating them anew took a tenth of the time, 8,500 page faults an image."""
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_MMAP_THRESHOLD, 2**30)
