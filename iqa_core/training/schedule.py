"""A seed and sizes -> which samples each worker takes in each step, and the learning rate. A pure function of the step.

So a run that resumes from a checkpoint needs its step alone, and several workers take together exactly the samples
that one worker takes alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.training.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """Samples and learning rate of every step of one run.

    A turn is a sample in an epoch, as the number epoch x samples + index.
    """

    recipe: Recipe
    tokens: Sequence[int]
    """Length of each sample."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.steps(len(self.tokens))

    def batch(self, step: int) -> NDArray[np.int64]:
        """Indices of the samples of one step."""
        return self._turns(step) % len(self.tokens)

    def micro_batches(self, step: int, rank: int, num_workers: int) -> list[NDArray[np.int64]]:
        """Indices of the samples of one worker in one step, one array per forward pass."""
        return [turns % len(self.tokens) for turns in self.micro_turns(step, rank, num_workers)]

    def micro_turns(self, step: int, rank: int, num_workers: int) -> list[NDArray[np.int64]]:
        """Turns of one worker in one step, one array per forward pass; samples of similar length share a pass."""
        turns = self._turns(step)
        by_length = turns[np.argsort([self.tokens[turn % len(self.tokens)] for turn in turns], kind="stable")]
        pieces = by_length.reshape(-1, self.recipe.micro_batch)
        return list(pieces[rank::num_workers])

    def _turns(self, step: int) -> NDArray[np.int64]:
        """Turns of one step: consecutive pieces of one shuffled epoch after another."""
        n, size = len(self.tokens), self.recipe.global_batch
        first, last = step * size // n, ((step + 1) * size - 1) // n
        turns = np.concatenate([epoch * n + self._shuffled(epoch) for epoch in range(first, last + 1)])
        start = step * size - first * n
        return turns[start : start + size]

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero after the last step; `step` counts from 0."""
        warm = math.ceil(self.recipe.warmup_ratio * self.steps)
        if step < warm:
            return self.recipe.learning_rate * (step + 1) / warm
        position = (step - warm) / max(1, self.steps - warm)
        return self.recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * position))

    def padding(self) -> float:
        """Share of padding among all tokens of the run, 0 to 1."""
        real = padded = 0
        for step in range(self.steps):
            for piece in self.micro_batches(step, 0, 1):
                lengths = [self.tokens[i] for i in piece]
                real += sum(lengths)
                padded += max(lengths) * len(lengths)
        return 1 - real / padded

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        """Indices of all samples in the order of an epoch."""
        return np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.tokens))
