"""The loss is that of TRL's own trainer on the same numbers; a name that TRL changes fails here."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iqa_core.training.ranking.objective import LogProbs, PolicyLoss, base_log_probs, log_probs, policy_loss
from iqa_core.training.sample_encoder import IGNORED, Batch

pytestmark = pytest.mark.slow

CLIP, KL = 0.2, 0.04


def answers() -> tuple[torch.Tensor, ...]:
    """Log-probabilities now, when drawn and of the base, which places are tokens, and advantages."""
    generator = torch.Generator().manual_seed(3)
    now, drawn, base = (-2 * torch.rand((3, 5), generator=generator) for _ in range(3))
    is_token = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    return now, drawn, base, is_token, torch.tensor([1.5, -0.7, 0.2])


def ours(now: torch.Tensor, drawn: torch.Tensor, base: torch.Tensor | None, is_token: torch.Tensor) -> PolicyLoss:
    said = LogProbs(now, is_token, torch.zeros(3))
    return policy_loss(said, drawn, base, answers()[-1], CLIP, KL)


def trls(now: torch.Tensor, drawn: torch.Tensor, base: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
    """The loss of TRL's GRPOTrainer with loss_type "grpo", the mean over answers; of its metrics none is looked at."""
    from trl import GRPOTrainer

    accelerator = SimpleNamespace(reduce=lambda values, reduction: values, gather=lambda values: values)
    trainer: Any = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (now, torch.zeros_like(now), None),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        model=SimpleNamespace(training=True),
        accelerator=accelerator,
        _metrics={"train": {name: [] for name in NOTED}},
        beta=KL,
        epsilon_low=CLIP,
        epsilon_high=CLIP,
        loss_type="grpo",
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1,
    )
    ids = torch.zeros_like(now, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": is_token.long(),
        "advantages": answers()[-1],
        "old_per_token_logps": drawn,
        "ref_per_token_logps": base,
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


NOTED = (
    "kl",
    "entropy",
    *(f"clip_ratio/{name}" for name in ("low_mean", "low_min", "high_mean", "high_max", "region_mean")),
)


def test_loss_and_gradient_are_those_of_trl() -> None:
    now, drawn, base, is_token, _ = answers()
    one, other = (now.clone().requires_grad_() for _ in range(2))
    found, wanted = ours(one, drawn, base, is_token), trls(other, drawn, base, is_token)
    assert float(found.sum.detach()) / 3 == pytest.approx(float(wanted.detach()), abs=1e-6)
    (found.sum / 3).backward()
    wanted.backward()
    assert one.grad is not None
    assert other.grad is not None
    assert torch.allclose(one.grad, other.grad, atol=1e-6)
    assert found.clipped_N.max() > 0, "the case has ratios on both sides of the bound"


def test_without_a_base_there_is_no_divergence_and_what_is_no_token_counts_nothing() -> None:
    now, drawn, base, is_token, advantages = answers()
    found = ours(now, now, None, is_token)
    assert float(found.sum) == pytest.approx(-float(advantages.sum()), abs=1e-6)
    assert not found.kl_N.any()
    changed = torch.where(is_token, now, now - 1)
    assert float(ours(changed, drawn, base, is_token).sum) == pytest.approx(float(ours(now, drawn, base, is_token).sum))


class Fixed:
    """A model that has the same logits for everybody, and computes them at all places."""

    def __init__(self, logits_NTV: torch.Tensor) -> None:
        self.logits_NTV = logits_NTV

    def forward(self, input_ids: torch.Tensor) -> None: ...

    def __call__(self, **_: Any) -> Any:
        return SimpleNamespace(logits=self.logits_NTV)


def test_log_probabilities_are_those_of_the_temperature_that_answers_are_drawn_at() -> None:
    logits_NTV = torch.log(torch.tensor([[[0.5, 0.5], [0.2, 0.8], [0.5, 0.5]]]))
    none = torch.zeros(0, dtype=torch.long)
    labels_NT = torch.tensor([[IGNORED, IGNORED, 1]])
    batch = Batch({}, labels_NT, torch.zeros_like(labels_NT), none, none, none, none, none, torch.ones(1), 3)
    at_one, at_two = (log_probs(Fixed(logits_NTV), batch, temperature) for temperature in (1.0, 2.0))
    assert at_one.each_NP.exp().tolist() == [[pytest.approx(0.8)]]
    assert at_two.each_NP.exp().tolist() == [[pytest.approx(0.8**0.5 / (0.8**0.5 + 0.2**0.5))]]
    two = replace(batch, labels_NT=torch.tensor([[IGNORED, IGNORED, 1], [IGNORED, 0, 1]]))
    found, wanted = base_log_probs(model := Fixed(logits_NTV.repeat(2, 1, 1)), two, 2.0), log_probs(model, two, 2.0)
    assert torch.allclose(found, wanted.each_NP, rtol=0, atol=1e-6)
    assert found[0, 0] == 0, "no token is there"
    entropy = -(0.8 * torch.tensor(0.8).log() + 0.2 * torch.tensor(0.2).log())
    assert at_one.entropy_N.tolist() == [pytest.approx(float(entropy))]
