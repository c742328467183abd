"""Answers of a batch and their form -> the numbers and texts that each rollout says, and the reward of being read.

Shape suffixes are those of `arrays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from iqa_core.training.rewards.arrays import Floats
from iqa_core.written.form import Form
from iqa_core.written.judging import Sample
from iqa_core.written.parsing import Parsed

Part = Literal["caption", "reasoning", "both"]


@dataclass(frozen=True)
class Answers:
    """What the rollouts of a batch say."""

    q_NKA: Floats
    """Numbers, each brought to 1 (worst) to 5 (best); NaN where the answer was not parsed."""
    captions_NK: tuple[tuple[str | None, ...], ...]
    """None where the answer was not parsed, or its grammar has none."""
    reasonings_NK: tuple[tuple[str | None, ...], ...]
    """Likewise."""

    @property
    def format_NK(self) -> Floats:
        """The reward of form: 1 for an answer that was parsed, 0 for another."""
        return np.asarray(np.isfinite(self.q_NKA).all(axis=2), np.float64)

    def texts(self, part: Part) -> list[list[str | None]]:
        """That part of each answer, (N, K); of both, those that it has, joined by a line break."""
        pairs_NK = [zip(*both, strict=True) for both in zip(self.captions_NK, self.reasonings_NK, strict=True)]
        return [[_joined(caption, reasoning, part) for caption, reasoning in pairs] for pairs in pairs_NK]


def read(samples_NK: Sequence[Sequence[Sample]], form: Form) -> Answers:
    """What the answers say, by the parser that scoring has: nothing is guessed, and half an answer is none.

    Raises ValueError when images have different numbers of rollouts, or there is no rollout.
    """
    sizes = {len(samples) for samples in samples_NK}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"images have {sorted(sizes)} rollouts; each has the same number of them, 1 or more")
    found_NK = [[sample.parsed(form) for sample in samples] for samples in samples_NK]
    return Answers(
        np.array([[_ratings(one, form) for one in found] for found in found_NK], dtype=np.float64),
        tuple(tuple(one.caption if isinstance(one, Parsed) else None for one in found) for found in found_NK),
        tuple(tuple(one.reasoning if isinstance(one, Parsed) else None for one in found) for found in found_NK),
    )


def _joined(caption: str | None, reasoning: str | None, part: Part) -> str | None:
    if part != "both":
        return caption if part == "caption" else reasoning
    said = [text for text in (caption, reasoning) if text is not None]
    return "\n".join(said) if said else None


def _ratings(found: object, form: Form) -> list[float]:
    """One per attribute."""
    if not isinstance(found, Parsed):
        return [np.nan] * len(form.attributes)
    return [one.range.rating(value) for one, value in zip(form.attributes, found.values, strict=True)]
