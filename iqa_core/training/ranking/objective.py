"""Log-probabilities of answers and their advantages -> the loss of group-relative policy optimisation (GRPO).

DeepSeekMath (arXiv 2402.03300), equations 3 and 4: a clipped ratio of probabilities, and a divergence from the base.
Shape suffixes: N answers, P places whose next token carries loss in any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iqa_core.training.objective import answer_logits
from iqa_core.training.sample_encoder import IGNORED, Batch

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LogProbs:
    """What a model thinks of answers."""

    each_NP: torch.Tensor
    """Log-probability of each token, at the temperature that answers are drawn at; 0 where there is none."""
    is_token_NP: torch.Tensor
    entropy_N: torch.Tensor
    """Mean entropy of the next token over each answer, in nats; without a gradient."""


@dataclass(frozen=True)
class PolicyLoss:
    """Loss of a few answers."""

    sum: torch.Tensor
    """Sum over answers of the mean over their tokens; the only tensor with a gradient."""
    kl_N: torch.Tensor
    """Mean divergence from the base over each answer, in nats; 0 where it is not asked for."""
    clipped_N: torch.Tensor
    """Share of each answer's tokens whose ratio is clipped."""


def log_probs(model: Any, batch: Batch, temperature: float) -> LogProbs:
    """What the model thinks of the answers of a batch, in float32."""
    import torch

    logits_NPV, labels_NP = _scaled(model, batch, temperature)
    is_token_NP = labels_NP != IGNORED
    all_NPV = logits_NPV.log_softmax(-1)
    each_NP = _of_labels(all_NPV, labels_NP)
    with torch.no_grad():
        entropy_NP = -(all_NPV.exp() * all_NPV).sum(-1)
    return LogProbs(each_NP.masked_fill(~is_token_NP, 0.0), is_token_NP, _over_tokens(entropy_NP, is_token_NP))


def base_log_probs(model: Any, batch: Batch, temperature: float) -> torch.Tensor:
    """What the base thinks of the answers, as `LogProbs.each_NP`; of a vocabulary nothing is kept."""
    logits_NPV, labels_NP = _scaled(model, batch, temperature)
    each_NP = _of_labels(logits_NPV, labels_NP) - logits_NPV.logsumexp(-1)
    return each_NP.masked_fill(labels_NP == IGNORED, 0.0)


def policy_loss(
    now: LogProbs,
    drawn_NP: torch.Tensor,
    base_NP: torch.Tensor | None,
    advantage_N: torch.Tensor,
    clip_ratio: float,
    kl_weight: float,
) -> PolicyLoss:
    """Loss of answers.

    drawn_NP: log-probabilities when they were drawn, base_NP: those of the base, None where none is asked for; both
    without a gradient.
    """
    import torch

    ratio_NP, advantage_N1 = torch.exp(now.each_NP - drawn_NP), advantage_N[:, None]
    kept_NP = ratio_NP.clamp(1 - clip_ratio, 1 + clip_ratio)
    loss_NP = -torch.minimum(ratio_NP * advantage_N1, kept_NP * advantage_N1)
    is_clipped_NP = (kept_NP * advantage_N1 < ratio_NP * advantage_N1).float()
    kl_NP = torch.zeros_like(ratio_NP)
    if base_NP is not None:
        off_NP = base_NP - now.each_NP
        kl_NP = off_NP.exp() - off_NP - 1
        loss_NP = loss_NP + kl_weight * kl_NP
    means = (_over_tokens(values_NP, now.is_token_NP) for values_NP in (loss_NP, kl_NP, is_clipped_NP))
    loss_N, kl_N, clipped_N = means
    return PolicyLoss(loss_N.sum(), kl_N.detach(), clipped_N.detach())


def _scaled(model: Any, batch: Batch, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, P, V) at that temperature, in float32, and the labels (N, P) behind them."""
    places_P, logits_NPV = answer_logits(model, batch)
    return logits_NPV.float() / temperature, batch.labels_NT[:, places_P + 1]


def _of_labels(values_NPV: torch.Tensor, labels_NP: torch.Tensor) -> torch.Tensor:
    """Each label's value (N, P); anything where there is no label."""
    return values_NPV.gather(2, labels_NP.clamp(min=0)[:, :, None])[:, :, 0]


def _over_tokens(values_NP: torch.Tensor, is_token_NP: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of each answer, which has one at least."""
    return (values_NP * is_token_NP).sum(1) / is_token_NP.sum(1)
