"""A user's boxes in several formats -> those of each image, however many there are."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import CallerError
from iqa_core.grounding import user_boxes
from iqa_core.grounding.boxes import Box, UserBox
from iqa_core.grounding.user_boxes import BoxTable, read_boxes
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage

SIDES = {"x": 1, "y": 2.5, "width": 3, "height": 4}


def test_each_image_has_its_boxes_in_the_files_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across row groups, from a table that a process was sent before it is opened."""
    monkeypatch.setattr(user_boxes, "ROWS_PER_GROUP", 3)
    rows = [
        {"source": f"/s{i % 4}", "key": f"k{i % 5}", "box_id": f"b{i:02d}", "label": f"l{i}", **SIDES, "x": i}
        for i in reversed(range(40))
    ]
    (tmp_path / "boxes.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = read_boxes(tmp_path / "boxes.jsonl")
    (tmp_path / "table.parquet").write_bytes(found.to_parquet())
    table = pickle.loads(pickle.dumps(BoxTable(Storage(), str(tmp_path / "table.parquet"))))
    images = [("/s3", "k1"), ("/s0", "k0"), ("/s9", "k0"), ("/s1", "k0"), ("/s0", "k9"), ("/", "")]
    for image, boxes in zip(images, table.of_images(images), strict=True):
        own = [row for row in rows if (row["source"], row["key"]) == image]
        assert found.of_images([image]) == [boxes]
        assert boxes == [
            UserBox(str(row["box_id"]), str(row["label"]), Box(float(str(row["x"])), 2.5, 3, 4)) for row in own
        ]
    assert [len(boxes) for boxes in table.of_images(images)] == [2, 2, 0, 2, 0, 0]
    assert found.most[1] == 2
    assert table.of_images([]) == []
    (tmp_path / "table.parquet").unlink()
    with pytest.raises(Missing, match="put the file back"):
        BoxTable(Storage(), str(tmp_path / "table.parquet")).of_images(images)


def test_formats_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"source": "in/a.png", "key": "a.png", "box_id": "7", **SIDES}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text(f"{','.join(row)},label\n{','.join(map(str, row.values()))},\n")
    found = [read_boxes(tmp_path / name) for name in ("a.jsonl", "a.parquet", "a.csv")]
    assert found[0].rows == ((str(tmp_path / "in" / "a.png"), "a.png", "7", None, Box(1, 2.5, 3, 4)),)
    assert found[1] == found[2] == found[0]
    assert len({boxes.digest for boxes in found}) == 1
    (tmp_path / "a.jsonl").write_text(json.dumps({**row, "label": "half an emoji: \ud83d"}))
    halved = read_boxes(tmp_path / "a.jsonl")
    assert halved.rows[0][3] == "half an emoji: \\ud83d"
    assert halved.to_parquet()
    (tmp_path / "a.jsonl").write_text(json.dumps({**row, "x": 2}))
    assert read_boxes(tmp_path / "a.jsonl").digest != found[0].digest


def test_a_box_that_is_none_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    whole = {"source": "s", "key": "k", "box_id": "1", **SIDES}
    for fault, said in (
        ({"width": 0}, "line 2: a box is x, y, width and height"),
        ({"x": "left"}, "line 2: x is 'left'; a number is wanted"),
        ({"height": None}, "line 2: a box has no height"),
        ({"key": ""}, "line 2: a box has no key"),
        ({"source": "s"}, "two boxes with the id 1"),
    ):
        path.write_text(f"{json.dumps(whole)}\n{json.dumps({**whole, 'source': 't', **fault})}\n")
        with pytest.raises(CallerError, match=said):
            read_boxes(path)
    path.write_text("".join(f"{json.dumps({**whole, 'box_id': i})}\n" for i in range(4)))
    monkeypatch.setattr(user_boxes, "MOST_BOXES", 3)
    with pytest.raises(CallerError, match=r"image k of .*/s has 4 boxes; give at most 3"):
        read_boxes(path)
    with pytest.raises(CallerError, match="read from this machine; copy the file here"):
        read_boxes(Path("s3://bucket/boxes.jsonl"))
    path.write_text("")
    with pytest.raises(CallerError, match="has no boxes"):
        read_boxes(path)
