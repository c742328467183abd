"""Every value that no run can have written is counted, by its column."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from iqa_core.fusion import FusionWeights
from iqa_core.questions import ColumnScale
from iqa_core.records import ScoreRange
from iqa_core.tables.scores.columns import schema_of, table_schema
from iqa_core.tables.scores.plausibility import implausible
from iqa_core.written.columns import WrittenColumns
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


UNLIKE = {
    DIMENSIONS[0]: ColumnScale(ScoreRange(9, 1), (9, 5, 1)),
    DIMENSIONS[1]: ColumnScale(ScoreRange(0, 1), (), is_group=True),
}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, None),
        ({DIMENSIONS[0]: 9.1}, f"1 row: {DIMENSIONS[0]} is not from 1 to 9, though scored"),
        ({f"{DIMENSIONS[0]}_std": 4.1}, f"1 row: {DIMENSIONS[0]}_std is not from 0 to 4, though scored"),
        ({f"{DIMENSIONS[0]}_probs": [0.5, 0.0, 0.5]}, f"1 row: {DIMENSIONS[0]}_probs do not have the score as their"),
        ({f"{DIMENSIONS[0]}_probs": [0.5, 0.5]}, f"{DIMENSIONS[0]}_probs has rows of other lengths"),
        ({DIMENSIONS[1]: 1.1}, f"1 row: {DIMENSIONS[1]} is not from 0 to 1, though scored"),
        ({f"{DIMENSIONS[1]}_yes": [0.5, 1.5]}, f"1 row: {DIMENSIONS[1]}_yes is not from 0 to 1"),
        ({f"{DIMENSIONS[1]}_yes": None}, f"1 row: {DIMENSIONS[1]}_yes are not there exactly where it is scored"),
        ({"reward": 3.9}, "1 row: reward is not the mean of the dimensions"),
    ],
)
def test_a_row_on_scales_of_its_own(change: dict[str, Any], what: str | None) -> None:
    first, second = DIMENSIONS[:2]
    rest: tuple[str, ...] = tuple(DIMENSIONS[2:])
    weights = FusionWeights.equal(DIMENSIONS).within(UNLIKE)
    contract = replace(WANTED, probs=True, fusion=weights.digest, scales=UNLIKE)
    row = {
        **{name: value for name, value in SCORED.items() if not name.startswith((first, second))},
        first: 3.0,
        f"{first}_std": 1.0,
        f"{first}_probs": [0.0, 0.5, 0.5],
        second: 0.75,
        f"{second}_std": 0.1,
        f"{second}_yes": [0.5, 1.0],
        "reward": (4 + 4 + 3.25 * len(rest)) / len(DIMENSIONS),
    }
    schema = schema_of(contract)
    found = list(implausible(pa.Table.from_pylist([row, {**row, **change}, REJECTED], schema), contract))
    assert found == [] if what is None else any(fault.startswith(what) for fault in found), found


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, None),
        ({f"{DIMENSIONS[0]}_std": 2.83}, f"1 row: {DIMENSIONS[0]}_std is not from 0 to 2.82843, though scored"),
        ({"written_parsed": 0}, "1 row: written_parsed is not 1 or more exactly where it is scored"),
        ({"written_parsed": None}, "1 row: written_parsed is not 1 or more exactly where it is scored"),
        ({"written_finish": "eos"}, "1 row: written_finish is none of the codes exactly where it is scored"),
    ],
)
def test_a_row_of_what_was_written(change: dict[str, Any], what: str | None) -> None:
    contract = replace(WANTED, written=WrittenColumns())
    row = {**SCORED, "written_parsed": 1, "written_finish": "stop", **{f"{name}_std": None for name in DIMENSIONS}}
    drawn = {**row, f"{DIMENSIONS[0]}_std": 2.8, "written_finish": "length"}
    schema = schema_of(contract)
    found = list(implausible(pa.Table.from_pylist([row, drawn, {**row, **change}, REJECTED], schema), contract))
    assert found == ([] if what is None else [what])
