"""One batch of encoded images and a model -> level logits: what all strategies have in common.

Shape suffixes: N images, K questions, V rows of the output matrix that are kept, T tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch.nn.utils.rnn import pad_sequence

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens
from iqa_core.assessor.encoders.patches import PatchEncoder
from iqa_core.assessor.fast.packed_tower import PackedTower


@dataclass
class TokenCount:
    """Tokens that went through the language model, padding apart."""

    real: int = 0
    padding: int = 0

    @property
    def waste(self) -> float:
        """Padding as a share of all, 0 to 1."""
        return self.padding / max(self.real + self.padding, 1)


class FastTower:
    """The vision tower of a model of the Qwen2-VL family, replaced by ours."""

    def __init__(self, model: Any, encoders: Sequence[PatchEncoder]) -> None:
        self._visual = model.model.visual
        self._tower = PackedTower(self._visual)
        self._encoders = encoders
        self._visual.forward = self._tower.forward
        for encoder in encoders:
            self.take(encoder)

    @classmethod
    def of(cls, model: Any, encoders: Sequence[Encoder]) -> FastTower | None:
        """None for a model whose images are not encoded as patches."""
        of_patches = [encoder for encoder in encoders if isinstance(encoder, PatchEncoder)]
        return cls(model, of_patches) if of_patches else None

    def take(self, encoder: Encoder) -> None:
        """Make an encoder of the model encode for our tower."""
        if isinstance(encoder, PatchEncoder):
            encoder.patching = replace(encoder.patching_of_model, frames=1)

    def release(self) -> None:
        """Free the weights that were copied, so the model's own tower is gone for good."""
        self._tower.release()

    def undo(self) -> None:
        """Put the model's own tower back."""
        del self._visual.forward
        for encoder in self._encoders:
            encoder.patching = encoder.patching_of_model


class Strategy(ABC):
    """How one batch goes through a model whose output matrix is a LevelHead."""

    pads = True
    """Rows of a batch are padded to the longest."""

    def __init__(self, model: Any, encoders: Sequence[Encoder] = ()) -> None:
        """Take the model's own vision tower, or replace it by ours where encoders are given that make patches."""
        self._model = model
        self._tower = FastTower.of(model, encoders)
        self.count = TokenCount()

    @classmethod
    def of(cls, model: Any, encoders: Sequence[Encoder]) -> Self | None:
        """The strategy for a model and the encoders of its rubrics; None where it cannot fit.

        It may replace parts of the model, see `undo`.
        """
        return cls(model, encoders)

    def commit(self) -> Self:
        """Keep the strategy: count tokens from now on, and free weights that only the other strategies need."""
        self.count = TokenCount()
        if self._tower is not None:
            self._tower.release()
        return self

    def undo(self) -> None:
        """Drop the strategy: put back what it replaced in the model."""
        if self._tower is not None:
            self._tower.undo()

    @abstractmethod
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """Logits of the kept rows at the end of every prompt, float32 on the CPU, shape (N, K, V)."""

    def _padded(self, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
        """Rows padded on the right, on the device."""
        return pad_sequence([torch.tensor(one) for one in sequences], batch_first=True).to(self._model.device)

    def _pixels(self, batch: EncodedBatch) -> dict[str, torch.Tensor]:
        """All tensors on the device for a tower of transformers; ours reads sizes on the CPU, without waiting."""
        if self._tower is not None:
            return dict(batch.pixels)
        return {name: value.to(self._model.device) for name, value in batch.pixels.items()}

    def _tokens(
        self, prompts: Sequence[PromptTokens], ends: Sequence[Sequence[int]], *, with_types: bool = True
    ) -> dict[str, torch.Tensor]:
        """Arguments with one entry per token, for prefixes followed by `ends`, padded on the right."""
        whole = [[*prompt.prefix, *end] for prompt, end in zip(prompts, ends, strict=True)]
        names = prompts[0].types if with_types else ()
        types = {
            name: [[*prompt.types[name], *[0] * len(end)] for prompt, end in zip(prompts, ends, strict=True)]
            for name in names
        }
        mask = self._padded([[1] * len(tokens) for tokens in whole])
        rows = {"input_ids": whole, **types}
        return {**{name: self._padded(row) for name, row in rows.items()}, "attention_mask": mask}
