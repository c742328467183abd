"""Numbers that a model writes about validation images, and opinions on them -> its calibration, and what that changes.

Shape suffixes: N images, P points of a curve, L lines between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement import Floats, spearman
from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.fusion import Curve
from iqa_core.records import RATING
from iqa_core.rubrics import WrittenRubric
from iqa_core.training.written_validation import Rated

MIN_IMAGES = 30
"""Fewer images, whose answers are parsed and that have an opinion, calibrate nothing: a curve would follow noise."""

INNER_SHARES = (0.1, 0.5, 0.9)
"""Shares of the scores below the points of a curve between its ends."""

MIN_SLOPE = 0.1
"""Of every line. Means of 64 answers with two decimals are 1.6e-4 apart, and 1.6e-5 then: float32 keeps their order."""

PRIOR = 1.0
"""How much a slope of 1 counts beside images: an error of 1 in it, as an image's error of one point."""

MIN_WIDTH = 0.05
"""Points of a curve are so far apart at least."""

FOLDS = 5
"""Parts of the images, each of which is left out once to see what a calibration does to images it has not seen."""

EXACTLY = 1e4
"""Weight of an equation that must hold, beside those of images."""

FEW = "opinions on {images} parsed images, and it takes {least}"
EQUAL, ALIKE = "all numbers are equal", "all opinions are equal"
NO_GAIN = "MAE of images that are left out would not fall"


@dataclass(frozen=True, slots=True)
class Change:
    """What was found for one attribute, in figures of the validation images."""

    attribute: str
    images: int
    """Those with a parsed answer and an opinion."""
    reason: str | None = None
    """Why there is no curve; then there are no figures either."""
    mae: tuple[float, float] = (np.nan, np.nan)
    """Mean absolute error before and after, in points of 1 to 5."""
    mae_left_out: float = np.nan
    """After, of each image by a curve that was fitted without it."""
    srcc: tuple[float, float] = (np.nan, np.nan)
    """Rank correlation before and after."""

    def __str__(self) -> str:
        if self.reason is not None:
            return f"{self.attribute}: none; {self.reason}"
        mae, srcc = (f"{before:.3f} -> {after:.3f}" for before, after in (self.mae, self.srcc))
        return (
            f"{self.attribute}: MAE {mae} ({self.mae_left_out:.3f} on images left out of the fit), SRCC {srcc}, "
            f"{self.images:,} images"
        )


def calibrated(
    rubric: WrittenRubric, rated: Sequence[Rated], scores: Sequence[Mapping[str, float] | None]
) -> tuple[Calibration | None, tuple[Change, ...]]:
    """The calibration of what is written under the rubric, None where no attribute has a curve; a change per attribute.

    An attribute has one where there are MIN_IMAGES, and the mean absolute error falls on images that were left out.
    scores: attribute -> number from 1 (worst) to 5 (best), of each image, as the rubric decodes; None is unparsed.
    """
    found = [_of_attribute(name, *_pairs(name, rated, scores)) for name in rubric.names]
    curves = {change.attribute: (curve.scores, curve.ratings) for curve, change in found if curve is not None}
    changes = tuple(change for _, change in found)
    if not curves:
        return None, changes
    images = sum(said is not None for said in scores)
    return Calibration(rubric=rubric.id, rubric_sha256=rubric.digest, images=images, curves=curves), changes


