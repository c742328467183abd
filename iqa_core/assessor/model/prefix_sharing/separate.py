"""Encoded images -> level logits by one forward per prompt, as the model itself would be asked.

Shape suffixes: N images, K questions, V rows of the output matrix that are kept, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder
from iqa_core.assessor.model.prefix_sharing.masks import whole_arguments
from iqa_core.assessor.model.prefix_sharing.strategy import Strategy


class SeparatePrompts(Strategy):
    """One forward for each prompt of the images, nothing shared: what the other strategies are compared with."""

    def __init__(self, model: Any, encoders: Sequence[Encoder] = ()) -> None:
        super().__init__(model)  # with its own tower, whatever makes the pixels

    @torch.inference_mode()
    def logits(self, batch: EncodedBatch) -> torch.Tensor:
        """See `Strategy.logits`."""
        return torch.stack([self._logits(batch, k) for k in range(batch.num_questions)], dim=1)

    def _logits(self, batch: EncodedBatch, k: int) -> torch.Tensor:
        tokens = self._tokens(batch.prompts, [prompt.suffixes[k] for prompt in batch.prompts])
        lengths_N = tokens["attention_mask"].sum(dim=1)
        self.count.real += int(lengths_N.sum())
        self.count.padding += tokens["attention_mask"].numel() - int(lengths_N.sum())
        if batch.prompts[0].views is not None:
            asked = [prompt.asking([k]) for prompt in batch.prompts]
            tokens |= whole_arguments(asked, self._model.dtype, self._model.device)
        logits_NTV = self._model(**tokens, **self._pixels(batch), use_cache=False).logits
        return logits_NTV[torch.arange(len(lengths_N)), lengths_N - 1].cpu()
