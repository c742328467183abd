"""Scores and opinions of several attributes -> whether they are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from iqa_core.agreement.matrix import told_apart

NAMES = ("sharpness", "colour", "noise")


def test_the_own_attribute_agrees_best_where_they_are_told_apart() -> None:
    random = np.random.default_rng(0)
    truths = random.uniform(1, 5, (200, 3))
    found = told_apart(NAMES, truths + random.normal(0, 0.3, truths.shape), NAMES, truths)
    assert found.mixed_up == ()
    assert all(found.srcc[a][a] > 0.9 for a in range(3))  # type: ignore[operator]
    assert all(abs(found.srcc[a][b]) < 0.3 for a in range(3) for b in range(3) if a != b)  # type: ignore[arg-type]
    assert found.images == ((200,) * 3,) * 3


def test_one_impression_that_is_said_for_each_is_found() -> None:
    truths = np.random.default_rng(1).uniform(1, 5, (200, 3))
    impression = truths @ [0.6, 0.3, 0.1]
    found = told_apart(NAMES, np.stack([impression] * 3, axis=1), NAMES, truths)
    assert found.mixed_up == ("colour", "noise")


def test_missing_numbers_are_left_out_of_their_own_places() -> None:
    truths = np.arange(24, dtype=float).reshape(8, 3)
    scores = truths.copy()
    scores[0, 1] = np.nan
    truths[1, 2] = np.nan
    found = told_apart(NAMES, scores, NAMES, truths)
    assert found.images == ((8, 8, 7), (7, 7, 6), (8, 8, 7))
    constant = told_apart(NAMES[:1], np.ones((8, 1)), NAMES, truths)
    assert constant.srcc == ((None, None, None),)
    assert constant.mixed_up == ("sharpness",)
    assert told_apart(NAMES[1:2], scores[:, 1:2], NAMES, truths).mixed_up == ("colour",), "all columns rise alike"


def test_numbers_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="attributes"):
        told_apart(NAMES, np.ones((8, 3)), NAMES, np.ones((7, 3)))
