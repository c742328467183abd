"""Curves -> scores that are given: on another scale, in the same order, and never beyond its ends."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.records import Assessment
from iqa_core.rubrics import load_any_rubric

RUBRIC = load_any_rubric("interior-written-v1")
CURVE = ((1.0, 3.0, 5.0), (1.5, 2.0, 4.5))
"""Slopes of .25 and 1.25."""


def calibration(**changes: Any) -> Calibration:
    values = {"rubric": RUBRIC.id, "rubric_sha256": RUBRIC.digest, "images": 40, "curves": {"quality": CURVE}}
    return Calibration.model_validate(values | changes)


def assessment(*scores: float, std: float = math.nan) -> Assessment:
    return Assessment(np.array(scores, np.float32), np.full(len(scores), std, np.float32), ())


def test_scores_go_by_the_curve_and_spreads_by_its_slope() -> None:
    found = calibration().given(assessment(2.0, 2.0, std=0.4), ["layout", "quality"])
    assert found.scores_K.tolist() == [2.0, 1.75]
    assert found.stds_K.tolist() == pytest.approx([0.4, 0.1])
    assert found.scores_K.dtype == found.stds_K.dtype == np.float32


def test_no_score_is_beyond_an_end_and_no_spread_larger_than_two_samples_have() -> None:
    ends = [calibration().given(assessment(score, std=2.8), ["quality"]) for score in (0.8, 1.0, 5.0, 5.5)]
    assert [float(one.scores_K[0]) for one in ends] == [1.5, 1.5, 4.5, 4.5]
    assert [float(one.stds_K[0]) for one in ends] == pytest.approx([0.7, 0.7, 2 * math.sqrt(2), 2 * math.sqrt(2)])
    assert np.isnan(calibration().given(assessment(2.0), ["quality"]).stds_K[0]), "a single answer has none"


@given(st.integers(100, 499), st.integers(1, 64))
def test_the_order_of_means_is_kept_however_near_they_are(hundredths: int, samples: int) -> None:
    """Means over as many samples with two decimals, by a curve as flat as one may be fitted."""
    flat = calibration(curves={"quality": ((1.0, 5.0), (3.0, 3.4))})
    low, high = (flat.given(assessment(hundredths / 100 + i / 100 / samples), ["quality"]) for i in range(2))
    assert low.scores_K[0] < high.scores_K[0]


def test_the_digest_is_over_what_determines_a_score() -> None:
    known = calibration()
    assert calibration(images=99).digest == known.digest
    others = [
        calibration(rubric="other"),
        calibration(rubric_sha256="0" * 64),
        calibration(curves={"layout": CURVE}),
        calibration(curves={"quality": (CURVE[0], (1.5, 2.0, 4.6))}),
    ]
    assert len({known.digest, *(one.digest for one in others)}) == 5
    assert known.is_for(RUBRIC)
    assert not any(one.is_for(RUBRIC) for one in others[:2])
    assert not known.is_for(load_any_rubric("perception-v1"))
    assert pickle.loads(pickle.dumps(known)) == known


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (((1, 3, 5), (1, 2, 2)), "quality: what is given must rise"),
        (((1, 5), (4, 2)), "quality: what is given must rise"),
        (((1.5, 5), (1, 5)), "quality: a curve goes from the score 1 to 5"),
        (((1, 5), (0.5, 5)), "quality: a curve has finite scores, and ratings from 1 to 5"),
        (((1, 5), (1, 2, 3)), "quality: a curve has two or more ascending scores"),
    ],
)
def test_a_curve_that_would_change_an_order_or_leave_the_scale_is_refused(points: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        calibration(curves={"quality": points})
