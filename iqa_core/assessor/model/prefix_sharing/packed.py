"""Encoded images -> level logits in one forward, by our own decoder on the model's weights.

Shape suffixes: N images, K questions, V rows of the output matrix that are kept, A axes of rotary positions, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens
from iqa_core.assessor.fast.packed_decoder import PackedDecoder, is_packable
from iqa_core.assessor.fast.packing import PromptLengths, packing_of
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy


class PackedSequences(Strategy):
    """All prompts of all images as one flat sequence; images of different sizes cost no padding."""

    pads = False

    def __init__(self, model: Any, encoders: Sequence[Encoder]) -> None:
        """Replace the model's forwards, last of all: it is untouched if ours cannot be made of its weights."""
        self._decoder = model.get_decoder()
        self._packed = PackedDecoder(self._decoder)
        super().__init__(model, encoders)
        self._decoder.forward = self._packed.forward

    @classmethod
    def of(cls, model: Any, encoders: Sequence[Encoder]) -> Self | None:
        """None for a decoder that `PackedDecoder` does not compute; else the model's forwards are replaced by ours."""
        return cls(model, encoders) if is_packable(model.get_decoder()) else None

    def commit(self) -> Self:
        """Keep the strategy; weights that were copied are freed, so the model's own forward is gone for good."""
        self._packed.release()
        return super().commit()

    def undo(self) -> None:
        """Put the model's own forwards back."""
        del self._decoder.forward
        super().undo()

    @torch.inference_mode()
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """See `Strategy.logits`."""
        prompts = batch.prompts
        lengths = tuple(
            PromptLengths(len(prompt.prefix), tuple(map(len, prompt.suffixes)), prompt.views) for prompt in prompts
        )
        self.count.real += sum(length.total for length in lengths)
        self._packed.packing = packing_of(lengths, self._model.device)
        ends = [[token for suffix in prompt.suffixes for token in suffix] for prompt in prompts]
        tokens = self._tokens(prompts, ends, with_types=prompts[0].positions is None)
        if prompts[0].positions is not None:
            tokens["position_ids"] = self._positions(prompts, tokens["input_ids"].shape[1])
        return self._model(**tokens, **self._pixels(batch), use_cache=False).logits.cpu()

    def _pixels(self, batch: EncodedBatch) -> dict[str, torch.Tensor]:
        """Tensors as they are: our own towers read sizes on the CPU, without waiting for a GPU."""
        return dict(batch.pixels)

    def _positions(self, prompts: Sequence[PromptTokens], width: int) -> torch.Tensor:
        rows = []
        for prompt in prompts:
            assert prompt.positions is not None
            rest = prompt.next_position + torch.arange(width - len(prompt.prefix))
            rows.append(torch.cat([prompt.positions, rest.expand(len(prompt.positions), -1)], dim=1))
        return torch.stack(rows, dim=1).to(self._model.device)
