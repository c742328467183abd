"""Logits of the next token, and how it is chosen -> the next token of each row.

What transformers' `generate` calls logits processors, in its order: penalties, then tokens that are never written, then
temperature, top-k, top-p, min-p. Nothing is taken from a checkpoint's generation_config.json.

Shape suffixes: R rows, V tokens of the vocabulary, C candidates, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from iqa_core.assessor.model.generation.noise import gumbel
from iqa_core.rubrics.written import Decoding


class NextTokens:
    """Chooses the next tokens of rows, and remembers which tokens each row has, as far as penalties need it."""

    def __init__(self, decoding: Decoding, suppressed: Sequence[int], vocabulary: int, device: torch.device) -> None:
        """suppressed: ids of tokens that are never written, such as the image's placeholder."""
        self._decoding = decoding
        self._vocabulary = vocabulary
        self._device = device
        self._suppressed = torch.tensor(sorted(suppressed), dtype=torch.int64, device=device)
        self._prompted_RV = self._written_RV = torch.zeros((0, vocabulary), dtype=torch.bool, device=device)

    def begin(self, prompts_R: Sequence[Sequence[int]]) -> None:
        """Start with rows that have these prompts behind them and have written nothing."""
        if self._decoding.repetition_penalty != 1:
            self._prompted_RV = self._marked(prompts_R)
        if self._decoding.presence_penalty != 0:
            self._written_RV = self._marked([()] * len(prompts_R))

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self._prompted_RV = self._prompted_RV[rows] if len(self._prompted_RV) else self._prompted_RV
        self._written_RV = self._written_RV[rows] if len(self._written_RV) else self._written_RV

    def __call__(self, logits_RV: torch.Tensor, keys_R: Sequence[int], step: int) -> torch.Tensor:
        """Ids (R,) of the next tokens. keys_R: of each row's sample; step: tokens that it has written before."""
        allowed_RV = self._allowed(logits_RV.float())
        chosen_R = self._chosen(allowed_RV, keys_R, step)
        for marked_RV in (self._prompted_RV, self._written_RV):
            if len(marked_RV):
                marked_RV[torch.arange(len(chosen_R), device=self._device), chosen_R] = True
        return chosen_R

    def _allowed(self, logits_RV: torch.Tensor) -> torch.Tensor:
        penalty = self._decoding.repetition_penalty
        if len(self._prompted_RV):
            penalised = torch.where(logits_RV > 0, logits_RV / penalty, logits_RV * penalty)
            logits_RV = torch.where(self._prompted_RV, penalised, logits_RV)
        if len(self._written_RV):
            logits_RV = logits_RV - self._written_RV * self._decoding.presence_penalty
        return logits_RV.index_fill(1, self._suppressed, -math.inf) if len(self._suppressed) else logits_RV

    def _chosen(self, logits_RV: torch.Tensor, keys_R: Sequence[int], step: int) -> torch.Tensor:
        if self._decoding.temperature == 0:
            return logits_RV.argmax(-1)
        ids_RC, drawn_RC = self._candidates(logits_RV / self._decoding.temperature)
        best_R = (drawn_RC + gumbel(keys_R, step, ids_RC)).argmax(-1, keepdim=True)
        return ids_RC.gather(1, best_R)[:, 0]

    def _candidates(self, logits_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids (R, C) of tokens that may be drawn, and their logits (R, C), -inf where they may not after all."""
        one = self._decoding
        if one.top_k == 0 and one.top_p == 1 and one.min_p == 0:
            return torch.arange(self._vocabulary, device=self._device).expand_as(logits_RV), logits_RV
        count = min(one.top_k or self._vocabulary, self._vocabulary)
        logits_RC, ids_RC = logits_RV.topk(count, dim=-1)
        probabilities_RC = logits_RC.softmax(-1)
        before_RC = probabilities_RC.cumsum(-1) - probabilities_RC
        is_out_RC = (before_RC >= one.top_p) | (probabilities_RC < one.min_p * probabilities_RC[:, :1])
        is_out_RC[:, 0] = False
        return ids_RC, logits_RC.masked_fill(is_out_RC, -math.inf)

    def _marked(self, ids_RT: Sequence[Sequence[int]]) -> torch.Tensor:
        marked_RV = torch.zeros((len(ids_RT), self._vocabulary), dtype=torch.bool)
        for row, ids in zip(marked_RV, ids_RT, strict=True):
            row[list(ids)] = True
        return marked_RV.to(self._device)