def fitted(scores_N: Floats, opinions_N: Floats) -> Curve:
    """The rising curve from scores to opinions: least squares, in which a slope of 1 is what nothing is known means.

    Both on 1..5. It goes from the score 1 to 5, and stays inside 1 to 5, so that the ends clip nothing.
    """
    from scipy.optimize import nnls

    points_P = _points(scores_N)
    widths_L = np.diff(points_P)
    free = RATING.width * (1 - MIN_SLOPE)
    # Unknown are, 0 or more: what lies below the curve, what each line rises beside MIN_SLOPE, and what lies above.
    # They sum to `free`.
    shares_NL = np.clip((scores_N[:, None] - points_P[:-1]) / widths_L, 0, 1)
    ones_N1, zeros_N1 = np.ones((len(scores_N), 1)), np.zeros((len(scores_N), 1))
    of_images = np.hstack([ones_N1, shares_NL, zeros_N1])
    left_N = opinions_N - RATING.low - MIN_SLOPE * (scores_N - RATING.low)
    own = np.sqrt(PRIOR) * np.diag([0.0, *1 / widths_L, 0.0])
    wanted = np.sqrt(PRIOR) * np.array([0.0, *np.full(len(widths_L), 1 - MIN_SLOPE), 0.0])
    whole = EXACTLY * np.ones((1, len(widths_L) + 2))
    found, _ = nnls(np.vstack([of_images, own, whole]), np.concatenate([left_N, wanted, [EXACTLY * free]]))
    below, *rises, _ = found * (free / found.sum())
    given_P = RATING.low + below + np.concatenate([[0.0], np.cumsum(np.array(rises) + MIN_SLOPE * widths_L)])
    return Curve(_rounded(points_P), _rounded(given_P))


def _of_attribute(name: str, scores_N: Floats, opinions_N: Floats) -> tuple[Curve | None, Change]:
    images = len(scores_N)
    if images < MIN_IMAGES:
        return None, Change(name, images, FEW.format(images=images, least=MIN_IMAGES))
    if np.ptp(scores_N) == 0:
        return None, Change(name, images, EQUAL)
    if np.ptp(opinions_N) == 0:  # the curve would press all scores together, and nothing is known of their scale
        return None, Change(name, images, ALIKE)
    before, left_out = _mae(scores_N, opinions_N), _mae(_left_out(scores_N, opinions_N), opinions_N)
    if not left_out < before:
        return None, Change(name, images, NO_GAIN)
    curve = fitted(scores_N, opinions_N)
    given_N = curve(scores_N)
    srcc = spearman(scores_N, opinions_N), spearman(given_N, opinions_N)
    return curve, Change(name, images, None, (before, _mae(given_N, opinions_N)), left_out, srcc)


def _left_out(scores_N: Floats, opinions_N: Floats) -> Floats:
    """What is given for each image by a curve that was fitted without it and others."""
    given_N, fold_N = np.empty_like(scores_N), np.arange(len(scores_N)) % FOLDS
    for fold in range(FOLDS):
        is_out_N = fold_N == fold
        given_N[is_out_N] = fitted(scores_N[~is_out_N], opinions_N[~is_out_N])(scores_N[is_out_N])
    return given_N


def _pairs(name: str, rated: Sequence[Rated], scores: Sequence[Mapping[str, float] | None]) -> tuple[Floats, Floats]:
    """Scores and opinions of the images that have both."""
    both = [
        (said[name], each.ratings[name])
        for each, said in zip(rated, scores, strict=True)
        if said is not None and name in each.ratings
    ]
    found_N2 = np.array(both, np.float64).reshape(-1, 2)
    return found_N2[:, 0], found_N2[:, 1]


def _points(scores_N: Floats) -> NDArray[np.float64]:
    """Where lines begin and end: the ends of the scale, and quantiles that are not too near to them and one another."""
    kept = [RATING.low]
    for point in np.quantile(scores_N, INNER_SHARES).tolist():
        if kept[-1] + MIN_WIDTH <= point <= RATING.high - MIN_WIDTH:
            kept.append(point)
    return np.array([*kept, RATING.high])


def _rounded(values_P: NDArray[np.float64]) -> tuple[float, ...]:
    """To six decimals, as people read them; points are .05 apart, and rise by .005 at least."""
    return tuple(round(value, 6) for value in values_P.tolist())


def _mae(scores_N: Floats, opinions_N: Floats) -> float:
    return float(np.abs(scores_N - opinions_N).mean())
