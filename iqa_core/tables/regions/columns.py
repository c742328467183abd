"""What is said of parts of images -> rows of the tables `grounding` and `regions`, each in one fixed schema.

`grounding` has one row per image and dimension that was asked about, `regions` one per box: the worst cell, where there
is one, and each box that a user brought. Coordinates are pixels of the upright original, x to the right, y down; what
was not located is null. The columns are a contract, see `docs/ground.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqa_core.corpus.chunks import LOCATION
from iqa_core.grounding.boxes import Box, UserBox
from iqa_core.grounding.locating import Located, Region
from iqa_core.records import Rejection

if TYPE_CHECKING:
    from numpy.typing import NDArray

REGIONS_VERSION = 1
"""Of both tables; raised by hand when a column changes its name, type or meaning."""

VIEWS, BOX = "views", "box"
"""Values of `method`: a cell of the grid was asked about; a box of the user's."""


class Status(StrEnum):
    """What is known of the place where an image is bad in a dimension."""

    LOCATED = "located"
    """The worst cell, or a point."""
    WHOLE = "whole"
    """It is bad everywhere."""
    NONE = "none"
    """It is bad nowhere."""
    UNLOCATED = "unlocated"
    """It cannot be told: all cells are alike, or nobody asked about cells."""
    FAILED = "failed"
    """The image was not read, prepared or assessed; `reason` says why."""


GROUNDED = pa.schema(
    [
        ("dimension", pa.string()),
        ("score", pa.float32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("method", pa.string()),
        ("cell_scores", pa.list_(pa.float32())),
        ("cell_z", pa.list_(pa.float32())),
        ("p_none", pa.float32()),
        ("p_part", pa.float32()),
        ("p_whole", pa.float32()),
        ("cell_probs", pa.list_(pa.float32())),
        ("cell_rows", pa.int32()),
        ("cell_columns", pa.int32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("spread", pa.float32()),
        ("sxx", pa.float32()),
        ("sxy", pa.float32()),
        ("syy", pa.float32()),
        ("grid", pa.binary()),
        ("grid_rows", pa.int32()),
        ("grid_cols", pa.int32()),
        ("grid_max", pa.float32()),
        ("area_share", pa.float32()),
        ("text", pa.string()),
    ]
)
"""What a row of `grounding` says of an image in one dimension. Columns of words and points are null for views."""

MASK = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
"""Height and width in pixels, and COCO's compressed run lengths; null where a region is nothing but its box."""

REGION = pa.schema(
    [
        ("dimension", pa.string()),
        ("ordinal", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float32()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("point_x", pa.float32()),
        ("point_y", pa.float32()),
        ("box_x", pa.float32()),
        ("box_y", pa.float32()),
        ("box_w", pa.float32()),
        ("box_h", pa.float32()),
        ("area", pa.float32()),
        ("mask", MASK),
        ("predicted_iou", pa.float32()),
        ("mask_choice", pa.int32()),
        ("method", pa.string()),
        ("box_id", pa.string()),
        ("num_tokens", pa.int32()),
    ]
)
"""What a row of `regions` says of one box in one dimension."""

IMAGE = pa.schema([("source", pa.string()), ("key", pa.string()), ("row", pa.int64())])
"""Columns of `regions` that say of which image it is."""

GROUNDING_TABLE = pa.schema([*LOCATION, *GROUNDED])
"""All columns of `grounding`."""

REGIONS_TABLE = pa.schema([*IMAGE, *REGION])
"""All columns of `regions`."""


def grounded_row(
    dimension: str, found: Located | Rejection, width: int | None, height: int | None, z: NDArray[np.floating] | None
) -> dict[str, Any]:
    """One row of GROUNDED, absent columns being null.

    found: where the image is worst in the dimension, or why it was not asked. width, height: of the upright original.
    z: of each cell against other images, (rows, columns), NaN where it is not known; None without a calibration.
    """
    if isinstance(found, Rejection):
        return {"dimension": dimension, "status": Status.FAILED, **_why(found)}
    grid, grid_max = found.map
    rows, columns = found.cell_scores.shape
    row = {
        "dimension": dimension,
        "score": found.score,
        "status": Status.UNLOCATED if found.box is None else Status.LOCATED,
        "method": VIEWS,
        "cell_scores": found.cell_scores.ravel(),
        "cell_z": None if z is None else [None if np.isnan(one) else float(one) for one in z.ravel()],
        "cell_rows": rows,
        "cell_columns": columns,
        "grid": grid.tobytes(),
        "grid_rows": rows,
        "grid_cols": columns,
        "grid_max": grid_max,
    }
    if found.box is None:
        return row
    assert width is not None, "an image with scores has a header"
    assert height is not None
    x, y = found.box.centre
    return {**row, "x": x, "y": y, "area_share": found.box.area / (width * height)}


def region_rows(
    dimension: str,
    found: Located | Rejection | None,
    boxes: Sequence[UserBox] = (),
    results: Sequence[Region | Rejection] = (),
) -> list[dict[str, Any]]:
    """Rows of REGION about one image in one dimension: its worst cell if there is one, then the user's boxes in order.

    found: None where cells were not asked about. results: one per box. A box without scores has a reason.
    """
    rows: list[dict[str, Any]] = []
    if isinstance(found, Located) and found.box is not None:
        assert found.cell is not None, "a worst cell has a box"
        rows.append({**_placed(found.box), "score": float(found.cell_scores[found.cell]), "method": VIEWS})
    for given, result in zip(boxes, results, strict=True):
        row: dict[str, Any] = {"box_id": given.box_id, "label": given.label, "method": BOX}
        if isinstance(result, Rejection):
            rows.append({**row, **_why(result)})
        else:
            said = {"score": result.scores[dimension], "num_tokens": result.num_tokens}
            rows.append({**row, **_placed(result.box), **said})
    return [{"dimension": dimension, "ordinal": ordinal, **row} for ordinal, row in enumerate(rows)]


def _placed(box: Box) -> Mapping[str, float]:
    x, y = box.centre
    return {
        "point_x": x,
        "point_y": y,
        "box_x": box.x,
        "box_y": box.y,
        "box_w": box.width,
        "box_h": box.height,
        "area": box.area,
    }


def _why(found: Rejection) -> Mapping[str, str]:
    return {"reason": str(found.reason), "detail": found.detail}
