"""Rows of a score table -> every score, spread, reason and size with an impossible value."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from iqa_core.corpus.plan.plan import Contract
from iqa_core.fusion import FusionWeights, fuse
from iqa_core.questions import ColumnScale, yes_column
from iqa_core.records import FIVE_LEVELS, Finish, Reason
from iqa_core.tables.scores.columns import REJECTED, REWARD, SCORED
from iqa_core.written.columns import FINISH, PARSED

TOLERANCE = 1e-3
"""Largest error of a mean of levels through rounding to float32: a thousandth of the distance of two levels."""

HEX_DIGITS = "^[0-9a-f]{64}$"


def implausible(rows: pa.Table, contract: Contract) -> Iterator[str]:
    """A sentence per column with impossible values. rows: all columns of the score table."""
    status = rows.column("status")
    is_scored = pc.fill_null(pc.equal(status, SCORED), False).to_numpy(zero_copy_only=False)
    unknown = sorted({str(value) for value in status.unique().to_pylist()} - {SCORED, REJECTED})
    if unknown:
        yield f"has rows that are neither scored nor rejected ({unknown[0]})"
        return
    yield from _faults_of_reasons(rows, is_scored)
    for name in contract.dimensions:
        scale = contract.scale_of(name)
        yield from _faults_of_column(rows, name, is_scored, scale.range.low, scale.range.high)
        if contract.written is None:
            yield from _faults_of_column(rows, f"{name}_std", is_scored, 0, scale.max_std)
        else:
            # null where a single sample has none
            is_known = is_scored & _mask(rows.column(f"{name}_std").is_valid())
            yield from _faults_of_column(rows, f"{name}_std", is_known, 0, scale.range.max_sample_std)
        if scale.is_group:
            yield from _faults_of_group(rows, yes_column(name), is_scored)
        elif contract.probs:
            yield from _faults_of_probs(rows, name, is_scored, scale)
    if contract.written is not None:
        yield from _faults_of_written(rows, is_scored)
    best = FIVE_LEVELS.best
    yield from _faults_of_column(rows, REWARD, is_scored, -best, best)  # weights may be negative
    weights = FusionWeights.equal(contract.dimensions).within(contract.scales)
    if contract.fusion == weights.digest:
        scores_NK = np.stack([_numbers(rows, name)[is_scored] for name in contract.dimensions], axis=1)
        differing = ~(np.abs(fuse(scores_NK, weights) - _numbers(rows, REWARD)[is_scored]) <= TOLERANCE)
        yield from _counted(differing, "reward is not the mean of the dimensions")


def _faults_of_reasons(rows: pa.Table, is_scored: NDArray[np.bool_]) -> Iterator[str]:
    """Rows with a reason that are scored, or without one that are not; scored rows without a digest, size or format."""
    reasons, details = rows.column("reason"), rows.column("detail")
    codes = pa.array([str(reason) for reason in Reason])
    yield from _counted(~_mask(pc.is_in(reasons, codes))[~is_scored], "reason is none of the codes, though rejected")
    yield from _counted(_mask(reasons.is_valid())[is_scored], "reason is given, though scored")
    yield from _counted(_mask(details.is_valid()) == is_scored, "detail is not there exactly where it is rejected")
    is_digest = _mask(pc.match_substring_regex(rows.column("sha256"), HEX_DIGITS))
    yield from _counted(~is_digest & (is_scored | _mask(rows.column("sha256").is_valid())), "sha256 is no digest")
    for name in ("width", "height", "frames"):
        is_size = _mask(pc.greater_equal(rows.column(name), 1))
        yield from _counted(~is_size & is_scored, f"{name} is no number over 0, though scored")
    yield from _counted(~_mask(rows.column("format").is_valid())[is_scored], "format is not there, though scored")


def _faults_of_column(
    rows: pa.Table, name: str, is_scored: NDArray[np.bool_], low: float, high: float
) -> Iterator[str]:
    """Rows without a number from low to high though scored, or with one though rejected."""
    values = _numbers(rows, name)
    is_there = _mask(rows.column(name).is_valid())
    yield from _counted(is_there & ~is_scored, f"{name} is given, though rejected")
    is_number = (values >= low - TOLERANCE) & (values <= high + TOLERANCE)
    yield from _counted((~is_number | ~is_there) & is_scored, f"{name} is not from {low:g} to {high:g}, though scored")


def _faults_of_probs(rows: pa.Table, name: str, is_scored: NDArray[np.bool_], scale: ColumnScale) -> Iterator[str]:
    """Rows whose probabilities do not sum to 1, or do not have the score as their mean worth."""
    probs_NA = yield from _lists(rows, f"{name}_probs", is_scored)
    if probs_NA is None or not len(probs_NA):
        return
    if probs_NA.shape[1] != len(scale.worths):
        yield f"{name}_probs has rows of other lengths"
        return
    is_fit = (probs_NA >= 0).all(axis=1) & (np.abs(probs_NA.sum(axis=1) - 1) <= TOLERANCE)
    largest = max(map(abs, scale.worths))
    is_fit &= np.abs(probs_NA @ np.asarray(scale.worths) - _numbers(rows, name)[is_scored]) <= largest * TOLERANCE
    yield from _counted(~is_fit, f"{name}_probs do not have the score as their mean")


def _faults_of_group(rows: pa.Table, name: str, is_scored: NDArray[np.bool_]) -> Iterator[str]:
    """Rows in which a statement's probability of yes is none."""
    yes_NS = yield from _lists(rows, name, is_scored)
    if yes_NS is not None:
        is_odd_N = np.logical_or.reduce(~((yes_NS >= 0) & (yes_NS <= 1 + TOLERANCE)), axis=1)
        yield from _counted(is_odd_N, f"{name} is not from 0 to 1")


def _faults_of_written(rows: pa.Table, is_scored: NDArray[np.bool_]) -> Iterator[str]:
    """Rows that are scored though no answer was parsed, or whose answer ended in no known way."""
    num_parsed = pc.fill_null(rows.column(PARSED), 0).to_numpy()
    yield from _counted((num_parsed >= 1) != is_scored, f"{PARSED} is not 1 or more exactly where it is scored")
    is_ended = _mask(pc.is_in(rows.column(FINISH), pa.array([str(finish) for finish in Finish])))
    yield from _counted(is_ended != is_scored, f"{FINISH} is none of the codes exactly where it is scored")


def _lists(rows: pa.Table, name: str, is_scored: NDArray[np.bool_]) -> Generator[str, None, NDArray[np.float64] | None]:
    """Lists of scored rows, shape (N, their length); None, and a fault, where they are not of one length."""
    column = rows.column(name)
    yield from _counted(_mask(column.is_valid()) != is_scored, f"{name} are not there exactly where it is scored")
    given = [values or [] for values in column.filter(pa.array(is_scored)).to_pylist()]
    length = max(map(len, given), default=0)
    if any(len(values) != length or None in values for values in given) or (given and not length):
        yield f"{name} has rows of other lengths"
        return None
    return np.array(given, np.float64).reshape(len(given), length)


def _numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """Values of a column, shape (N,); NaN where it is null."""
    return pc.fill_null(rows.column(name).cast(pa.float64()), np.nan).to_numpy()


def _mask(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(bool)


def _counted(is_fault: NDArray[np.bool_], what: str) -> Iterator[str]:
    count = int(np.count_nonzero(is_fault))
    if count:
        yield f"{count:,} {'row' if count == 1 else 'rows'}: {what}"
