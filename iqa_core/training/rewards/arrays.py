"""Numbers of one batch -> arrays of the shapes that rewards take, or what is wrong with them.

Shape suffixes, here and in all of this folder: N images, K rollouts (answers that were drawn for one image), A
attributes. A batch is that of all workers together.

- q_NKA: what each rollout says; NaN where it was not parsed
- y_NA: people's mean opinion; NaN where the data set has none on that attribute
- s_NA: its standard deviation; NaN where it is not known
- d_N: number of the data set that the image is from
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_core.records import RATING

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Opinions:
    """What people say about the images of a batch."""

    y_NA: Floats
    s_NA: Floats
    d_N: Ints


def predictions(q_NKA: ArrayLike) -> Floats:
    """What rollouts say, as float64. Raises ValueError on other axes, an empty one, or an infinite number."""
    q = _floats("q_NKA", q_NKA)
    if q.ndim != 3 or not q.size:
        raise ValueError(f"q_NKA has the shape {q.shape}; it is (images, rollouts, attributes), none of them 0")
    return q


def opinions(q_NKA: Floats, y_NA: ArrayLike, d_N: ArrayLike, s_NA: ArrayLike | None = None) -> Opinions:
    """People's opinions on the images of a batch; without s_NA their spread is not known.

    Raises ValueError when the shapes are not those of q_NKA, a number is infinite, or a spread is negative.
    """
    shape = q_NKA.shape[0], q_NKA.shape[2]
    y = shaped("y_NA", y_NA, shape)
    s = np.full(shape, np.nan) if s_NA is None else shaped("s_NA", s_NA, shape)
    d = np.asarray(d_N)
    if d.shape != shape[:1] or not np.issubdtype(d.dtype, np.integer):
        raise ValueError(f"d_N is {d.dtype} of the shape {d.shape}; it is a whole number for each of {shape[0]} images")
    if (s < 0).any():
        raise ValueError(f"s_NA has the standard deviation {np.nanmin(s):g}, and none is below 0")
    return Opinions(y, s, d.astype(np.int64))


def shaped(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """The values as float64. Raises ValueError on another shape, or an infinite number."""
    found = _floats(name, values)
    if found.shape != shape:
        raise ValueError(f"{name} has the shape {found.shape}; here it is {shape}")
    return found


def rated(name: str, values: Floats) -> Floats:
    """The values themselves. Raises ValueError on one outside of 1 (worst) to 5 (best); NaN may stand."""
    outside = values[(values < RATING.low) | (values > RATING.high)]
    if outside.size:
        raise ValueError(
            f"{name} has {outside[0]:g}, outside of {RATING.low:g} to {RATING.high:g}; bring it there first"
        )
    return values


def moments(q_NK: Floats) -> tuple[Floats, Floats, Ints]:
    """Mean, unbiased variance and number of each image's parsed rollouts, each (N,).

    The mean of none and the variance of one are NaN.
    """
    is_parsed_NK = np.isfinite(q_NK)
    count_N = is_parsed_NK.sum(axis=1)
    mean_N = _ratio(np.where(is_parsed_NK, q_NK, 0.0).sum(axis=1), count_N)
    off_NK = np.where(is_parsed_NK, q_NK - mean_N[:, None], 0.0)
    return mean_N, _ratio((off_NK**2).sum(axis=1), count_N - 1), count_N


def _ratio(sum_N: Floats, count_N: Ints) -> Floats:
    """A sum over a count; NaN where the count is not above 0."""
    return np.where(count_N > 0, sum_N / np.maximum(count_N, 1), np.nan)


def _floats(name: str, values: Any) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if np.isinf(found).any():
        raise ValueError(f"{name} has an infinite number; what is not known is NaN")
    return found
