"""Scored batches in any order, doubled or from two readings -> complete chunks with their rows in place."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.corpus.chunks import Origin
from iqa_core.errors import RunError
from iqa_core.tables.sink import AssessedBatch, Sink


def batch(ordinals: list[int], images: int, chunk: str = "c", layout: str = "l", mark: str = "") -> AssessedBatch:
    rows = pa.table({"key": [f"{chunk}{layout}{i}{mark}" for i in ordinals]}, schema=pa.schema({"key": pa.string()}))
    answers = tuple({f"{mark}{i}": 1} for i in ordinals)
    return AssessedBatch(Origin(chunk, images, layout, None), tuple(ordinals), rows, f"versions{mark}", answers)


def keys(sink: Sink, added: AssessedBatch) -> list[str] | None:
    complete = sink.add(added)
    return None if complete is None else complete.rows().column("key").to_pylist()


@given(data=st.data(), images=st.integers(1, 20))
def test_any_order_and_any_repeats_give_each_row_once_in_its_place(data: st.DataObject, images: int) -> None:
    order = data.draw(st.permutations(range(images)))
    cuts = sorted(data.draw(st.sets(st.integers(1, images), max_size=5)) | {images})
    batches = [batch(order[begin:end], images) for begin, end in zip([0, *cuts], cuts, strict=False)]
    repeats = data.draw(st.lists(st.sampled_from(batches[:-1] or [batch([], images)]), max_size=4))
    sink = Sink()
    for repeated in [*batches[:-1], *repeats]:
        assert sink.add(repeated) is None
    assert keys(sink, batches[-1]) == [f"cl{i}" for i in range(images)]
    assert sink.open == {}


def test_overlapping_batches_keep_what_came_first() -> None:
    sink = Sink()
    sink.add(batch([1, 0], 4, mark="a"))
    sink.add(batch([2, 1], 4, mark="b"))
    complete = sink.add(batch([3, 2, 0], 4, mark="c"))
    assert complete is not None
    assert complete.rows().column("key").to_pylist() == ["cl0a", "cl1a", "cl2b", "cl3c"]
    assert complete.versions == {"versionsa", "versionsb", "versionsc"}
    assert complete.answers == {"a0": 1, "a1": 1, "b2": 1, "c3": 1}, "of each image what its row came with"


def test_two_readings_with_other_content_are_never_mixed() -> None:
    sink = Sink()
    assert sink.add(batch([0, 1], 3, layout="A")) is None
    assert sink.add(batch([1, 2], 3, layout="B")) is None
    partial = sink.partial("c", "A")
    assert partial is not None
    assert partial.missing == {2}
    assert sink.partial("c", "Z") is None
    assert sink.partial("other", "A") is None
    assert keys(sink, batch([0], 3, layout="B")) == ["cB0", "cB1", "cB2"]
    assert sink.open == {}


def test_chunks_are_gathered_apart() -> None:
    sink = Sink()
    assert sink.add(batch([0], 2, chunk="x")) is None
    assert keys(sink, batch([0], 1, chunk="y")) == ["yl0"]
    assert keys(sink, batch([1], 2, chunk="x")) == ["xl0", "xl1"]


def test_an_empty_chunk_is_complete_at_once() -> None:
    assert keys(Sink(), batch([], 0)) == []


@pytest.mark.parametrize("ordinals", [[0, 1, 2], [-1, 0]])
def test_a_row_that_a_chunk_cannot_have_is_never_committed(ordinals: list[int]) -> None:
    with pytest.raises(RunError, match="chunk c"):
        Sink().add(batch(ordinals, 2))
