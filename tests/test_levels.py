"""Level logits -> score and spread: golden vector T1, what holds for all logits, and bins over a scale."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iqa_core.levels import (
    PADDING,
    REWARD_BOUNDS,
    Readout,
    bin_counts,
    bin_edges,
    expected_score,
    level_probabilities,
    score_std,
)
from iqa_core.records import Assessment, RatingScale, Reason, Rejection
from iqa_core.rubrics import Rubric, load_rubric


def readout(count: int) -> Readout:
    rubric = load_rubric("interior-v1")
    return Readout(rubric.questions[:count], rubric.columns[:count])


LOGITS = arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32))


def test_golden_vector() -> None:
    """Origin: Q-Align's formula, worked out by hand for excellent..bad = 18, 20, 17, 14, 12."""
    probs = level_probabilities([12, 14, 17, 20, 18])
    np.testing.assert_allclose(probs, [0.000282, 0.002087, 0.041911, 0.841796, 0.113925], atol=1e-6)
    assert float(expected_score(probs)) == pytest.approx(4.066994, abs=1e-6)
    assert float(score_std(probs)) == pytest.approx(0.402784, abs=1e-6)


@given(LOGITS)
def test_probabilities_are_distributions_and_scores_lie_in_range(logits_NL: np.ndarray) -> None:
    probs = level_probabilities(logits_NL)
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-5)
    scores, stds = expected_score(probs), score_std(probs)
    assert ((scores >= 1) & (scores <= 5)).all()
    assert ((stds >= 0) & (stds <= 2)).all()
    assert probs.dtype == scores.dtype == stds.dtype == np.float32


@given(LOGITS, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(logits_NL: np.ndarray, shift: float) -> None:
    logits = logits_NL.astype(np.float64)
    np.testing.assert_allclose(level_probabilities(logits + shift), level_probabilities(logits), atol=1e-6)


@given(LOGITS)
def test_reversed_levels_mirror_the_score(logits_NL: np.ndarray) -> None:
    probs = level_probabilities(logits_NL)
    np.testing.assert_allclose(expected_score(probs[:, ::-1]), 6 - expected_score(probs), atol=1e-5)
    np.testing.assert_allclose(score_std(probs[:, ::-1]), score_std(probs), atol=1e-5)


@given(LOGITS)
def test_a_row_scores_the_same_alone(logits_NL: np.ndarray) -> None:
    together = expected_score(level_probabilities(logits_NL))
    assert [float(expected_score(level_probabilities(row))) for row in logits_NL] == together.tolist()


def test_certainty_has_no_spread_and_disagreement_the_most() -> None:
    assert float(score_std([0, 0, 0, 0, 1])) == 0
    assert float(expected_score([0, 0, 0, 0, 1])) == 5
    assert float(score_std([0.5, 0, 0, 0, 0.5])) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        level_probabilities([0, 0, bad, 0, 0])
    (result,) = readout(2).assessments([[[0.0, 0, 0, 0, 1], [0, 0, bad, 0, 0]]])
    assert isinstance(result, Rejection)
    assert result.reason is Reason.ASSESSOR_FAILED


@pytest.mark.parametrize("probs", [[0.2] * 4, [0.3] * 5, [-0.2, 0.4, 0.4, 0.2, 0.2], [np.nan, 0.25, 0.25, 0.25, 0.25]])
def test_what_is_no_distribution_is_refused(probs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"does not sum to 1|levels"):
        expected_score(probs)
    with pytest.raises(ValueError, match=r"does not sum to 1|levels"):
        score_std(probs)


def test_a_batch_gives_each_image_what_it_has_alone() -> None:
    logits_NKL = np.random.default_rng(0).normal(size=(5, 4, 5), scale=5)
    logits_NKL[1, 2, 3] = np.nan
    levels = readout(4)
    found = levels.assessments(logits_NKL)
    for together, logits_KL in zip(found, logits_NKL, strict=True):
        (alone,) = levels.assessments(logits_KL[None])
        if isinstance(alone, Rejection):
            assert together == alone
            continue
        assert isinstance(together, Assessment)
        for name in ("scores_K", "stds_K", "probs_K"):
            np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
    assert [isinstance(one, Rejection) for one in found] == [False, True, False, False, False]
    assert all(isinstance(one, Rejection) for one in levels.assessments(np.full((2, 4, 5), np.nan)))


def test_an_assessment_has_one_entry_per_dimension() -> None:
    (result,) = readout(2).assessments([[[0, 0, 0, 0, 50], [50, 0, 0, 0, 0]]])
    assert isinstance(result, Assessment)
    np.testing.assert_allclose(result.scores_K, [5, 1])
    assert [len(probs) for probs in result.probs_K] == [5, 5]


UNLIKE = """
id = "unlike"
domain = "any"
prompt_version = 1
description = "Two, three and five answers, a checklist."
levels = ["bad", "poor", "fair", "good", "excellent"]
answer_prefix = "It is"
dimensions = [
    { name = "true", query = "Is it true?", answers = { Yes = 1, No = 0 } },
    { name = "noise", query = "How noisy?", answers = { low = 1, some = 4, much = 10 }, worst = 10, best = 1 },
    { name = "looks", query = "How does it look?" },
]
checklist = { query = "Is it true that {statement}?", answers = { no = 0, yes = 1 }, answer_prefix = "" }
statements = [
    { name = "dog", text = "a dog is there", group = "things" },
    { name = "dark", text = "it is dark" },
    { name = "cat", text = "a cat is there", group = "things", weight = 3 },
]
"""


def test_questions_with_unlike_answers_and_groups_become_columns() -> None:
    """Worked out by hand: logits of 0 are equal odds, 50 is certainty."""
    rubric = Rubric.model_validate(tomllib.loads(UNLIKE))
    logits_QA = np.full((6, 5), PADDING)
    for row, values in enumerate([[0, 0], [0, 0, 0], [0] * 5, [0, 50], [0, 0], [50, 0]]):
        logits_QA[row, : len(values)] = values
    (result,) = Readout(rubric.questions, rubric.columns).assessments(logits_QA[None])
    assert isinstance(result, Assessment)
    assert rubric.names == ("true", "noise", "looks", "things", "dark")
    np.testing.assert_allclose(result.scores_K, [0.5, 5, 3, 0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(result.stds_K, [0.5, 14**0.5, 2**0.5, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(result.probs_K[3], [1, 0], atol=1e-6)
    np.testing.assert_allclose(result.probs_K[4], [0.5, 0.5])
    np.testing.assert_allclose(result.probs_K[1], [1 / 3] * 3)
    logits_QA[0, 1] = np.nan
    [rejected] = Readout(rubric.questions, rubric.columns).assessments(logits_QA[None])
    assert isinstance(rejected, Rejection)
    assert rejected.detail == "the model returned the logit of an answer that is not finite"


def test_a_scale_is_cut_into_equal_bins() -> None:
    edges = bin_edges(RatingScale(3), per_level=2)
    assert edges.tolist() == [1, 1.5, 2, 2.5, 3]
    values = np.array([0.5, 1, 1.5, 2.75, 3, 3.5], np.float32)
    assert bin_counts(values, edges).tolist() == [2, 1, 0, 3]


def test_the_bounds_of_rewards_are_the_tenths_that_dashboards_ask_for() -> None:
    shown = "1.2 1.4 1.6 1.8 2.0 2.2 2.4 2.6 2.8 3.0 3.2 3.4 3.6 3.8 4.0 4.2 4.4 4.6 4.8 5.0"
    assert " ".join(map(str, REWARD_BOUNDS)) == shown
