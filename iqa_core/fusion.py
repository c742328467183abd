"""Scores per dimension -> one reward per image, by weights that live in a TOML file of their own.

The formula stands here twice, for arrays (`fuse`) and for an engine (`fuse_sql`); both give the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from iqa_core.errors import CallerError


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """How much each dimension counts; made by `equal`, `from_mapping` or `load_fusion`."""

    dimensions: tuple[str, ...]
    weights: tuple[float, ...]
    """One per dimension; absolute values sum to 1, so that weights >= 0 keep the reward in 1..5."""
    source: str
    """Where the weights come from, for people."""

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
        """SHA-256, hex, over names and weights; neither their order nor the source counts."""
        pairs = sorted(zip(self.dimensions, self.weights, strict=True))
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def ordered_as(self, dimensions: Sequence[str]) -> FusionWeights:
        """The same weights in the rubric's order. Raises CallerError when they are for other dimensions."""
        if set(dimensions) != set(self.dimensions):
            raise CallerError(
                f"fusion weights ({self.source}) are for {', '.join(self.dimensions)}, "
                f"but the rubric has {', '.join(dimensions)}; give weights for exactly these"
            )
        by_name = dict(zip(self.dimensions, self.weights, strict=True))
        return FusionWeights(tuple(dimensions), tuple(by_name[name] for name in dimensions), self.source)


class _FusionFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    weights: dict[str, float]


def load_fusion(path: str | Path) -> FusionWeights:
    """Weights from a TOML file: `source = "…"` and a table `[weights]` of dimension = number.

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
    return FusionWeights.from_mapping(content.weights, source=content.source)


def fuse(scores_NK: ArrayLike, weights: FusionWeights) -> NDArray[np.float32]:
    """Rewards, shape (N,): the weighted mean of each row, in 1..5 for weights >= 0; higher is better.

    Columns are in the order of `weights.dimensions`. A row with a missing score (NaN or None) has the reward NaN.
    """
    scores = np.asarray(scores_NK, dtype=np.float64).reshape(-1, len(weights.dimensions))
    # Summed from left to right, as SQL does. A matrix product may go in another order for another batch size, and
    # `sum` does from 8 terms on.
    return np.cumsum(scores * np.asarray(weights.weights), axis=1)[:, -1].astype(np.float32)


def fuse_sql(columns: Sequence[str], weights: FusionWeights) -> str:
    """`fuse` as an SQL expression: the same sum in double precision, rounded to float32 once; null for a missing score.

    columns: one SQL expression per dimension, in the order of `weights.dimensions`.
    """
    # as text: the engine would take a literal of 17 digits for a decimal, and round it
    terms = [
        f"{column}::DOUBLE * '{weight!r}'::DOUBLE" for column, weight in zip(columns, weights.weights, strict=True)
    ]
    return f"({' + '.join(terms)})::FLOAT"
