"""Scores per dimension -> one reward per image, by weights that live in a TOML file of their own.

Scores on other ranges than 1 to 5 are brought there first, by the ends of their range or by a fitted curve.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from iqa_core.errors import CallerError, listed
from iqa_core.questions import Column, ColumnScale
from iqa_core.records import RATING, ScoreRange

ROUNDING = 1e-6
"""Of scores in float32, in parts of a range's larger end."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A dimension's scores -> 1 to 5, the range of rewards: straight between points, level outside."""

    scores: tuple[float, ...]
    """At least two, ascending."""
    ratings: tuple[float, ...]
    """One per score, 1 to 5; descending where less is better."""

    def __post_init__(self) -> None:
        ascends = all(a < b for a, b in pairwise(self.scores))
        if len(self.scores) != len(self.ratings) or len(self.scores) < 2 or not ascends:
            raise CallerError(f"a curve has two or more ascending scores, and a rating for each: {self.to_json()}")
        if not all(map(math.isfinite, self.scores)) or any(not RATING.low <= y <= RATING.high for y in self.ratings):
            raise CallerError(f"a curve has finite scores, and ratings from 1 to 5: {self.to_json()}")

    @classmethod
    def between_ends(cls, ends: ScoreRange) -> Curve:
        """The straight line from the worst end at 1 to the best at 5."""
        return cls((ends.low, ends.high), (ends.rating(ends.low), ends.rating(ends.high)))

    @classmethod
    def of_quantiles(cls, scores_N: ArrayLike, ends: ScoreRange) -> Curve:
        """Each twentieth of a corpus' scores is one of 1 to 5. Raises CallerError where all scores are equal."""
        shares = np.linspace(0, 1, 21)
        found = np.quantile(np.asarray(scores_N, np.float64), shares, method="inverted_cdf")
        places = np.flatnonzero(np.diff(found, prepend=-np.inf) > 0)
        upward = RATING.low + (RATING.high - RATING.low) * shares[places]
        ratings = upward if ends.worst < ends.best else RATING.low + RATING.high - upward
        return cls(tuple(found[places].tolist()), tuple(ratings.tolist()))

    def to_json(self) -> list[list[float]]:
        """Scores and ratings, as in a TOML file."""
        return [list(self.scores), list(self.ratings)]

    @property
    def slopes(self) -> list[float]:
        """Of the lines between neighbours."""
        rises = zip(pairwise(self.scores), pairwise(self.ratings), strict=True)
        return [(y1 - y0) / (x1 - x0) for (x0, x1), (y0, y1) in rises]

    def __call__(self, scores_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ratings, shape (N,); NaN stays."""
        points, levels = np.asarray(self.scores), np.asarray(self.ratings)
        at = self._lines(scores_N)
        lines = levels[at] + (scores_N - points[at]) * np.asarray(self.slopes)[at]
        return np.where(scores_N >= points[-1], levels[-1], np.where(scores_N < points[0], levels[0], lines))

    def steepness(self, scores_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """Slope of the line that each score lies on, shape (N,); outside of the curve, of the line next to it."""
        return np.asarray(self.slopes)[self._lines(scores_N)]

    def _lines(self, scores_N: NDArray[np.float64]) -> NDArray[np.intp]:
        """Index of the line, shape (N,)."""
        return np.clip(np.searchsorted(self.scores, scores_N, side="right") - 1, 0, len(self.scores) - 2)


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """How much each dimension counts; made by `equal`, `from_mapping` or `load_fusion`."""

    dimensions: tuple[str, ...]
    weights: tuple[float, ...]
    """One per dimension; absolute values sum to 1, so that weights >= 0 keep the reward in 1..5."""
    source: str
    """Where the weights come from, for people."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Dimension -> how its scores become 1 to 5, where they are not already."""

    @classmethod
    def of_columns(cls, columns: Sequence[Column]) -> FusionWeights:
        """The weights and ranges that a rubric has by itself."""
        weights = {column.name: column.weight for column in columns}
        source = "equal (unfitted)" if len(set(weights.values())) == 1 else "the rubric (unfitted)"
        scales = {column.name: column.scale for column in columns}
        return cls.from_mapping(weights, source=source).within(scales)

    @classmethod
    def equal(cls, dimensions: Sequence[str]) -> FusionWeights:
        """The mean of all dimensions: what is used until weights are fitted to preferences."""
        return cls.from_mapping(dict.fromkeys(dimensions, 1.0), source="equal (unfitted)")

    @classmethod
    def from_mapping(cls, weights: Mapping[str, float], *, source: str) -> FusionWeights:
        """Normalised weights, in the mapping's order. Raises CallerError when they are not finite or all zero."""
        total = sum(abs(weight) for weight in weights.values())
        if not math.isfinite(total) or total == 0:
            raise CallerError(f"fusion weights must be finite and not all zero: {dict(weights)}")
        return cls(tuple(weights), tuple(weight / total for weight in weights.values()), source)

    @property
    def digest(self) -> str:
        """SHA-256, hex, over names, weights and curves; neither their order nor the source counts."""
        content: list[Any] = sorted(zip(self.dimensions, self.weights, strict=True))
        if self.curves:
            content = [content, sorted((name, curve.to_json()) for name, curve in self.curves.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def within(self, scales: Mapping[str, ColumnScale]) -> FusionWeights:
        """The same weights, with straight curves for dimensions on other ranges than 1 to 5 that have none.

        scales: of all dimensions that are not five levels. Raises CallerError on a curve that is for another range.
        """
        ends = {name: scales[name].range if name in scales else RATING for name in self.dimensions}
        for name, curve in self.curves.items():
            self._require_within(name, curve, ends[name])
        straight = {name: Curve.between_ends(found) for name, found in ends.items() if found != RATING}
        return replace(self, curves={**straight, **self.curves})

    def _require_within(self, name: str, curve: Curve, ends: ScoreRange) -> None:
        slack = ROUNDING * max(1.0, abs(ends.low), abs(ends.high))
        is_inside = ends.low - slack <= curve.scores[0] and curve.scores[-1] <= ends.high + slack
        if not is_inside or (curve.ratings[0] < curve.ratings[-1]) != (ends.worst < ends.best):
            raise CallerError(
                f"fusion weights ({self.source}): the curve of {name} is for another range than its scores have here, "
                f"{ends.worst:g} (worst) to {ends.best:g} (best): {curve.to_json()}"
            )

    def ordered_as(
        self, dimensions: Sequence[str], scales: Mapping[str, ColumnScale] = MappingProxyType({})
    ) -> FusionWeights:
        """The same weights in the rubric's order, `within` its scales.

        Raises CallerError when they are for other dimensions.
        """
        if set(dimensions) != set(self.dimensions):
            raise CallerError(
                f"fusion weights ({self.source}) are for {listed(self.dimensions)}, "
                f"but the rubric has {listed(dimensions)}; give weights for exactly these"
            )
        by_name = dict(zip(self.dimensions, self.weights, strict=True))
        ordered = tuple(by_name[name] for name in dimensions)
        return replace(self, dimensions=tuple(dimensions), weights=ordered).within(scales)


class _FusionFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    weights: dict[str, float]
    curves: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}


def load_fusion(path: str | Path) -> FusionWeights:
    """Weights from a TOML file: `source = "…"` and a table `[weights]` of dimension = number.

    A table `[curves]` of dimension = [[scores], [ratings]] says how scores become 1 to 5 (see `Curve`).

    Raises CallerError when the file is missing, malformed, or its weights cannot be normalised.
    """
    try:
        content = _FusionFile.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise CallerError(f"fusion weights {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CallerError(f"fusion weights {path}: {faults}") from None
    except (ValueError, RecursionError) as error:
        raise CallerError(f"fusion weights {path} are not TOML: {error}") from None
    if unknown := sorted(content.curves.keys() - content.weights.keys()):
        raise CallerError(f"fusion weights {path}: there is a curve for {unknown[0]}, but no weight")
    curves = {name: Curve(*points) for name, points in content.curves.items()}
    return replace(FusionWeights.from_mapping(content.weights, source=content.source), curves=curves)


def fuse(scores_NK: ArrayLike, weights: FusionWeights) -> NDArray[np.float32]:
    """Rewards, shape (N,): the weighted mean of each row, in 1..5 for weights >= 0; higher is better.

    Columns are in the order of `weights.dimensions`. A row with a missing score (NaN or None) has the reward NaN.
    """
    scores = np.asarray(scores_NK, dtype=np.float64).reshape(-1, len(weights.dimensions))
    named = zip(scores.T, weights.dimensions, weights.weights, strict=True)
    terms = (rated(scores_N, name, weights) * weight for scores_N, name, weight in named)
    # Summed from left to right. A matrix product may go in another order for another batch size, and `sum` does from
    # 8 terms on.
    return reduce(np.add, terms).astype(np.float32)


def rated(scores_N: NDArray[np.float64], dimension: str, weights: FusionWeights) -> NDArray[np.float64]:
    """Scores of one dimension brought to 1 to 5, shape (N,); as they are where it has no curve."""
    curve = weights.curves.get(dimension)
    return scores_N if curve is None else curve(scores_N)
