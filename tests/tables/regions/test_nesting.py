"""Rows of images with lists of parts, as two tables, and back."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from iqa_core.tables.regions.nesting import NESTED, exploded, imploded
from iqa_core.tables.score_file import described, metadata_of

MASK = {"size": [4, 5], "counts": "abc"}


def image(index: int, regions: int, reason: str | None = None) -> dict[str, Any]:
    status = "rejected" if reason else "scored"
    return {
        **dict.fromkeys(NESTED.names),
        "source": "s",
        "key": f"k{index}",
        "row": index,
        "width": 9,
        "height": 8,
        "status": status,
        "reason": reason,
        "grounding": [{"dimension": name, "reason": reason, "cell_scores": [1, 2, index, 4]} for name in "ab"],
        "regions": [{"dimension": "a", "ordinal": i, "score": i, "mask": MASK} for i in range(regions)],
    }


@pytest.mark.parametrize("images", [[], [image(0, 0)], [image(0, 2), image(1, 0, "corrupt"), image(2, 3)]])
def test_there_and_back(images: list[dict[str, Any]]) -> None:
    rows = pa.Table.from_pylist(images, NESTED)
    pieces = pa.concat_tables([rows.slice(i, 1) for i in range(rows.num_rows)] or [rows])
    grounding, regions = exploded(pieces)
    assert grounding.num_rows == 2 * len(images)
    assert regions.column("row").to_pylist() == [one["row"] for one in images for _ in one["regions"]]
    back = imploded(described(grounding, {"damage": "none"}), regions, 2)
    assert back.replace_schema_metadata(None).equals(rows)
    assert metadata_of(back) == {"damage": "none"}


def test_tables_that_do_not_belong_together_are_refused() -> None:
    grounding, _ = exploded(pa.Table.from_pylist([image(0, 0)], NESTED))
    _, regions = exploded(pa.Table.from_pylist([image(1, 1)], NESTED))
    with pytest.raises(ValueError, match="not among its images: k1"):
        imploded(grounding, regions, 2)
    with pytest.raises(ValueError, match="2 rows, and 3 for each image"):
        imploded(grounding, regions, 3)
