"""Every value that no run can have written is counted, by its column."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from iqa_core.fusion import FusionWeights
from iqa_core.tables.scores.columns import table_schema
from iqa_core.tables.scores.plausibility import implausible
from tests.corpus.planned import DIMENSIONS, WANTED

CONTRACT = replace(WANTED, probs=True, fusion=FusionWeights.equal(DIMENSIONS).digest)

SCORED: dict[str, Any] = {
    "sha256": "0" * 64,
    "width": 24,
    "height": 24,
    "format": "png",
    "frames": 1,
    "status": "scored",
    **dict.fromkeys(DIMENSIONS, 3.25),
    **{f"{name}_std": 0.5 for name in DIMENSIONS},
    **{f"{name}_probs": [0.0, 0.0, 0.75, 0.25, 0.0] for name in DIMENSIONS},
    "reward": 3.25,
}

REJECTED: dict[str, Any] = {"status": "rejected", "reason": "corrupt", "detail": "it is broken", "width": 0}


def faults(*rows: dict[str, Any]) -> list[str]:
    schema = table_schema(DIMENSIONS, True, pa.schema([]))
    return list(implausible(pa.Table.from_pylist(rows, schema), CONTRACT))


def test_what_a_run_writes_has_no_fault() -> None:
    assert faults() == []
    assert faults(SCORED, REJECTED, SCORED) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"layout": None}, "1 row: layout is not from 1 to 5, though scored"),
        ({"layout": float("nan")}, "1 row: layout is not from 1 to 5, though scored"),
        ({"layout": 5.1}, "1 row: layout is not from 1 to 5, though scored"),
        ({"layout_std": -0.1}, "1 row: layout_std is not from 0 to 2, though scored"),
        ({"reward": float("inf")}, "1 row: reward is not from -5 to 5, though scored"),
        ({"reward": 3.3}, "1 row: reward is not the mean of the dimensions"),
        ({"layout": 3.3}, "1 row: layout_probs do not have the score as their mean"),
        ({"layout_probs": [0.0, 0.0, 1.25, -0.25, 0.0]}, "1 row: layout_probs do not have the score as their mean"),
        ({"layout_probs": [0.0, 0.0, 1.0]}, "layout_probs has rows of other lengths"),
        ({"layout_probs": None}, "1 row: layout_probs are not there exactly where it is scored"),
        ({"reason": "corrupt"}, "1 row: reason is given, though scored"),
        ({"detail": "it is broken"}, "1 row: detail is not there exactly where it is rejected"),
        ({"sha256": None}, "1 row: sha256 is no digest"),
        ({"width": 0}, "1 row: width is no number over 0, though scored"),
        ({"format": None}, "1 row: format is not there, though scored"),
        ({"status": "skipped"}, "has rows that are neither scored nor rejected (skipped)"),
        ({"status": None}, "has rows that are neither scored nor rejected (None)"),
    ],
)
def test_a_scored_row(change: dict[str, Any], what: str) -> None:
    assert what in faults(SCORED, {**SCORED, **change}, REJECTED)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"harmony": 3.0}, "1 row: harmony is given, though rejected"),
        ({"reward": 3.0}, "1 row: reward is given, though rejected"),
        ({"reason": None}, "1 row: reason is none of the codes, though rejected"),
        ({"reason": "tired"}, "1 row: reason is none of the codes, though rejected"),
        ({"detail": None}, "1 row: detail is not there exactly where it is rejected"),
        ({"sha256": "abc"}, "1 row: sha256 is no digest"),
    ],
)
def test_a_rejected_row(change: dict[str, Any], what: str) -> None:
    assert faults(SCORED, {**REJECTED, **change}) == [what]
