"""Logits of a batch -> its loss: cross-entropy on the answer's tokens, five-way divergence on the level token.

Shape suffixes: N samples, T tokens of the longest row, P places whose next token carries loss, V vocabulary, L levels.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iqa_core.training.sample_encoder import IGNORED, PADDING, Batch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Losses:
    """Losses of one batch, and the scores of its samples that have a level."""

    weighted_sum: torch.Tensor
    """Sum over samples of weight x mean loss of the answer's tokens; the only tensor with a gradient."""
    samples_N: torch.Tensor
    """Mean loss of each sample's answer tokens."""
    divergence: torch.Tensor
    """Kullback-Leibler divergence of target and five-way distribution, one per sample with a level."""
    scores: torch.Tensor
    """Expected scores on 1 (worst) to 5 (best), whatever the dimension's range; one per sample with a level."""


def losses(model: Any, batch: Batch, level_weight: float, number_weight: float = 1.0) -> Losses:
    """Losses of one forward pass, in which the level token counts for `level_weight` answer tokens.

    Its loss is KL(target || softmax over the level words or other answers) - log(probability of all of them together).
    The first term is the divergence of DeQA-Score (arXiv 2501.11561); the second makes the model say an answer at all.
    With a hard target the sum is plain cross-entropy.

    Each token of a number that a written answer gives counts for `number_weight`: the words about it are ten times as
    many, and could be others.
    """
    places_P, logits_NPV = answer_logits(model, batch)
    weights_NT = 1 + (number_weight - 1) * batch.are_numbers_NT.float()
    sums_N, counts_N = _cross_entropy(logits_NPV, batch.labels_NT[:, places_P + 1], weights_NT[:, places_P + 1])
    if not len(batch.level_rows):
        return _losses(batch, sums_N / counts_N, sums_N.new_zeros(0), sums_N.new_zeros(0))
    logits_NV = logits_NPV[batch.level_rows, (places_P[None] == batch.level_places[:, None] - 1).int().argmax(1)]
    level, divergence, scores = _level_loss(logits_NV, batch)
    sums_N = sums_N.index_add(0, batch.level_rows, level_weight * level)
    counts_N = counts_N.index_add(0, batch.level_rows, level_weight * counts_N.new_ones(len(level)))
    return _losses(batch, sums_N / counts_N, divergence, scores)


def _losses(batch: Batch, samples_N: torch.Tensor, divergence: torch.Tensor, scores: torch.Tensor) -> Losses:
    return Losses((batch.weights_N * samples_N).sum(), samples_N.detach(), divergence.detach(), scores.detach())


def answer_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (P,) before tokens that carry loss in any row, and the logits (N, P, V) there: others are not computed.

    A vocabulary of 150,000 at 2,400 places takes 1.4 GB a row in float32; an answer has about 14 places.
    """
    carries_NT = batch.labels_NT != IGNORED
    carries_NT[batch.level_rows, batch.level_places] = True
    places_P = carries_NT.any(dim=0).nonzero().squeeze(1) - 1
    settings = {"use_cache": False}
    if takes_places(model):
        return places_P, model(**batch.inputs, **settings, logits_to_keep=places_P).logits
    return places_P, model(**batch.inputs, **settings).logits[:, places_P]


def takes_places(model: Any) -> bool:
    """Whether the model's forward can be told at which places to compute logits."""
    return "logits_to_keep" in inspect.signature(getattr(model, "module", model).forward).parameters


def _cross_entropy(
    logits_NPV: torch.Tensor, labels_NP: torch.Tensor, weights_NP: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum over each row's labels, (N,), and the sum of their weights, (N,)."""
    from torch.nn import functional

    each_NP = functional.cross_entropy(
        logits_NPV.float().transpose(1, 2), labels_NP, ignore_index=IGNORED, reduction="none"
    )
    return (weights_NP * each_NP).sum(dim=1), (weights_NP * (labels_NP != IGNORED)).sum(dim=1)


def _level_loss(logits_NV: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, divergence and expected score of each level token."""
    import torch

    is_padding_NL = batch.level_ids_NL == PADDING
    logits_NL = logits_NV.float().gather(1, batch.level_ids_NL.clamp(min=0)).masked_fill(is_padding_NL, -torch.inf)
    log_probs_NL = logits_NL.log_softmax(dim=1)
    log_mass_N = logits_NL.logsumexp(dim=1) - logits_NV.float().logsumexp(dim=1)
    finite_NL = log_probs_NL.masked_fill(is_padding_NL, 0.0)
    divergence = (torch.xlogy(batch.targets_NL, batch.targets_NL) - batch.targets_NL * finite_NL).sum(dim=1)
    return divergence - log_mass_N, divergence, _expected(log_probs_NL.exp(), batch.worths)


def _expected(probs_NL: torch.Tensor, worths: torch.Tensor) -> torch.Tensor:
    """Mean worth of each row. worths: (L,) or (N, L)."""
    return probs_NL @ worths if worths.dim() == 1 else (probs_NL * worths).sum(dim=1)
