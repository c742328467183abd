"""Predictions on the validation part -> figures, and the figure by which checkpoints are ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iqa_core.agreement import MIN_PAIRS, Floats, auc, pearson, spearman
from iqa_core.records import RATING
from iqa_core.training.samples import Level, TrainingSample

RANK = "rank_by"
"""Name of the figure by which checkpoints are ranked; higher is better."""
NO_CORRELATION = -2.0
"""Its value where all scores are equal, so that the correlation is not defined: below every correlation."""

AUC_ANSWERS = 2
"""Answers of a question that AUC belongs to: yes and no."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Loss and score of one validation sample."""

    index: int
    """Index of the sample in the validation part."""
    loss: float
    score: float | None
    """Expected score on 1 (worst) to 5 (best), from whatever range; None for a sample without a level word."""


def figures(samples: Sequence[TrainingSample], predictions: Iterable[Prediction]) -> dict[str, float]:
    """Loss; PLCC, SRCC and, of two answers, AUC per dimension or statement and as means; MAE in units of its range.

    What is not defined is left out. A mean leaves out dimensions on which all opinions are alike, or too few: that no
    score agrees with them is not the model's doing.
    """
    found = {prediction.index: prediction for prediction in predictions}
    values = {"validation_loss": float(np.mean([prediction.loss for prediction in found.values()]))}
    means: dict[str, list[float]] = {"plcc": [], "srcc": [], "auc": []}
    for pairs in _pairs(samples, found):
        for name, value in pairs.figures().items():
            if math.isfinite(value):
                values[f"{name}_{pairs.level.dimension}"] = value
            if name in means and pairs.are_telling:
                means[name].append(value)
    for name, each in means.items():
        if each and all(map(math.isfinite, each)):
            values[name] = float(np.mean(each))
    return values | {RANK: _rank(values, any(sample.level for sample in samples))}


def _rank(values: Mapping[str, float], has_levels: bool) -> float:
    """Mean SRCC where there are level words, else the negative loss."""
    return values.get("srcc", NO_CORRELATION) if has_levels else -values["validation_loss"]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Scores and opinions of one dimension or statement, on 1..5."""

    level: Level
    """Of one of its samples."""
    scores_N: Floats
    opinions_N: Floats

    @property
    def are_telling(self) -> bool:
        """Whether there are opinions enough, and unlike ones, for a correlation with anything."""
        return len(self.opinions_N) >= MIN_PAIRS and bool(np.ptp(self.opinions_N))

    def figures(self) -> dict[str, float]:
        """Figure -> value; a correlation that is not defined is NaN."""
        found = {"plcc": pearson(self.scores_N, self.opinions_N), "srcc": spearman(self.scores_N, self.opinions_N)}
        order = auc(self.scores_N, self.opinions_N, RATING.middle)
        if len(self.level.answers) == AUC_ANSWERS and math.isfinite(order):
            found["auc"] = order
        units = self.level.range.width / RATING.width
        found["mae"] = float(np.abs(self.scores_N - self.opinions_N).mean()) * units
        return found


def _pairs(samples: Sequence[TrainingSample], found: Mapping[int, Prediction]) -> list[_Pairs]:
    """By dimension or statement, in the order of their first samples."""
    of_dimension: dict[str, list[tuple[Level, float]]] = {}
    for index, prediction in sorted(found.items()):
        level = samples[index].level
        if level is not None and prediction.score is not None:
            of_dimension.setdefault(level.dimension, []).append((level, prediction.score))
    return [
        _Pairs(rows[0][0], np.array([score for _, score in rows]), np.array([level.mos for level, _ in rows]))
        for rows in of_dimension.values()
    ]
