"""Rows of the tables of parts of images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from iqa_core.grounding.boxes import Box, UserBox
from iqa_core.grounding.locating import Located, Region
from iqa_core.records import Reason, Rejection
from iqa_core.tables.regions.columns import (
    GROUNDED,
    GROUNDING_TABLE,
    REGION,
    REGIONS_TABLE,
    grounded_row,
    region_rows,
)

CELLS = np.array([[4, 3], [2, 3]], np.float32)
LOCATED = Located(3.5, CELLS, (1, 0), Box(0, 50, 60, 50), CELLS.max() - CELLS)
ALIKE = Located(3.0, np.full((2, 2), 3, np.float32), None, None, np.zeros((2, 2), np.float32))
FAILED = Rejection(Reason.CORRUPT, "its header is broken")


def test_a_located_image_has_the_point_of_its_worst_cell() -> None:
    z = np.array([[1, np.nan], [-3, 0]])
    [row] = pa.Table.from_pylist([grounded_row("noise", LOCATED, 120, 100, z)], GROUNDED).to_pylist()
    assert (row["dimension"], row["status"], row["score"], row["method"]) == ("noise", "located", 3.5, "views")
    assert (row["x"], row["y"], row["area_share"]) == (30, 75, 0.25)
    assert (row["cell_scores"], row["cell_z"]) == ([4, 3, 2, 3], [1, None, -3, 0])
    assert row["grid_max"] == 2
    assert [*row["grid"]] == [0, 128, 255, 128], "rows from the top"
    assert row["p_whole"] is row["cell_probs"] is row["text"] is row["reason"] is None


def test_what_was_not_located_is_null_and_never_the_centre() -> None:
    rows = [grounded_row("noise", ALIKE, 120, 100, None), grounded_row("noise", FAILED, None, None, None)]
    alike, failed = pa.Table.from_pylist(rows, GROUNDED).to_pylist()
    assert (alike["status"], alike["score"], alike["cell_scores"]) == ("unlocated", 3, [3, 3, 3, 3])
    assert (failed["status"], failed["reason"], failed["detail"]) == ("failed", "corrupt", "its header is broken")
    assert failed["score"] is failed["cell_scores"] is failed["grid"] is failed["method"] is None
    for row in (alike, failed):
        assert row["x"] is row["y"] is row["area_share"] is row["cell_z"] is None
        assert region_rows("noise", ALIKE) == region_rows("noise", FAILED) == []


def test_each_box_of_the_user_has_its_row_behind_the_worst_cell() -> None:
    boxes = [UserBox("a", "face", Box(-10, 0, 30, 30)), UserBox("b", None, Box(500, 0, 9, 9))]
    results: list[Region | Rejection] = [
        Region(Box(0, 0, 20, 30), {"noise": 4.25}, 6),
        Rejection(Reason.TOO_SMALL, "it lies outside"),
    ]
    rows = region_rows("noise", LOCATED, boxes, results)
    cell, inside, outside = pa.Table.from_pylist(rows, REGION).to_pylist()
    assert [row["ordinal"] for row in (cell, inside, outside)] == [0, 1, 2]
    assert (cell["method"], cell["score"], cell["box_id"], cell["box_y"], cell["area"]) == ("views", 2, None, 50, 3000)
    assert (inside["method"], inside["score"], inside["box_id"], inside["label"]) == ("box", 4.25, "a", "face")
    assert [inside[f"box_{side}"] for side in "xywh"] == [0, 0, 20, 30], "the part of it that lies in the image"
    assert (inside["point_x"], inside["point_y"], inside["num_tokens"]) == (10, 15, 6)
    assert (outside["score"], outside["box_x"], outside["reason"], outside["box_id"]) == (None, None, "too_small", "b")
    assert cell["mask"] is inside["mask"] is outside["mask"] is None
    with pytest.raises(ValueError, match="zip"):
        region_rows("noise", None, boxes, results[:1])


def test_no_column_is_there_twice() -> None:
    for schema in (GROUNDING_TABLE, REGIONS_TABLE):
        assert len({*schema.names}) == len(schema.names)
