"""Preference files of four layouts -> pairs, and what is wrong with a file by its line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.errors import CallerError
from iqa_core.preferences.pairs import Preference, load_pairs


def test_our_own_table(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("first,second,preferred,model\na,b,first,x\nb,c,tie,y\nc,a,second,\n")
    assert list(load_pairs([str(tmp_path / "p.csv")], "model")) == [
        Preference("a", "b", 1.0, "x"),
        Preference("b", "c", 0.5, "y"),
        Preference("c", "a", 0.0, ""),
    ]


@pytest.mark.parametrize(
    ("kind", "images", "ranks"), [("hpd", "image_path", "rank"), ("image-reward", "generations", "ranking")]
)
def test_rankings_become_pairs(tmp_path: Path, kind: str, images: str, ranks: str) -> None:
    item = {"prompt": "a room", images: ["a", "b", "c"], ranks: [2, 1, 2]}
    (tmp_path / "r.json").write_text(json.dumps([item]))
    found = load_pairs([f"{kind}:{tmp_path / 'r.json'}"])
    assert [(pair.first, pair.second, pair.share) for pair in found] == [("a", "b", 0), ("a", "c", 0.5), ("b", "c", 1)]
    assert {pair.group for pair in found} == {"a room"}


def test_pick_a_pic_images_are_known_by_their_bytes(tmp_path: Path) -> None:
    rows = [{"jpg_0": b"one", "jpg_1": b"two", "label_0": 0.5, "caption": "a room"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    [pair] = load_pairs([f"pick-a-pic:{tmp_path / 'p.parquet'}"])
    assert (pair.first, pair.second) == tuple(hashlib.sha256(data).hexdigest() for data in (b"one", b"two"))
    assert pair.share == 0.5


def picked(tmp_path: Path, labels: list[dict[str, object]]) -> str:
    rows = [{"jpg_0": b"one", "jpg_1": b"two", "caption": "a room"} | label for label in labels]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    return f"pick-a-pic:{tmp_path / 'p.parquet'}"


@pytest.mark.parametrize(
    "undecided",
    [
        {"label_0": 0.0, "label_1": 0.0, "has_label": False},
        {"label_0": 0.5, "label_1": 0.5, "has_label": False},
        {"label_0": 0.0, "label_1": 0.0},
        {"label_0": None, "label_1": None, "has_label": None},
        {"label_0": float("nan")},
    ],
)
def test_a_row_in_which_nobody_chose_is_counted_and_no_pair(tmp_path: Path, undecided: dict[str, object]) -> None:
    sure: dict[str, object] = {"label_0": 1.0, "label_1": 0.0, "has_label": True}
    known = {name: sure[name] for name in undecided}
    found = load_pairs([picked(tmp_path, [known, undecided])])
    assert [pair.share for pair in found] == [1.0]
    assert found.undecided == 1
    with pytest.raises(CallerError, match="1 rows without a choice"):
        load_pairs([picked(tmp_path, [undecided])])


@pytest.mark.parametrize(
    "labels", [{"label_0": 1.0, "label_1": 1.0}, {"label_0": 0.7}, {"label_0": 0.5, "label_1": 1.0}]
)
def test_labels_that_contradict_each_other_are_refused(tmp_path: Path, labels: dict[str, object]) -> None:
    with pytest.raises(CallerError, match=r"row 1: label_0 is .*both sum to 1"):
        load_pairs([picked(tmp_path, [labels])])


def test_a_file_without_labels_is_no_file_of_pick_a_pic(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="row 1: no column label_0; there are jpg_0, jpg_1, caption, label"):
        load_pairs([picked(tmp_path, [{"label": 1.0}])])


@pytest.mark.parametrize("rank", [None, float("nan"), "x", [2], True, {}, float("inf")])
def test_a_place_that_is_no_number_is_named(tmp_path: Path, rank: object) -> None:
    items = [{"prompt": "p", "image_path": ["a", "b"], "rank": ranks} for ranks in ([1, 2], [1, rank])]
    (tmp_path / "r.json").write_text(json.dumps(items))
    with pytest.raises(CallerError, match="item 2: rank"):
        load_pairs([f"hpd:{tmp_path / 'r.json'}"])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"first": "a", "second": "b", "preferred": "left"}, "preferred is 'left'"),
        ({"first": "a", "preferred": "tie"}, "second is None"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, line: dict[str, str], fault: str) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(line))
    with pytest.raises(CallerError, match=f"line 1: {fault}"):
        load_pairs([str(tmp_path / "p.jsonl")])


def test_a_ranking_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps([{"prompt": "x", "image_path": ["a"], "rank": [1, 2]}]))
    with pytest.raises(CallerError, match="two lists of one length"):
        load_pairs([f"hpd:{tmp_path / 'r.json'}"])


def test_no_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("first,second,preferred\n")
    with pytest.raises(CallerError, match="there is no pair"):
        load_pairs([str(tmp_path / "p.csv")])
