"""Preferences and dimension scores -> fusion weights (Bradley-Terry), and how often a reward is right.

Shape suffixes: P pairs, K dimensions. Differences are the first image's scores minus the second's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from iqa_core.agreement import Floats
from iqa_core.errors import CallerError

L2 = 1e-3
"""Penalty on the raw weights: separable pairs would otherwise have no finite optimum."""


@dataclass(frozen=True, slots=True)
class PairAccuracy:
    """How often a reward prefers the image of a pair that people prefer."""

    pairs: int
    """Pairs of which people preferred one image."""
    ties_wrong: float
    """Share of them that the reward orders as people do; two equal rewards count as wrong."""
    ties_half: float
    """The same share, where two equal rewards count one half."""
    three_way: float
    """Share of all pairs whose win, tie or loss is right, at the tie threshold."""
    low: float
    """Percentile 2.5 of `ties_wrong` over resampled pairs."""
    high: float
    """Percentile 97.5."""


def fit_weights(differences_PK: Floats, shares_P: Floats, *, signed: bool = False) -> Floats:
    """Raw weights (K,) of maximum likelihood: P(first preferred) = sigmoid(differences . w); a tie is half a win each.

    signed: weights may be negative; by default they are not, so that a fused reward stays in 1..5.
    Raises CallerError when all weights are zero: the scores say nothing about the preferences.
    """

    def loss(w_K: Floats) -> tuple[float, Floats]:
        margins_P = differences_PK @ w_K
        # log(1 + exp(m)) - share m, whose derivative is sigmoid(m) - share
        value = np.logaddexp(0, margins_P) - shares_P * margins_P
        slope_K = differences_PK.T @ (expit(margins_P) - shares_P) / len(shares_P)
        return float(value.mean() + L2 / 2 * w_K @ w_K), slope_K + L2 * w_K

    count = differences_PK.shape[1]
    bounds = [(None if signed else 0.0, None)] * count
    found: Floats = minimize(loss, np.zeros(count), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-10).x
    if not np.abs(found).sum() > 1e-9:
        raise CallerError(
            f"{len(shares_P)} pairs give no dimension a weight above 0: preferred images do not score higher; "
            "look at the pairs, or allow --signed weights"
        )
    return found


def tie_threshold(margins_P: Floats, shares_P: Floats) -> float:
    """The |difference of rewards| up to which "a tie" is said, chosen to be right most often on these pairs."""
    candidates = np.concatenate([[0.0], np.quantile(np.abs(margins_P), np.linspace(0, 0.5, 51))])
    right = [_three_way(margins_P, shares_P, float(bound)).mean() for bound in candidates]
    return float(candidates[int(np.argmax(right))])


def judge(margins_P: Floats, shares_P: Floats, threshold: float, resamples: int = 1000, seed: int = 0) -> PairAccuracy:
    """How often rewards are right about these pairs; the interval is seeded. Raises CallerError when all are ties."""
    decided = shares_P != 0.5
    if not decided.any():
        raise CallerError(f"all {len(shares_P)} pairs are ties; there is nothing that a reward could be right about")
    signs, wanted = np.sign(margins_P[decided]), np.sign(shares_P[decided] - 0.5)
    right = (signs == wanted).astype(float)
    random = np.random.default_rng(seed)
    means = [right[random.integers(len(right), size=len(right))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return PairAccuracy(
        pairs=len(right),
        ties_wrong=float(right.mean()),
        ties_half=float((right + 0.5 * (signs == 0)).mean()),
        three_way=float(_three_way(margins_P, shares_P, threshold).mean()),
        low=float(low),
        high=float(high),
    )


def splits(
    groups: Sequence[str], fit_pairs: int, judge_pairs: int, count: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Random (fit, judge) indices of at most so many pairs; no group lies in both. A pair without a group is a group.

    Raises CallerError when a part would be empty.
    """
    names = [group or f"\0{index}" for index, group in enumerate(groups)]
    share = fit_pairs / (fit_pairs + judge_pairs)
    found = []
    for number in range(count):
        random = np.random.default_rng([seed, number])
        order = random.permutation(sorted(set(names)))
        chosen = set(order[: round(share * len(order))])
        fit = random.permutation([i for i, name in enumerate(names) if name in chosen])[:fit_pairs]
        held = random.permutation([i for i, name in enumerate(names) if name not in chosen])[:judge_pairs]
        if not len(fit) or not len(held):
            raise CallerError(f"{len(order)} groups cannot be split into fitting and judging; give more pairs")
        found.append((fit.astype(np.int64), held.astype(np.int64)))
    return found


def _three_way(margins_P: Floats, shares_P: Floats, threshold: float) -> NDArray[np.bool_]:
    said = np.where(np.abs(margins_P) <= threshold, 0, np.sign(margins_P))
    return np.asarray(said == np.sign(shares_P - 0.5))
