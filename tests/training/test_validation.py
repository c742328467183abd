"""Predictions -> figures, and the one that ranks checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.training.samples import Level, TrainingSample
from iqa_core.training.validation import NO_CORRELATION, RANK, Prediction, figures


def samples(dimensions: tuple[str, ...], opinions: list[float]) -> list[TrainingSample]:
    target = (0.0, 0.0, 1.0, 0.0, 0.0)
    return [
        TrainingSample(
            Path(f"{mos}.png"), "?", "a", "d", level=Level("a", name, mos, target, tuple("abcde"), (1, 2, 3, 4, 5))
        )
        for name in dimensions
        for mos in opinions
    ]


def test_correlations_are_per_dimension_and_their_mean_ranks() -> None:
    part = samples(("layout", "harmony"), [1, 2, 3, 4])
    scores = [1.1, 2.1, 2.9, 4.2, 4, 3, 1, 2]
    found = figures(part, [Prediction(n, 0.5, score) for n, score in enumerate(scores)])
    assert found["srcc_layout"] == pytest.approx(1)
    assert found["srcc_harmony"] == pytest.approx(-0.8)
    assert found["srcc"] == found[RANK] == pytest.approx(0.1)
    assert found["validation_loss"] == 0.5


def test_a_constant_score_has_no_correlation_and_ranks_last() -> None:
    part = samples(("layout",), [1, 2, 3, 4])
    found = figures(part, [Prediction(n, 0.5, 3.0) for n in range(4)])
    assert "srcc" not in found
    assert found[RANK] == NO_CORRELATION


def test_without_levels_the_loss_ranks() -> None:
    part = [TrainingSample(Path("x.png"), "?", "A room.", "words")]
    assert figures(part, [Prediction(0, 0.7, None)])[RANK] == -0.7
