"""Predictions on the validation part -> figures, and the figure by which checkpoints are ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iqa_core.agreement import pearson, spearman
from iqa_core.training.samples import TrainingSample

RANK = "rank_by"
"""Name of the figure by which checkpoints are ranked; higher is better."""
NO_CORRELATION = -2.0
"""Its value where all scores are equal, so that the correlation is not defined: below every correlation."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Loss and score of one validation sample."""

    index: int
    """Index of the sample in the validation part."""
    loss: float
    score: float | None
    """Expected score on 1 (worst) to 5 (best), from whatever range; None for a sample without a level word."""


def figures(samples: Sequence[TrainingSample], predictions: Iterable[Prediction]) -> dict[str, float]:
    """Loss, and PLCC and SRCC per dimension and as means over dimensions; figures that are not defined are left out."""
    found = {prediction.index: prediction for prediction in predictions}
    values = {"validation_loss": float(np.mean([prediction.loss for prediction in found.values()]))}
    correlations: dict[str, list[float]] = {"plcc": [], "srcc": []}
    for dimension, (scores, opinions) in _pairs(samples, found).items():
        for name, measure in (("plcc", pearson), ("srcc", spearman)):
            value = measure(np.asarray(scores), np.asarray(opinions))
            correlations[name].append(value)
            if math.isfinite(value):
                values[f"{name}_{dimension}"] = value
    for name, each in correlations.items():
        if each and all(map(math.isfinite, each)):
            values[name] = float(np.mean(each))
    return values | {RANK: _rank(values, bool(correlations["srcc"]))}


def _rank(values: Mapping[str, float], has_levels: bool) -> float:
    """Mean SRCC where there are level words, else the negative loss."""
    return values.get("srcc", NO_CORRELATION) if has_levels else -values["validation_loss"]


def _pairs(
    samples: Sequence[TrainingSample], found: Mapping[int, Prediction]
) -> dict[str, tuple[list[float], list[float]]]:
    pairs: dict[str, tuple[list[float], list[float]]] = {}
    for index, prediction in sorted(found.items()):
        level = samples[index].level
        if level is not None and prediction.score is not None:
            scores, opinions = pairs.setdefault(level.dimension, ([], []))
            scores.append(prediction.score)
            opinions.append(level.mos)
    return pairs
