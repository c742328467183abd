"""Predictions on the validation part -> figures, and the figure by which checkpoints are ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iqa_core.agreement import MIN_PAIRS, Floats, auc, pearson, spearman
from iqa_core.records import RATING
from iqa_core.rubrics.written.rubric import OVERALL
from iqa_core.training.samples import Level, TrainingSample
from iqa_core.training.written_validation import Rated

RANK = "rank_by"
"""Name of the figure by which checkpoints are ranked; higher is better."""
NO_CORRELATION = -2.0
"""Its value where all scores are equal, so that the correlation is not defined: below every correlation."""

PARSED = "parsed"
"""Name of the share of images about which what was written could be parsed."""

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
    values |= _agreement(_pairs(samples, found))
    return values | {RANK: _rank(values, any(sample.level for sample in samples))}


def written_figures(rated: Sequence[Rated], scores: Sequence[Mapping[str, float] | None]) -> dict[str, float]:
    """Share of the images that were parsed; of these, PLCC, SRCC and MAE per attribute and as means, on 1..5.

    Checkpoints are ranked by the SRCC of `quality` (where too little is known of it, the mean SRCC), a positive one
    times the share: a model that answers in the right form about easy images alone is no better for it.
    scores: attribute -> number, of each image; None where nothing was parsed.
    """
    both = [(each.ratings, said) for each, said in zip(rated, scores, strict=True) if said is not None]
    names = dict.fromkeys(name for each in rated for name in each.ratings)
    pairs = []
    for name in names:
        found = [(said[name], ratings[name]) for ratings, said in both if name in ratings]
        if found:
            scores_N, opinions_N = np.array(found).T
            pairs.append(_Pairs(name, scores_N, opinions_N))
    share = len(both) / len(rated)
    values = {PARSED: share} | _agreement(pairs)
    overall_N = np.array([each.ratings[OVERALL] for each in rated if OVERALL in each.ratings])
    agreement = values.get(f"srcc_{OVERALL}" if _are_telling(overall_N) else "srcc", NO_CORRELATION)
    return values | {RANK: agreement * share if agreement > 0 else agreement}


def _are_telling(opinions_N: Floats) -> bool:
    """Whether there are opinions enough, and unlike ones, for a correlation with anything."""
    return len(opinions_N) >= MIN_PAIRS and bool(np.ptp(opinions_N))


def _agreement(of_dimensions: Iterable[_Pairs]) -> dict[str, float]:
    """Figures per dimension, and means over those that are telling."""
    values: dict[str, float] = {}
    means: dict[str, list[float]] = {"plcc": [], "srcc": [], "auc": []}
    for pairs in of_dimensions:
        for name, value in pairs.figures().items():
            if math.isfinite(value):
                values[f"{name}_{pairs.name}"] = value
            if name in means and _are_telling(pairs.opinions_N):
                means[name].append(value)
    for name, each in means.items():
        if each and all(map(math.isfinite, each)):
            values[name] = float(np.mean(each))
    return values


def _rank(values: Mapping[str, float], has_levels: bool) -> float:
    """Mean SRCC where there are level words, else the negative loss."""
    return values.get("srcc", NO_CORRELATION) if has_levels else -values["validation_loss"]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Scores and opinions of one dimension or statement, on 1..5."""

    name: str
    scores_N: Floats
    opinions_N: Floats
    units: float = 1.0
    """Units of the dimension's own range in one of 1..5."""
    has_two_answers: bool = False

    def figures(self) -> dict[str, float]:
        """Figure -> value; a correlation that is not defined is NaN."""
        found = {"plcc": pearson(self.scores_N, self.opinions_N), "srcc": spearman(self.scores_N, self.opinions_N)}
        order = auc(self.scores_N, self.opinions_N, RATING.middle)
        if self.has_two_answers and math.isfinite(order):
            found["auc"] = order
        found["mae"] = float(np.abs(self.scores_N - self.opinions_N).mean()) * self.units
        return found


def _pairs(samples: Sequence[TrainingSample], found: Mapping[int, Prediction]) -> list[_Pairs]:
    """By dimension or statement, in the order of their first samples."""
    of_dimension: dict[str, list[tuple[Level, float]]] = {}
    for index, prediction in sorted(found.items()):
        level = samples[index].level
        if level is not None and prediction.score is not None:
            of_dimension.setdefault(level.dimension, []).append((level, prediction.score))
    return [_of_level(rows) for rows in of_dimension.values()]


def _of_level(rows: Sequence[tuple[Level, float]]) -> _Pairs:
    """Of one dimension."""
    level, _ = rows[0]
    scores_N, opinions_N = np.array([score for _, score in rows]), np.array([each.mos for each, _ in rows])
    units = level.range.width / RATING.width
    return _Pairs(level.dimension, scores_N, opinions_N, units, len(level.answers) == AUC_ANSWERS)
