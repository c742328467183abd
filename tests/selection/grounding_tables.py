"""What is said of images -> an output of the grounding job as it leaves it: plan, contract and committed chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from iqa_core.corpus.chunks import Span, chunk_name
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.segments import Draft
from iqa_core.corpus.sources import Kind
from iqa_core.grounding.boxes import Box, UserBox
from iqa_core.grounding.locating import Located, Region
from iqa_core.records import Reason, Rejection
from iqa_core.storage.storage import Storage
from iqa_core.tables.regions.columns import grounded_row, region_rows
from iqa_core.tables.regions.ledger import GroundingLedger
from iqa_core.tables.regions.nesting import GROUNDING, NESTED, REGIONS

DIMENSION = "lighting"
WIDTH, HEIGHT = 64, 48


def located(cells: Sequence[Sequence[float]], score: float = 3.0) -> Located:
    """What is said of an image of WIDTH x HEIGHT pixels; the lowest score is the worst."""
    scores = np.asarray(cells, np.float32)
    rows, columns = scores.shape
    if scores.min() == scores.max():
        return Located(score, scores, None, None, np.zeros_like(scores))
    row, column = divmod(int(scores.argmin()), columns)
    width, height = WIDTH / columns, HEIGHT / rows
    box = Box(column * width, row * height, width, height)
    return Located(score, scores, (row, column), box, scores.max() - scores)


def write_grounding(
    output: Path,
    found: Mapping[str, Located | Rejection],
    boxes: Mapping[str, Sequence[tuple[UserBox, float | None]]] | None = None,
    chunk_images: int = 2,
) -> Path:
    """found: by key, of images as `score_tables.filled` makes them. boxes: with the score, None outside the image."""
    storage = Storage()
    contract = Contract(
        "fedcba9876543210", {}, chunk_images, False, (DIMENSION,), "equal", {}, pa.schema([]), grounding={"cells": 2}
    )
    plan = Plan(storage, str(output))
    plan.create(contract)
    starts = range(0, len(found), chunk_images)
    plan.add_segment(0, *Draft.of((Kind.IMAGE, (_span(index),)) for index in range(len(starts))).segments())
    rows = [_row(key, one, (boxes or {}).get(key, ())) for key, one in found.items()]
    for index, start in enumerate(starts):
        table = pa.Table.from_pylist(rows[start : start + chunk_images], NESTED)
        GroundingLedger.of(storage, str(output), contract).commit(chunk_name(0, index), table, {})
    return output


def _row(key: str, found: Located | Rejection, boxes: Sequence[tuple[UserBox, float | None]]) -> dict[str, Any]:
    results: list[Region | Rejection] = [
        Rejection(Reason.TOO_SMALL, "outside") if score is None else Region(one.box, {DIMENSION: score}, 4)
        for one, score in boxes
    ]
    return {
        "key": key,
        "source": f"/pictures/{key}",
        "width": WIDTH,
        "height": HEIGHT,
        "status": "scored",
        GROUNDING: [grounded_row(DIMENSION, found, WIDTH, HEIGHT, None)],
        REGIONS: region_rows(DIMENSION, found, [one for one, _ in boxes], results),
    }


def _span(index: int) -> Span:
    return Span(f"/pictures/{index}", str(index), 1, "", 0, 1, 1)
