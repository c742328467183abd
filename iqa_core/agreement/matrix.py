"""Scores and opinions of several attributes on the same images -> whether the attributes are told apart.

An assessor that has one impression of an image and says it five times agrees with every attribute alike. One that tells
attributes apart agrees best with the attribute that it was asked for. Shape suffixes: N images, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_core.agreement.measures import spearman


@dataclass(frozen=True, slots=True)
class ToldApart:
    """SRCC of each attribute's scores (rows) with the opinions on each attribute (columns)."""

    scored: tuple[str, ...]
    """Attribute of each row."""
    judged: tuple[str, ...]
    """Attribute of each column."""
    srcc: tuple[tuple[float | None, ...], ...]
    """None where it is not defined."""
    images: tuple[tuple[int, ...], ...]
    """Images with a score and an opinion, which the figure in the same place rests on."""

    @property
    def mixed_up(self) -> tuple[str, ...]:
        """Attributes whose scores agree with another attribute as well as with their own or better, or with none."""
        found = []
        for name, row in zip(self.scored, self.srcc, strict=True):
            own = row[self.judged.index(name)]
            others = [srcc for other, srcc in zip(self.judged, row, strict=True) if other != name and srcc is not None]
            if own is None or any(other >= own for other in others):
                found.append(name)
        return tuple(found)


def told_apart(scored: Sequence[str], scores_NA: ArrayLike, judged: Sequence[str], opinions_NA: ArrayLike) -> ToldApart:
    """The matrix; each figure is on all images that have both numbers.

    scored: attributes of the columns of `scores_NA`, each of which is one of `judged`, those of `opinions_NA`. NaN is a
    number that is not there. Raises ValueError when the numbers of images or attributes do not agree.
    """
    x_NA, y_NA = np.asarray(scores_NA, np.float64), np.asarray(opinions_NA, np.float64)
    if x_NA.ndim != 2 or (x_NA.shape[1], *y_NA.shape) != (len(scored), len(x_NA), len(judged)):
        raise ValueError(f"{x_NA.shape} scores of {len(scored)} and {y_NA.shape} opinions on {len(judged)} attributes")
    pairs = [[_paired(x_NA[:, a], y_NA[:, b]) for b in range(len(judged))] for a in range(len(scored))]
    return ToldApart(
        tuple(scored),
        tuple(judged),
        tuple(tuple(_srcc(*pair) for pair in row) for row in pairs),
        tuple(tuple(len(x_N) for x_N, _ in row) for row in pairs),
    )


def _paired(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    is_whole = np.isfinite(x_N) & np.isfinite(y_N)
    return x_N[is_whole], y_N[is_whole]


def _srcc(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> float | None:
    found = spearman(x_N, y_N)
    return found if np.isfinite(found) else None
