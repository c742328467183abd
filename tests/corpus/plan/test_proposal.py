"""Inputs against a plan: what is planned stays as it is, every image once, changes are seen, drivers may race.

Tests iqa_core/corpus/plan/changes.py, iqa_core/corpus/plan/plan.py and iqa_core/corpus/plan/segments.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.corpus.chunks import READING, ReadOptions, Span
from iqa_core.corpus.plan import segments
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.proposal import Proposal, _input_of, apply
from iqa_core.corpus.plan.segments import Draft
from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns
from iqa_core.corpus.sources import Kind
from iqa_core.errors import CallerError
from iqa_core.rubrics import load_rubric
from iqa_core.storage.storage import Storage
from tests.corpus.planned import WANTED, Output
from tests.corpus.tars import write_tar


def touch(folder: Path, *names: str, size: int = 3) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape")[:size].ljust(size, b"."))


def loose_names(output: Output) -> list[list[str]]:
    """Keys by chunk."""
    return [[span.key for span in chunk.spans] for chunk in output.plan.chunks()]


# ---- chunks


@pytest.mark.parametrize("slots", [NO_SLOTS, SlotColumns({"prompt": "prompt"})])
def test_a_table_without_rows_or_other_columns_is_nothing_to_score(tmp_path: Path, slots: SlotColumns) -> None:
    touch(tmp_path / "in", "a.jpg")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "in" / "empty.parquet")
    output = Output(tmp_path / "out")
    if slots.columns:
        with pytest.raises(CallerError, match="no input has"):
            output.proposal(tmp_path / "in", wanted=replace(WANTED, slots=slots))
    else:
        output.extend(tmp_path / "in")
        assert loose_names(output) == [["a.jpg"]]


def test_a_source_is_of_the_input_that_it_lies_in() -> None:
    known = {given.rstrip("/"): given for given in ("/a/b/", "/a/c.tar", "s3://bucket", "file:///")}
    found = [_input_of(uri, known) for uri in ("/a/b/c/d.tar", "/a/c.tar", "/a/c.tar2", "s3://bucket/a", "file:///a")]
    assert found == ["/a/b/", "/a/c.tar", "/a/c.tar2", "s3://bucket", "file:///"]


def test_loose_images_go_together_in_order(tmp_path: Path) -> None:
    touch(tmp_path / "in", *(f"{i}.jpg" for i in range(10)))
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    assert loose_names(output) == [
        ["0.jpg", "1.jpg", "2.jpg", "3.jpg"],
        ["4.jpg", "5.jpg", "6.jpg", "7.jpg"],
        ["8.jpg", "9.jpg"],
    ]
    assert [chunk.name for chunk in output.plan.chunks()] == [f"000000-00000{i}" for i in range(3)]
    assert [chunk.images for chunk in output.plan.chunks()] == [4, 4, 2]


def test_a_container_between_loose_images_parts_them(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg", "d.jpg")
    write_tar(tmp_path / "in" / "c.tar", [("x.jpg", b"x"), ("y.jpg", b"y")])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    assert [(chunk.kind, chunk.images) for chunk in output.plan.chunks()] == [
        (Kind.IMAGE, 2),
        (Kind.WEBDATASET, 2),
        (Kind.IMAGE, 1),
    ]
    sources = output.planned_sources()
    assert sources == sorted(sources)


def test_bytes_bound_a_chunk_of_loose_images(tmp_path: Path) -> None:
    touch(tmp_path / "in", *(f"{i}.jpg" for i in range(7)), size=100)
    touch(tmp_path / "in", "3.jpg", size=900)
    output = Output(tmp_path / "out", ReadOptions(chunk_images=100, chunk_bytes=250))
    output.extend(tmp_path / "in")
    assert loose_names(output) == [["0.jpg", "1.jpg"], ["2.jpg"], ["3.jpg"], ["4.jpg", "5.jpg"], ["6.jpg"]]


# ---- immutability


def test_the_same_again_adds_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "in", *(f"{i}.jpg" for i in range(6)))
    write_tar(tmp_path / "in" / "z.tar", [("x.jpg", b"x")])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    before = output.rows()
    files = {path: path.read_bytes() for path in (tmp_path / "out" / "plan").iterdir()}
    proposal = output.extend(tmp_path / "in")
    assert (len(proposal.chunks), proposal.retired) == (0, frozenset())
    assert output.rows() == before
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "plan").iterdir()} == files


def test_new_input_is_a_new_segment_and_moves_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "in", "b.jpg", "d.jpg", "f.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    before = output.rows()
    touch(tmp_path / "in", "a.jpg", "c.jpg", "g/h.jpg")
    output.extend(tmp_path / "in")
    assert [row for row in output.rows() if row[0].startswith("000000-")] == before
    assert loose_names(output) == [["b.jpg", "d.jpg", "f.jpg"], ["a.jpg", "c.jpg", "g/h.jpg"]]
    assert output.plan.segments() == [0, 1]
    sources = output.planned_sources()
    assert sources == sorted(sources)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    batches=st.lists(
        st.sets(st.sampled_from([f"{a}{b}.jpg" for a in ("a", "a/", "a-", "\udce9", "é") for b in "012"]), min_size=1),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_comes_when_every_image_is_planned_once(
    batches: list[set[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("plan")
    output = Output(root / "out", ReadOptions(chunk_images=3))
    there: set[str] = set()
    for names in batches:
        touch(root / "in", *(names - there))
        there |= names
        before = output.rows()
        output.extend(root / "in")
        assert [row for row in output.rows() if row in before] == before
        assert Counter(output.planned_sources()).most_common(1)[0][1] == 1
        assert len(output.planned_sources()) == len(there)


def test_many_segments_are_written_where_one_would_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 8)
    touch(tmp_path / "in", *(f"{i:02d}.jpg" for i in range(30)))
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "one.tar", [(f"{i:02d}.jpg", b"x") for i in range(50)])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    assert output.plan.segments() == [0, 1, 2, 3]
    assert len(output.planned_sources()) == 30
    assert apply(output.plan, output.proposal(tmp_path / "tars"))
    assert output.plan.segments() == [0, 1, 2, 3, 4]
    assert not output.proposal(tmp_path / "in").chunks


# ---- changes


def changed_corpus(tmp_path: Path) -> Output:
    touch(tmp_path / "in", *(f"{i}.jpg" for i in range(12)))
    write_tar(tmp_path / "in" / "x.tar", [(f"{i}.jpg", b"x") for i in range(6)])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    touch(tmp_path / "in", "1.jpg", size=7)
    (tmp_path / "in" / "11.jpg").unlink()
    write_tar(tmp_path / "in" / "x.tar", [(f"{i}.jpg", b"other") for i in range(2)])
    touch(tmp_path / "in", "new.jpg")
    return output


def test_changed_sources_stop_the_run_and_are_named(tmp_path: Path) -> None:
    output = changed_corpus(tmp_path)
    before = output.rows()
    with pytest.raises(CallerError) as caught:
        output.proposal(tmp_path / "in")
    message = str(caught.value)
    assert "3 planned sources" in message
    assert f"{tmp_path}/in/1.jpg" in message
    assert "3 bytes then, 7 now" in message
    assert f"vanished: {tmp_path}/in/11.jpg" in message
    assert "x.tar" in message
    assert "--on-changed" in message
    assert output.rows() == before


def test_a_change_of_time_alone_is_one(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    os.utime(tmp_path / "in" / "a.jpg", ns=(1, 1))
    with pytest.raises(CallerError, match=r"replaced: .*a\.jpg"):
        output.proposal(tmp_path / "in")


def test_ignored_changes_leave_the_plan_and_take_what_is_new(tmp_path: Path) -> None:
    output = changed_corpus(tmp_path)
    before = output.rows()
    proposal = output.extend(tmp_path / "in", on_changed="ignore")
    assert proposal.retired == frozenset()
    assert [row for row in output.rows() if row in before] == before
    assert sorted(set(output.planned_sources()) - {row[2].source for row in before}) == [f"{tmp_path}/in/new.jpg"]


def test_rescored_changes_retire_their_chunks_and_plan_what_is_left_of_them(tmp_path: Path) -> None:
    output = changed_corpus(tmp_path)
    proposal = output.extend(tmp_path / "in", on_changed="rescore")
    names = {name for name, _, _ in output.rows()}
    assert proposal.retired
    assert not names & proposal.retired
    assert output.plan.retired() == proposal.retired
    images = output.images()
    assert sorted(image.key for image in images) == sorted(
        [f"{i}.jpg" for i in range(11)] + ["new.jpg"] + ["0.jpg", "1.jpg"]
    )
    assert {image.data for image in images if image.source.endswith("x.tar")} == {b"other"}
    assert not output.proposal(tmp_path / "in").chunks


def test_what_shares_a_rescored_chunk_from_another_input_is_kept(tmp_path: Path) -> None:
    """Two inputs were planned together, one of them is given when an image of it has changed."""
    touch(tmp_path / "a", "1.jpg")
    touch(tmp_path / "b", "2.jpg", "3.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "a", tmp_path / "b")
    assert len(list(output.plan.chunks())) == 1
    touch(tmp_path / "a", "1.jpg", size=9)
    output.extend(tmp_path / "a", on_changed="rescore")
    assert output.planned_sources() == [f"{tmp_path}/a/1.jpg", f"{tmp_path}/b/2.jpg", f"{tmp_path}/b/3.jpg"]
    assert not output.proposal(tmp_path / "a", tmp_path / "b").chunks


def test_a_vanished_source_is_not_planned_again_when_rescored(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    (tmp_path / "in" / "a.jpg").unlink()
    output.extend(tmp_path / "in", on_changed="rescore")
    assert output.planned_sources() == [f"{tmp_path}/in/b.jpg"]
    (tmp_path / "in" / "b.jpg").unlink()
    touch(tmp_path / "in", "c.jpg")
    output.extend(tmp_path / "in", on_changed="rescore")
    assert output.planned_sources() == [f"{tmp_path}/in/c.jpg"]


def test_a_vanished_name_that_is_no_utf_8_is_noticed(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "caf\udce9.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    (tmp_path / "in" / "caf\udce9.jpg").unlink()
    with pytest.raises(CallerError, match=r"vanished: file://.*caf%E9\.jpg"):
        output.proposal(tmp_path / "in")


# ---- retired chunks and what takes their place


def retired_together(tmp_path: Path) -> Output:
    """Two inputs share chunks, and an image of the first one has changed."""
    touch(tmp_path / "a", *(f"{i}.jpg" for i in range(6)))
    touch(tmp_path / "b", *(f"{i}.jpg" for i in range(6)))
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "a", tmp_path / "b")
    touch(tmp_path / "a", "5.jpg", size=9)
    return output


@pytest.mark.parametrize("limit", [1, 5, 12, 13])
def test_a_limit_is_for_what_is_new_and_not_for_what_retired_chunks_held(tmp_path: Path, limit: int) -> None:
    output = retired_together(tmp_path)
    touch(tmp_path / "a", *(f"new-{i}.jpg" for i in range(4)))
    before = set(output.planned_sources())
    output.extend(tmp_path / "a", on_changed="rescore", limit=limit)
    assert output.plan.retired() == {"000000-000001"}
    new = [name for name in output.planned_sources() if name not in before]
    assert len(new) == (2 if limit == 13 else 0), "the rest of a chunk"
    assert before <= set(output.planned_sources())
    output.extend(tmp_path / "a")
    assert len(output.planned_sources()) == len(set(output.planned_sources())) == 16


def test_a_tar_that_a_retired_chunk_held_is_planned_whole_whatever_the_limit(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "z.jpg")
    write_tar(tmp_path / "in" / "t.tar", [(f"{i}.jpg", b"x") for i in range(9)])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    write_tar(tmp_path / "in" / "t.tar", [(f"{i}.jpg", b"other") for i in range(11)])
    write_tar(tmp_path / "in" / "u.tar", [(f"{i}.jpg", b"new") for i in range(9)])
    output.extend(tmp_path / "in", on_changed="rescore", limit=2)
    assert sum(image.data == b"other" for image in output.images()) == 11
    assert len(output.images()) == 13, "and nothing of the new one"


def test_what_is_rescored_under_another_folder_keeps_its_name_and_its_table(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a/1.jpg", "a/2.jpg", "b/3.jpg")
    pq.write_table(
        pa.table({"file_name": ["a/1.jpg", "a/2.jpg", "b/3.jpg"], "caption": ["one", "two", "three"]}),
        tmp_path / "in" / "captions.parquet",
    )
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    touch(tmp_path / "in", "a/1.jpg", size=9)
    output.extend(tmp_path / "in" / "a", on_changed="rescore")
    found = {image.key: image.carried["caption"] for image in output.images()}
    assert found == {"a/1.jpg": "one", "a/2.jpg": "two", "b/3.jpg": "three"}
    assert not output.proposal(tmp_path / "in").chunks


@pytest.fixture
def of_three_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Output, Proposal]:
    """An output, and a proposal of three segments that retires one of its chunks."""
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 4)
    output = retired_together(tmp_path)
    touch(tmp_path / "a", *(f"x{i}.jpg" for i in range(8)))
    proposal = output.proposal(tmp_path / "a", on_changed="rescore")
    assert len(list(proposal.chunks.segments())) == 3
    return output, proposal


@pytest.mark.parametrize("written", [1, 2])
def test_a_proposal_counts_when_its_last_segment_is_there(
    of_three_parts: tuple[Output, Proposal], tmp_path: Path, written: int
) -> None:
    """What was written of one that was broken off is stepped over, whoever comes next, with whatever input."""
    output, proposal = of_three_parts
    before = output.rows()
    parts = list(proposal.chunks.segments())
    for number, data in enumerate(parts[:written], start=proposal.next_segment):
        assert output.plan.add_segment(number, data)
    assert output.rows() == before
    assert not output.plan.retired()
    assert [chunk.name for chunk in output.plan.chunks()] == sorted({name for name, _, _ in before})
    touch(tmp_path / "b", "new.jpg")
    output.extend(tmp_path / "b")
    assert [row for row in output.rows() if row in before] == before
    assert not apply(output.plan, proposal), "its next number is taken"
    output.extend(tmp_path / "a", on_changed="rescore")
    assert len(output.plan.retired()) == 1
    assert len(output.planned_sources()) == len(set(output.planned_sources())) == 12 + 8 + 1


def test_a_proposal_goes_on_as_long_as_nobody_else_took_its_numbers(of_three_parts: tuple[Output, Proposal]) -> None:
    output, proposal = of_three_parts
    for number, data in enumerate(proposal.chunks.segments(), start=proposal.next_segment):
        assert not output.plan.retired()
        output.plan.add_segment(number, data)
    assert len(output.plan.retired()) == 1
    assert len(output.planned_sources()) == 20


def test_segments_from_before_they_said_which_part_they_are_count_by_themselves(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "b.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    footer = pq.read_metadata(tmp_path / "out" / "plan" / "000000.parquet").metadata
    assert segments.PART_KEY not in footer, "a proposal of one segment is written as it always was"


# ---- inputs


def test_overlapping_inputs_are_planned_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/a/1.jpg", "in/2.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in" / "a", tmp_path / "in")
    output.extend(tmp_path / "in")
    output.extend(tmp_path / "in" / "a")
    output.extend(tmp_path / "in" / "a" / "1.jpg")
    assert loose_names(output) == [["2.jpg", "1.jpg"]]


def test_another_input_does_not_miss_those_of_the_first(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "ab/1.jpg", "a.jpg", "b/2.jpg")
    output = Output(tmp_path / "out")
    for name in ("a", "b", "ab", "a.jpg", "a"):
        output.extend(tmp_path / name)
    assert len(output.planned_sources()) == 4
    (tmp_path / "a" / "1.jpg").unlink()
    touch(tmp_path, "a/3.jpg")
    output.extend(tmp_path / "b")
    with pytest.raises(CallerError, match=r"vanished: .*/a/1\.jpg"):
        output.proposal(tmp_path / "a")


def test_a_list_that_a_folder_passes_over_has_not_vanished(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "list.csv").write_text("uri\na.jpg\n")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in" / "list.csv")
    output.extend(tmp_path / "in")
    assert len(output.planned_sources()) == 2
    (tmp_path / "in" / "list.csv").unlink()
    with pytest.raises(CallerError, match=r"vanished: .*list\.csv"):
        output.proposal(tmp_path / "in")


def test_what_cannot_be_read_is_planned_and_left_to_its_reader(
    tmp_path: Path, as_nobody: Callable[[Path], AbstractContextManager[None]]
) -> None:
    touch(tmp_path / "in", "a.jpg")
    for name in ("b.tar", "c.parquet"):
        (tmp_path / "in" / name).write_bytes(b"no container")
    (tmp_path / "in" / "d.tar").symlink_to("nowhere")
    write_tar(tmp_path / "in" / "e.tar", [("x.jpg", b"x")]).chmod(0)
    output = Output(tmp_path / "out")
    with as_nobody(tmp_path):
        output.extend(tmp_path / "in")
    assert [(chunk.kind, chunk.images) for chunk in output.plan.chunks()] == [
        (Kind.IMAGE, 1),
        (Kind.WEBDATASET, None),
        (Kind.PARQUET, None),
        (Kind.WEBDATASET, None),
        (Kind.WEBDATASET, None),
    ]
    assert [image.key for image in output.images_of_kind(Kind.IMAGE)] == ["a.jpg"]


def test_nothing_to_score_is_the_callers_mistake_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "in" / "a.parquet")
    with pytest.raises(CallerError, match="1 table without an image column"):
        Output(tmp_path / "out").extend(tmp_path / "in")
    assert not (tmp_path / "out").exists()


# ---- limits


def test_a_limit_plans_whole_chunks_and_a_later_run_goes_on(tmp_path: Path) -> None:
    touch(tmp_path / "in", *(f"{i:02d}.jpg" for i in range(14)))
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in", limit=5)
    assert [chunk.images for chunk in output.plan.chunks()] == [4, 4]
    assert not output.proposal(tmp_path / "in", limit=8).chunks
    output.extend(tmp_path / "in", limit=9)
    assert [chunk.images for chunk in output.plan.chunks()] == [4, 4, 4]
    output.extend(tmp_path / "in")
    assert [chunk.images for chunk in output.plan.chunks()] == [4, 4, 4, 2]
    assert len(set(output.planned_sources())) == 14


def test_a_container_in_which_a_limit_ends_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", [(f"{i:02d}.jpg", bytes([i])) for i in range(10)])
    write_tar(tmp_path / "in" / "b.tar", [(f"{i:02d}.jpg", bytes([i + 50])) for i in range(3)])
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in", limit=3)
    assert sum(chunk.images or 0 for chunk in output.plan.chunks()) >= 3
    output.extend(tmp_path / "in")
    assert sorted(image.data for image in output.images() if isinstance(image.data, bytes)) == sorted(
        [bytes([i]) for i in range(10)] + [bytes([i + 50]) for i in range(3)]
    )


# ---- contracts


def test_another_way_of_scoring_names_the_part(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "in")
    others: dict[str, Any] = {
        "weights: w1 there, w2 now": {"fingerprint": "f2", "fingerprint_parts": {"weights": "w2", "rubric": "r1"}},
        "dtype: absent there, float32 now": {"fingerprint_parts": {**WANTED.fingerprint_parts, "dtype": "float32"}},
        "chunk_images: 4 there, 5 now": {"chunk_images": 5},
        "probs: False there, True now": {"probs": True},
        "columns": {"columns": {"id": "n"}},
    }
    for said, changes in others.items():
        with pytest.raises(CallerError, match=said):
            output.proposal(tmp_path / "in", wanted=replace(WANTED, **changes))


def test_the_contract_is_read_as_it_was_written(tmp_path: Path) -> None:
    carried = pa.schema(
        {"prompt": pa.string(), "boxes": pa.list_(pa.struct({"x": pa.int32()})), "t": pa.timestamp("us")}
    )
    contract = replace(WANTED, carried=carried, columns={"id": "ü"})
    assert Contract.from_json(contract.to_json()) == contract
    plan = Plan(Storage(), str(tmp_path))
    assert plan.contract() is None
    assert plan.create(contract) == contract
    assert plan.create(replace(contract, probs=True)) == contract


def test_an_output_goes_on_by_the_rules_that_it_was_begun_with(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    old, new = Output(tmp_path / "out", ReadOptions(chunk_images=4, reading=1)), Output(tmp_path / "out")
    lost = new.proposal(tmp_path / "in")
    old.extend(tmp_path / "in")
    assert not apply(new.plan, lost), "a program before it was first: it is proposed again, by that one's rules"
    assert new.proposal(tmp_path / "in").contract.reading == 1
    assert new.read_plan().options.reading == 1


def test_a_contract_without_a_reading_is_of_reading_1_and_unknown_fields_are_named(tmp_path: Path) -> None:
    content = json.loads(WANTED.to_json())
    assert content.pop("reading") == READING
    assert Contract.from_json(json.dumps(content).encode()).reading == 1
    for changes, said in (({"tiles": 4}, "tiles: 4"), ({"reading": 9}, "reading: 9 there, up to 2 known")):
        with pytest.raises(CallerError, match=said):
            Contract.from_json(json.dumps({**content, **changes}).encode())
    del content["fusion"]
    with pytest.raises(CallerError, match="no fusion"):
        Contract.from_json(json.dumps(content).encode())


# ---- races


def begun(output: Output, **carried: pa.DataType) -> None:
    """An output of the first reading, with these columns, in which nothing is planned."""
    old = replace(WANTED, reading=1, carried=pa.schema(carried))
    assert output.plan.create(old).reading == 1


def test_an_output_of_the_first_reading_keeps_its_names_types_and_keys(tmp_path: Path) -> None:
    output = Output(tmp_path / "out", ReadOptions(image_column="image", id_column="id"))
    begun(
        output,
        id=pa.binary(),
        WIDTH=pa.float16(),
        words=pa.large_list(pa.string()),
        input_key=pa.string(),
        n=pa.float64(),
    )
    columns = {
        "image": [b"1", b"2"],
        "id": [b"a1", None],
        "WIDTH": pa.array([0.5, None], pa.float16()),
        "words": pa.array([["x"], None], pa.large_list(pa.string())),
        "key": ["k", "l"],
        "n": [2**53 + 1, 7],
        "URL": ["u", "v"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    proposal = output.extend(tmp_path / "a.parquet")
    assert proposal.contract.reading == 1
    assert proposal.left_out == {"URL"}
    (content,) = output.contents().values()
    assert content.keys == ("b'a1'", "1")
    assert content.carried.schema.equals(proposal.contract.carried)
    assert content.carried.schema.field("WIDTH").type == pa.float16()
    assert content.carried.to_pylist() == [
        {"id": b"a1", "WIDTH": 0.5, "words": ["x"], "input_key": "k", "n": None},
        {"id": None, "WIDTH": None, "words": None, "input_key": "l", "n": 7.0},
    ]


def test_an_output_of_the_first_reading_finds_images_as_it_did(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"URL": ["a.jpg"]}), tmp_path / "in" / "upper.parquet")
    pq.write_table(pa.table({"url": pa.array(["a.jpg"], pa.string_view())}), tmp_path / "in" / "view.parquet")
    pq.write_table(pa.table({"url": pa.array(["a.jpg"]).dictionary_encode()}), tmp_path / "in" / "codes.parquet")
    output = Output(tmp_path / "out")
    begun(output)
    assert output.extend(tmp_path / "in").listing.ignored == {"table without an image column": 2}
    assert not Output(tmp_path / "new").extend(tmp_path / "in").listing.ignored


def test_an_output_that_could_not_be_scored_for_its_types_goes_on(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    begun(output, prompt=pa.string_view(), boxes=pa.list_(pa.string_view()), seed=pa.int64())
    columns = {
        "image": [b"1"],
        "prompt": pa.array(["p"], pa.string_view()),
        "boxes": pa.array([["b"]], pa.list_(pa.string_view())),
        "seed": [5],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    output.extend(tmp_path / "a.parquet")
    assert [image.carried for image in output.images()] == [{"prompt": "p", "boxes": ["b"], "seed": 5}]
    contract = output.plan.contract()
    assert contract is not None
    assert contract.carried.types == [pa.string(), pa.list_(pa.string()), pa.int64()]


def test_what_would_not_be_read_back_is_refused_before_the_start_also_for_later_input(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"1"], "n": [0.5]}), tmp_path / "a.parquet")
    output = Output(tmp_path / "out")
    output.extend(tmp_path / "a.parquet")
    for name, values in (("b", [2**53]), ("c", [2**53 + 1])):
        pq.write_table(pa.table({"image": [b"2"], "n": values}), tmp_path / f"{name}.parquet")
    output.extend(tmp_path / "b.parquet")
    with pytest.raises(CallerError, match=r"c\.parquet: column n is int64 there, and double does not hold"):
        output.extend(tmp_path / "c.parquet")
    assert [image.carried["n"] for image in output.images()] == [0.5, 2.0**53]


def test_of_two_proposals_made_from_one_plan_the_second_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "in", *(f"{i}.jpg" for i in range(6)))
    output = Output(tmp_path / "out")
    first, second = output.proposal(tmp_path / "in"), output.proposal(tmp_path / "in")
    assert apply(output.plan, first)
    touch(tmp_path / "in", "new.jpg")
    apply(output.plan, second)
    third = output.proposal(tmp_path / "in")
    assert apply(output.plan, third)
    assert Counter(output.planned_sources()).most_common(1)[0][1] == 1
    assert len(output.planned_sources()) == 7


def test_a_driver_that_lost_the_race_for_the_columns_plans_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    pq.write_table(pa.table({"image": [b"1"], "x": [1]}), tmp_path / "a" / "a.parquet")
    pq.write_table(pa.table({"image": [b"2"], "y": [1]}), tmp_path / "b" / "b.parquet")
    output = Output(tmp_path / "out")
    first, second = output.proposal(tmp_path / "a"), output.proposal(tmp_path / "b")
    assert apply(output.plan, first)
    assert not apply(output.plan, second)
    again = output.extend(tmp_path / "b")
    assert again.left_out == {"y"}
    assert [image.carried for image in output.images()] == [{"x": 1}, {"x": None}]


def test_a_driver_that_lost_the_race_for_the_contract_is_told_the_difference(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    output = Output(tmp_path / "out")
    other = replace(WANTED, fingerprint_parts={"weights": "w2"})
    first, second = output.proposal(tmp_path / "in"), output.proposal(tmp_path / "in", wanted=other)
    assert apply(output.plan, first)
    with pytest.raises(CallerError, match="weights"):
        apply(output.plan, second)


def plan_until_done(root: Path, inputs: list[str], on_changed: str = "stop") -> None:
    """What a driver does: propose and apply until it wins."""
    output = Output(root / "out")
    for _ in range(50):
        if apply(output.plan, output.proposal(*inputs, on_changed=on_changed)):
            return
    raise AssertionError("never won")


def corpus_of_three_folders(tmp_path: Path) -> list[list[str]]:
    for folder in "abc":
        touch(tmp_path / folder, *(f"{i:02d}.jpg" for i in range(20)))
    a, b, c = (str(tmp_path / folder) for folder in "abc")
    return [[a, b], [b, c], [c, a], [a, b, c], [b]]


def assert_each_is_planned_once(tmp_path: Path) -> None:
    planned = Counter(Output(tmp_path / "out").planned_sources())
    assert set(planned.values()) == {1}
    assert len(planned) == 60


def race(tmp_path: Path, inputs_of_drivers: list[list[str]], on_changed: str = "stop") -> None:
    start = threading.Barrier(len(inputs_of_drivers))
    faults: list[BaseException] = []

    def drive(inputs: list[str]) -> None:
        start.wait()
        try:
            plan_until_done(tmp_path, inputs, on_changed)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=drive, args=(inputs,)) for inputs in inputs_of_drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_racing_threads_plan_every_image_once(tmp_path: Path) -> None:
    race(tmp_path, corpus_of_three_folders(tmp_path))
    assert_each_is_planned_once(tmp_path)


@pytest.mark.slow
def test_racing_threads_retire_and_plan_anew_in_proposals_of_many_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 4)
    inputs_of_drivers = corpus_of_three_folders(tmp_path)
    Output(tmp_path / "out").extend(*inputs_of_drivers[3])
    for folder in "abc":
        touch(tmp_path / folder, "00.jpg", "10.jpg", "19.jpg", size=9)
    race(tmp_path, inputs_of_drivers, "rescore")
    assert_each_is_planned_once(tmp_path)
    assert not Output(tmp_path / "out").proposal(*inputs_of_drivers[3]).chunks, "and none as it was"


@pytest.mark.slow
def test_racing_processes_plan_every_image_once(tmp_path: Path) -> None:
    inputs_of_drivers = corpus_of_three_folders(tmp_path)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=plan_until_done, args=(tmp_path, inputs)) for inputs in inputs_of_drivers[2:4]]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    assert_each_is_planned_once(tmp_path)


def test_segments_are_created_once(tmp_path: Path) -> None:
    plan = Plan(Storage(), str(tmp_path))
    span = Span("/a.jpg", "a.jpg", 1, "e", 0, 1, 1)
    other = replace(span, source="/b.jpg")
    assert plan.next_segment() == 0
    assert plan.add_segment(0, *Draft.of([(Kind.IMAGE, (span,))]).segments())
    assert not plan.add_segment(0, *Draft.of([(Kind.IMAGE, (other,))]).segments())
    assert plan.next_segment() == 1
    assert plan.add_segment(1, *Draft.of([(Kind.IMAGE, (other,))], ["000000-000000"]).segments())
    assert [row.span.source for row in plan.rows()] == ["/b.jpg"]
    assert [chunk.name for chunk in plan.chunks()] == ["000001-000000"]


def test_of_segments_that_follow_each_other_one_is_open_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments that overlap are all open; a later one is opened when its first source is due."""
    output, plan = Output(tmp_path / "out"), Plan(Storage(), str(tmp_path / "out"))
    ranges = [(0, 3), (3, 6), (4, 7), (9, 12)]
    for segment, span in enumerate(ranges):
        spans = [Span(f"/{i:02d}-{segment}.jpg", f"{i}.jpg", 1, "e", 0, 1, 1) for i in range(*span)]
        data = Draft.of([(Kind.IMAGE, tuple(spans))], ["000003-000000"] if segment == 1 else []).segments()
        assert plan.add_segment(segment, *data)
    opened: list[weakref.ref[pq.ParquetFile]] = []

    def noted(data: bytes) -> pq.ParquetFile:
        file = segments.segment_file(data)
        opened.append(weakref.ref(file))
        return file

    monkeypatch.setattr("iqa_core.corpus.plan.plan.segment_file", noted)
    found, at_once = [], []
    for row in plan.rows():
        found.append(row.span.source)
        at_once.append(sum(file() is not None for file in opened))
    assert found == output.planned_sources() == sorted(found)
    assert found == [f"/0{name}.jpg" for name in ("0-0", "1-0", "2-0", "3-1", "4-1", "4-2", "5-1", "5-2", "6-2")]
    assert at_once == [1, 1, 1, 1, 1, 2, 2, 1, 1]


