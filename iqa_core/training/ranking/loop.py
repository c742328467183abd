"""A ranking task -> trained weights: the loop of one worker, which draws answers, has them ranked and learns from them.

It is the loop of `iqa_core.training.loop` with other steps. What a step draws follows from weights, seed and step, so a
run that is resumed needs its checkpoint and the number of steps alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from iqa_core.assessor.checkpoint.files import materialise
from iqa_core.assessor.model.caption_judge import Judge
from iqa_core.assessor.model.loading import load_model
from iqa_core.errors import RunError
from iqa_core.training.gathering import gathered
from iqa_core.training.loop import Host, Meter, Training, Validated, Worker, on_device
from iqa_core.training.parts import set_training
from iqa_core.training.ranking.objective import LogProbs, base_log_probs, log_probs, policy_loss
from iqa_core.training.ranking.reference import Reference
from iqa_core.training.ranking.rollouts import Drawer, Rollout, Said
from iqa_core.training.ranking.task import RankingTask
from iqa_core.training.ranking.worth import single_figures, worth_of
from iqa_core.training.rewards.batch import CAPTION
from iqa_core.training.sample_encoder import Batch
from iqa_core.training.samples import TrainingSample

AGREEMENT = {torch.float32: 1e-2, torch.bfloat16: 5e-2}
"""Largest mean difference of the log-probabilities of tokens, as drawn and as learnt from, in nats. Rounding makes 2e-6
and .0025 of the shipped model on a CPU; a prompt, or a picture, that is another for one of them is far above."""

VALIDATION = 2**32
"""In place of a step, in the key of the noise by which answers are drawn for validation."""


@dataclass(frozen=True, slots=True)
class _Row:
    """An answer to learn from."""

    sample: TrainingSample
    rollout: Rollout
    advantage: float


class RankingTraining(Training):
    """One worker's model, images and steps."""

    task: RankingTask

    def __init__(self, task: RankingTask, worker: Worker) -> None:
        super().__init__(task, worker)
        self.ranking = task.ranking
        judges = CAPTION in task.ranking.rewards.composition.weights
        self._judge = Judge(self.processor, task.written, task.ranking.max_new_tokens) if judges else None
        needs_base = task.ranking.kl_weight or judges
        self._reference = Reference(self.engine.module, self._base) if needs_base else None
        # last, since it writes as many answers at once as there is memory for
        self._draw = Drawer(self.engine.module, self.processor, self.encoder, task.ranking)

    def _steps(self, done: int, meter: Meter) -> Iterator[int]:
        self._require_agreement(done)
        for step in range(done, self.schedule.steps):
            self._learn_from(self._ranked(step, meter), step, meter)
            yield step + 1

    def _ranked(self, step: int, meter: Meter) -> list[_Row]:
        """This worker's answers of a step, ranked among those of all workers."""
        images = self.task.images(step)
        rank, workers = self.worker.rank, self.worker.num_workers
        samples = [self.task.train[i] for i in images[rank::workers]]
        rollouts: list[list[Rollout]] = []
        self.engine.module.eval()

        def said() -> Said:
            rollouts.extend(self._draw(samples, step))
            return self._judged(Said.of(rollouts, self.task.form))

        worth = worth_of(self.task, images, Said.dealt(gathered(said)))
        meter.note(worth.figures)
        return [
            _Row(sample, rollout, float(advantage))
            for sample, of_image, advantages_K in zip(samples, rollouts, worth.advantage_NK[rank::workers], strict=True)
            for rollout, advantage in zip(of_image, advantages_K, strict=True)
        ]

    def _judged(self, said: Said) -> Said:
        """With what the model, and its base, read from each caption, where that is asked for."""
        if self._judge is None or self._reference is None:
            return said
        captions = [caption for of_image in said.answers.captions_NK for caption in of_image]
        shape = said.answers.q_NKA.shape[:2]
        with self.engine.computing():
            judged = self._judge(self.engine.module, captions)
            with self._reference.model() as base:
                by_base = self._judge(base, captions)
        return replace(said, judged_NK=judged.reshape(shape), judged_by_base_NK=by_base.reshape(shape))

    def _validated(self) -> Validated:
        """Figures of greedy answers, and of single ones as they are drawn: always by the same noise."""
        found = super()._validated()
        own = [each.as_scored for each in self.task.rated[self.worker.rank :: self.worker.num_workers]]
        parts = gathered(lambda: Said.of(self._draw(own, VALIDATION), self.task.form) if own else None)
        said = Said.dealt([part for part in parts if part is not None])
        return replace(found, figures={**found.figures, **single_figures(self.task, said)})

    def _learn_from(self, rows: Sequence[_Row], step: int, meter: Meter) -> None:
        """All passes over a step's answers; those of similar length share a forward pass."""
        size = self.recipe.micro_batch
        ordered = sorted(rows, key=lambda row: row.sample.tokens + len(row.rollout.ids))
        pieces = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        bases = [self._base_log_probs(piece) for piece in pieces]
        rate = self.schedule.learning_rate(step)
        self.engine.set_learning_rate(rate)
        torch.manual_seed(self._seed(step))
        set_training(self.engine.module)
        drawn: list[torch.Tensor | None] = [None] * len(pieces)
        for _ in range(self.ranking.passes):
            total = 0.0
            for i, piece in enumerate(pieces):
                batch = self._rows(piece)
                with self.engine.computing() as model:
                    now = log_probs(model, batch, self.ranking.temperature)
                before = drawn[i]
                if before is None:  # weights change after the last piece alone
                    before = drawn[i] = now.each_NP.detach()
                total += self._learn_piece(piece, now, before, bases[i], meter)
                meter.count(batch)
            meter.add(total, rate, self.engine.gradient_norm())

    def _learn_piece(
        self, piece: Sequence[_Row], now: LogProbs, drawn: torch.Tensor, base: torch.Tensor | None, meter: Meter
    ) -> float:
        """Backward for one piece; its share of the step's loss."""
        advantage_N = torch.tensor([row.advantage for row in piece], device=self.worker.device)
        found = policy_loss(now, drawn, base, advantage_N, self.ranking.clip_ratio, self.ranking.kl_weight)
        self.engine.learn(found.sum, self.recipe.global_batch)
        means = {"entropy": now.entropy_N, "clipped": found.clipped_N}
        if base is not None:
            means["kl"] = found.kl_N
        meter.note({name: (float(each_N.sum()), len(piece)) for name, each_N in means.items()})
        return float(found.sum.detach()) / self.recipe.global_batch

    @torch.no_grad()
    def _base_log_probs(self, piece: Sequence[_Row]) -> torch.Tensor | None:
        if self._reference is None or not self.ranking.kl_weight:
            return None
        with self._reference.model() as model, self.engine.computing():
            return base_log_probs(model, self._rows(piece), self.ranking.temperature)

    def _rows(self, piece: Sequence[_Row]) -> Batch:
        batch = self.encoder.batch([row.sample for row in piece], [row.rollout.ids for row in piece])
        return on_device(batch, self.worker.device, self.engine.module.dtype)

    @torch.no_grad()
    def _require_agreement(self, step: int) -> None:
        """Raises RunError where answers are drawn from another distribution than the one that is learnt from."""
        self.engine.module.eval()
        bound = AGREEMENT[self.engine.module.dtype]
        if self.recipe.autocasts:
            bound = AGREEMENT[torch.bfloat16]

        def difference() -> float:
            sample = self.task.train[self.task.images(step)[self.worker.rank]]
            rollouts = self._draw([sample], step)[0][: self.recipe.micro_batch]  # as many as there is memory for
            with self.engine.computing():
                now = log_probs(self.engine.module, self._rows([_Row(sample, one, 0.0) for one in rollouts]), 1.0)
            drawn = np.concatenate([one.log_probs for one in rollouts])
            return float(np.abs(now.each_NP[now.is_token_NP].cpu().numpy() - drawn).mean())

        largest = float(np.max(gathered(difference)))
        if not largest <= bound:  # nor where it is no number
            raise RunError(
                f"log-probabilities of answers differ by {largest:.2g} nats between drawing and learning, more than "
                f"{bound:g}: this checkpoint's processor makes another prompt for one of them"
            )

    def _base(self) -> Any:
        model = load_model(
            materialise(self.task.base), self.recipe.weights_dtype, str(self.worker.device.type), self.task.threads
        )
        return model.to(self.worker.device)


def train(task: RankingTask, host: Host) -> None:
    """Run the loop in this process, whose process group exists already.

    Raises RunError when the loss is no number any more, an image can no longer be read, or any worker fails.
    """
    RankingTraining(task, Worker.here()).run(host)
