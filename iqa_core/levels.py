"""Logits of a question's answers -> probabilities -> expected worth and spread; answers -> columns; bins over a scale.

Shape suffixes: A answers of a question, worst to best (five levels, unless a rubric says otherwise), Q questions of the
rubric, N any leading shape (images, or images and Q). Rows with fewer answers than others are padded.
Q-Align (arXiv 2312.17090), section 3; SA-IQA (arXiv 2512.05098).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_core.questions import LEVELS, Column, Question
from iqa_core.records import FIVE_LEVELS, Assessment, RatingScale, Reason, Rejection

SCORING_VERSION = 1
"""Part of the fingerprint; raised by hand when the same checkpoint, rubric and image would get another score."""

SUM_TOLERANCE = 1e-4
"""How far probabilities may be from 1 in sum: five float32 roundings are below 1e-6, bfloat16 ones are not accepted."""

PADDING = -np.inf
"""The logit of an answer that a question does not have, where another of the rubric has more."""

NOT_FINITE = Rejection(Reason.ASSESSOR_FAILED, "the model returned a level logit that is not finite")
ANSWER_NOT_FINITE = replace(NOT_FINITE, detail="the model returned the logit of an answer that is not finite")
"""The same where a question of the rubric has answers of its own."""

_LEVELS_A = np.asarray(FIVE_LEVELS.levels, dtype=np.float64)


def level_probabilities(logits_NA: ArrayLike, is_answer_NA: ArrayLike = True) -> NDArray[np.float32]:
    """Softmax over the answers, in float64, shape as given; each row sums to 1, and padding is 0.

    is_answer_NA: False where a row is padded. Raises ValueError on a logit of an answer that is not finite: a
    probability is never guessed.
    """
    logits = np.asarray(logits_NA, dtype=np.float64)
    if not (np.isfinite(logits) | ~np.asarray(is_answer_NA)).all():
        raise ValueError("the logit of an answer is not finite")
    logits = np.where(is_answer_NA, logits, PADDING)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def expected_score(probs_NA: ArrayLike, worths_NA: ArrayLike = _LEVELS_A) -> NDArray[np.float32]:
    """Mean worth of the answers, shape N.

    worths_NA: of each answer, 1 to 5 by default. Raises ValueError on a row that is not a distribution over so many
    answers: a score is never guessed.
    """
    worths = np.asarray(worths_NA, dtype=np.float64)
    return _mean(_distribution(probs_NA, worths), worths).astype(np.float32)


def score_std(probs_NA: ArrayLike, worths_NA: ArrayLike = _LEVELS_A) -> NDArray[np.float32]:
    """Standard deviation of the worth, shape N, at most half the distance of the largest worth from the smallest.

    Raises ValueError as `expected_score` does.
    """
    worths = np.asarray(worths_NA, dtype=np.float64)
    probs = _distribution(probs_NA, worths)
    distance = worths - _mean(probs, worths)[..., None]
    return np.sqrt((probs * distance**2).sum(axis=-1)).astype(np.float32)


class Readout:
    """What the logits of a rubric's questions say about its columns."""

    def __init__(self, questions: Sequence[Question], columns: Sequence[Column]) -> None:
        """Arguments: those of a rubric, `Rubric.questions` and `Rubric.columns`."""
        self._columns = tuple(columns)
        counts_Q = [len(question.scale.worths) for question in questions]
        self._is_answer_QA = np.arange(max(counts_Q)) < np.asarray(counts_Q)[:, None]
        self._worths_QA = np.zeros(self._is_answer_QA.shape)
        self._worths_QA[self._is_answer_QA] = [worth for question in questions for worth in question.scale.worths]
        self._has_groups = any(column.scale.is_group for column in columns)
        self._counts_Q = counts_Q
        are_levels = all(question.scale.worths == LEVELS.worths for question in questions)
        self._not_finite = NOT_FINITE if are_levels else ANSWER_NOT_FINITE

    def assessments(self, logits_NQA: ArrayLike) -> list[Assessment | Rejection]:
        """An assessment per image; `assessor_failed` where the logit of an answer is not finite.

        A batch at a time: for a single image, nearly all of 0.1 ms goes into calling numpy.
        Raises ValueError when the array has another shape than (images, questions, most answers of a question).
        """
        logits = np.asarray(logits_NQA, dtype=np.float64)
        if logits.shape != (len(logits), *self._worths_QA.shape):
            raise ValueError(
                f"images, and {self._worths_QA.shape} questions and their levels or other answers, worst to best, are "
                f"expected; shape is {logits.shape}"
            )
        sound_N = np.logical_and.reduce(np.isfinite(logits) | ~self._is_answer_QA, axis=(1, 2))
        probs_NQA = level_probabilities(logits[sound_N], self._is_answer_QA)
        sound = map(
            self._assessment,
            expected_score(probs_NQA, self._worths_QA),
            score_std(probs_NQA, self._worths_QA),
            probs_NQA,
        )
        return [next(sound) if is_sound else self._not_finite for is_sound in sound_N]

    def _assessment(
        self, scores_Q: NDArray[np.float32], stds_Q: NDArray[np.float32], probs_QA: NDArray[np.float32]
    ) -> Assessment:
        probs_K = tuple(probs_A[:count] for probs_A, count in zip(probs_QA, self._counts_Q, strict=True))
        if not self._has_groups:
            return Assessment(scores_Q, stds_Q, probs_K)
        scores_K, stds_K = np.empty(len(self._columns), np.float32), np.empty(len(self._columns), np.float32)
        probs: list[NDArray[np.float32]] = []
        for k, column in enumerate(self._columns):
            places = list(column.questions)
            shares = np.asarray(column.shares)
            # statements are taken for independent of one another: variances of the shares add up
            scores_K[k] = (shares * scores_Q[places]).sum()
            stds_K[k] = np.sqrt(((shares * stds_Q[places]) ** 2).sum())
            probs.append(scores_Q[places] if column.scale.is_group else probs_K[places[0]])
        return Assessment(scores_K, stds_K, tuple(probs))