def test_a_source_too_long_for_a_footer_is_in_its_place_all_the_same(tmp_path: Path) -> None:
    plan = Plan(Storage(), str(tmp_path))
    names = ["/a.jpg", f"/b{'x' * 10_000}.jpg", "/c.jpg"]
    for segment, name in enumerate(reversed(names)):
        assert plan.add_segment(segment, *Draft.of([(Kind.IMAGE, (Span(name, "k", 1, "e", 0, 1, 1),))]).segments())
    assert [row.span.source for row in plan.rows()] == names


def test_two_rubrics_are_named_also_where_the_plan_was_begun_before_they_were_noted() -> None:
    digest = load_rubric("interior-v3").digest
    begun = json.loads(replace(WANTED, fingerprint_parts={"rubric": digest}).to_json())
    del begun["rubric"]
    there = Contract.from_json(json.dumps(begun).encode())
    own = replace(WANTED, fingerprint_parts={"rubric": "ab" * 32}, rubric="rooms of rooms.toml")
    assert there.differences(own) == [
        f"rubric: interior-v3 ({digest[:12]}…) there, rooms of rooms.toml (abababababab…) now"
    ]
    assert own.differences(there)[0].startswith("rubric: rooms of rooms.toml (abababababab…) there, interior-v3 (")
    unknown = replace(there, fingerprint_parts={"rubric": "cd" * 32})
    assert there.differences(unknown)[0].endswith("there, one without a name (cdcdcdcdcdcd…) now")
    assert there.differences(replace(there, rubric="interior-v3")) == [], "the name is for people alone"
