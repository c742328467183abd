"""A model's output matrix -> the rows of the answers' first tokens, in float32.

The model's own forward applies its scale or soft cap to them; the rest of the vocabulary is never computed.
Shape suffixes: N images, R rubrics, K questions, L answers, V rows that are kept, D width of the model, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from iqa_core.levels import PADDING


class LevelHead(torch.nn.Module):
    """A few rows of an output matrix, in float32 whatever the model's dtype."""

    def __init__(self, head: torch.nn.Module, ids_V: Sequence[int]) -> None:
        super().__init__()
        bias = getattr(head, "bias", None)
        self.weight_VD = torch.nn.Parameter(_rows(head.weight, ids_V), requires_grad=False)
        self.bias_V = None if bias is None else torch.nn.Parameter(_rows(bias, ids_V), requires_grad=False)

    def forward(self, hidden_NTD: torch.Tensor) -> torch.Tensor:
        """Logits (N, T, V) in float32."""
        return torch.nn.functional.linear(hidden_NTD.float(), self.weight_VD, self.bias_V)


class LevelColumns:
    """Maps the kept rows to the answers of each of a rubric's questions."""

    def __init__(self, ids_KL: Sequence[Sequence[int]], ids_V: Sequence[int]) -> None:
        """ids_KL: token ids of each question's answers; their number may differ between questions.
        ids_V: those of the rows that are kept, for this rubric and others.
        """
        self.ids_V = ids_V
        self._ids_KL = ids_KL
        column_of = {token: column for column, token in enumerate(ids_V)}
        self.own = sorted({column_of[token] for ids in ids_KL for token in ids})
        """Columns of this rubric's answers."""
        most = max(map(len, ids_KL))
        padded_KL = [[*(column_of[token] for token in ids), *[-1] * (most - len(ids))] for ids in ids_KL]
        self._columns_KL = torch.tensor(padded_KL)
        self._is_padding_KL = self._columns_KL < 0

    def asking(self, questions: Sequence[int]) -> LevelColumns:
        """The same for some of the questions, by their numbers."""
        return LevelColumns([self._ids_KL[k] for k in questions], self.ids_V)

    def of(self, logits_NKV: torch.Tensor) -> torch.Tensor:
        """Logits of each question's own answers, worst to best, shape (N, K, L); `PADDING` where it has fewer."""
        columns_NKL = self._columns_KL.clamp(min=0).expand(len(logits_NKV), -1, -1)
        return logits_NKV.gather(2, columns_NKL).masked_fill(self._is_padding_KL, PADDING)


def ids_to_keep(ids_RKL: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """Token ids of the answers of all rubrics, each once, in order."""
    return sorted({token for ids_KL in ids_RKL for ids in ids_KL for token in ids})


def _rows(matrix: Any, ids_V: Sequence[int]) -> torch.Tensor:
    return matrix.detach()[list(ids_V)].float().clone()