def bin_edges(scale: RatingScale, per_level: int) -> NDArray[np.float64]:
    """Edges of equal bins over a scale, so many from one level to the next: shape (bins + 1,), ascending."""
    return np.linspace(scale.worst, scale.best, (scale.best - scale.worst) * per_level + 1)


def bin_counts(values_N: NDArray[np.floating], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values fall into each bin, shape (bins,); a value beyond an end counts in the bin at that end."""
    return np.histogram(np.clip(values_N, float(edges[0]), float(edges[-1])), edges)[0]


def _distribution(probs_NA: ArrayLike, worths_NA: NDArray[np.float64]) -> NDArray[np.float64]:
    probs = np.asarray(probs_NA, dtype=np.float64)
    if probs.ndim == 0 or probs.shape[-1] != worths_NA.shape[-1]:
        raise ValueError(
            f"last axis must hold the {worths_NA.shape[-1]} levels or other answers, worst to best; "
            f"shape is {probs.shape}"
        )
    totals = probs.sum(axis=-1, keepdims=True)
    if not ((probs >= 0).all() and (np.abs(totals - 1) <= SUM_TOLERANCE).all()):
        raise ValueError("a row of probabilities is negative, not finite, or does not sum to 1")
    return probs / totals


def _mean(probs_NA: NDArray[np.float64], worths_NA: NDArray[np.float64]) -> NDArray[np.float64]:
    # Not a matrix product: BLAS may sum in another order for another batch size.
    return (probs_NA * worths_NA).sum(axis=-1)


REWARD_BOUNDS: tuple[float, ...] = tuple(bin_edges(FIVE_LEVELS, per_level=5)[1:].round(1).tolist())
"""Upper bounds of a reward's bins, 1.2, 1.4, … 5.0: Prometheus' buckets, of a job and of the endpoint."""
