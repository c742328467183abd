"""A key, a step and a token -> Gumbel noise: a sample then depends on its image alone, and not on its company.

Drawing from softmax(x) is taking the largest of x plus Gumbel noise. A generator with a state would give an image other
noise in another batch. This one counts: noise is a hash of key, step and token, the same on every device.

Shape suffixes: R rows, C candidate tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

STEP, TOKEN = -0x61C8864680B583EB, -0x2ECBDABC217D106B
"""Odd 64-bit factors, signed, so that a counter times one of them never repeats: 2^64 over the golden ratio, and a
multiplier of Steele and Vigna (2021)."""

FIRST_MIX, SECOND_MIX = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""Factors of splitmix64's output function (Steele, Lea, Flood 2014), as signed numbers of 64 bits."""

BITS = 23
"""Random bits of a uniform number: those, and a half, that float32 holds exactly below 1."""


def gumbel(keys_R: Sequence[int], step: int, ids_RC: torch.Tensor) -> torch.Tensor:
    """Gumbel noise (R, C), float32, from -2.8 to 16.6: of each row's candidate tokens at a step of its own sample.

    keys_R: from `iqa_core.written.keys`; step: number of tokens that were written before.
    """
    keys, count = (torch.tensor(value, dtype=torch.int64, device=ids_RC.device) for value in (list(keys_R), step + 1))
    states = _mixed(keys + count * STEP)[:, None] + (ids_RC.long() + 1) * TOKEN
    uniform = ((_mixed(states) >> (64 - BITS)) & (2**BITS - 1)).float().add(0.5).mul(2.0**-BITS)
    return uniform.log().neg().log().neg()


def _mixed(states: torch.Tensor) -> torch.Tensor:
    """splitmix64's output function; integers of 64 bits wrap."""
    states = (states ^ _shifted(states, 30)) * FIRST_MIX
    states = (states ^ _shifted(states, 27)) * SECOND_MIX
    return states ^ _shifted(states, 31)


def _shifted(states: torch.Tensor, bits: int) -> torch.Tensor:
    """Bits moved to the right, zeros from the left: `>>` of signed numbers repeats the sign."""
    return (states >> bits) & ((1 << (64 - bits)) - 1)
