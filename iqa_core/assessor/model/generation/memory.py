"""A cache of a few prompts -> the memory that answers about an image take, and how many are written at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from iqa_core.assessor.batching import MAX_ROWS
from iqa_core.assessor.model.caches import states_of
from iqa_core.assessor.model.generation.shared_attention import can_share
from iqa_core.rubrics.written import Decoding

CPU_CACHE_BYTES = 2**31
"""Largest cache of the answers that are written at once, on a CPU, where their number is not given."""

FREE_SHARE = 0.5
"""The same on other devices, as a share of the memory that is free once a model is loaded."""

PROMPT_TOKENS = 1536
"""Tokens of a prompt, as memory for it is set aside: those of a picture of a megapixel."""


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """What one row of a layer's cache takes."""

    token_bytes: float
    """Keys and values of a token."""
    state_bytes: float
    """States of convolutions and of linear attention."""
    window: float
    """Tokens that are kept at most."""

    @classmethod
    def of(cls, layer: Any) -> LayerMemory:
        """That of a layer which holds some tokens."""
        tensors = [] if getattr(layer, "keys", None) is None else [layer.keys, layer.values]
        return cls(
            sum(tensor.nbytes / (len(tensor) * tensor.shape[2]) for tensor in tensors),
            sum(state.nbytes / len(state) for state in states_of(layer)),
            (getattr(layer, "sliding_window", None) or math.inf) - 1,  # as transformers keeps them
        )

    def row_bytes(self, tokens: float) -> float:
        """Bytes behind so many tokens."""
        return self.token_bytes * min(tokens, self.window) + self.state_bytes


@dataclass(frozen=True, slots=True)
class AnswerMemory:
    """What the answers about an image take when they end: a prompt once where layers share it, else once per answer."""

    decoding: Decoding
    shared: tuple[LayerMemory, ...]
    own: tuple[LayerMemory, ...]

    @classmethod
    def of(cls, cache: Any, decoding: Decoding, *, shares: bool) -> AnswerMemory:
        """cache: of a few prompts; shares: whether answers attend to one copy of their prompt where layers can."""
        shared, own = list[LayerMemory](), list[LayerMemory]()
        for layer in cache.layers:
            (shared if shares and can_share(layer) else own).append(LayerMemory.of(layer))
        return cls(decoding, tuple(shared), tuple(own))

    def image_bytes(self, prompt_tokens: int, most_written: int | None = None) -> float:
        """Bytes of an image's answers with a prompt of so many tokens. most_written: tokens of an answer at most."""
        samples, written = self.decoding.samples, most_written or self.decoding.max_new_tokens
        shared = sum(layer.row_bytes(prompt_tokens + samples * written) for layer in self.shared)
        return shared + samples * sum(layer.row_bytes(prompt_tokens + written) for layer in self.own)

    def rows_that_fit(self, device: torch.device) -> int:
        """Answers behind prompts of PROMPT_TOKENS that fit into the memory of a device, 1 to MAX_ROWS."""
        row_bytes = self.image_bytes(PROMPT_TOKENS) / self.decoding.samples
        return int(max(1, min(MAX_ROWS, _free_bytes(device) // max(row_bytes, 1))))


def _free_bytes(device: torch.device) -> float:
    return CPU_CACHE_BYTES if device.type == "cpu" else FREE_SHARE * torch.cuda.mem_get_info(device)[0]
