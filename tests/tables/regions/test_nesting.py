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


def named_again(status: str, boxes: int) -> dict[str, Any]:
    """An image of a list that names it several times."""
    is_located = status == "located"
    own = [
        {"dimension": name, "ordinal": i, "score": i, "method": "views" if i < is_located else "box"}
        for name in "ab"
        for i in range(is_located + boxes)
    ]
    said = [{"dimension": name, "status": status} for name in "ab"]
    return {**image(0, 0), "row": None, "grounding": said, "regions": own}


@pytest.mark.parametrize("boxes", [0, 2])
@pytest.mark.parametrize("statuses", [["located", "located"], ["unlocated", "located", "failed", "located"]])
def test_an_image_that_is_named_twice_has_its_regions_once_each_time(statuses: list[str], boxes: int) -> None:
    images = [image(1, 2), *(named_again(status, boxes) for status in statuses)]
    rows = pa.Table.from_pylist([{**one, "reason": None, "status": "scored"} for one in images], NESTED)
    grounding, regions = exploded(rows)
    assert imploded(grounding, regions, 2).equals(rows)
    assert imploded(grounding, regions.slice(0, 0), 2).column("regions").to_pylist() == [[]] * len(images)
    with pytest.raises(ValueError, match=r"its regions in b are not those of the . images k0"):
        imploded(grounding, regions.slice(0, regions.num_rows - 1), 2)


def test_tables_that_do_not_belong_together_are_refused() -> None:
    grounding, _ = exploded(pa.Table.from_pylist([image(0, 0)], NESTED))
    _, regions = exploded(pa.Table.from_pylist([image(1, 1)], NESTED))
    with pytest.raises(ValueError, match="not among its images: k1"):
        imploded(grounding, regions, 2)
    with pytest.raises(ValueError, match="2 rows, and 3 for each image"):
        imploded(grounding, regions, 3)
