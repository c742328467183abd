"""A chunk travels as bytes; a layout tells two readings apart."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.corpus.chunks import Chunk, Content, Span
from iqa_core.corpus.plan.segments import Draft
from iqa_core.corpus.sources import Kind, Metadata

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 2**50)
spans = st.builds(
    Span,
    *(names, names, st.none() | counts, names, counts, counts, st.none() | counts),
    occurrences=st.none() | st.lists(st.integers(1, 2**31 - 1), max_size=3).map(tuple),
    metadata=st.none() | st.builds(Metadata, names, st.none() | counts, names, names),
)


@pytest.mark.slow
@given(chunk=st.builds(Chunk, names, st.sampled_from(Kind), st.lists(spans, max_size=5).map(tuple)))
def test_bytes_are_the_chunk_again(chunk: Chunk) -> None:
    assert Chunk.from_bytes(chunk.to_bytes()) == chunk


@settings(max_examples=20)
@given(span=spans)
def test_a_segment_has_the_span_again(span: Span) -> None:
    assert list(Draft.of([(Kind.IMAGE, (span,))])) == [(Kind.IMAGE, (span,))]


def test_a_chunk_of_a_thousand_files_is_small() -> None:
    files = tuple(
        Span(f"/data/images/{i:06d}.jpg", f"{i:06d}.jpg", 9_000 + i, str(10**18 + i), 0, 9_000, 1) for i in range(1024)
    )
    assert len(Chunk("000000-000000", Kind.IMAGE, files).to_bytes()) < 40_000


def test_images_are_known_only_if_each_part_knows() -> None:
    known, unknown = (Span("a", "a", 1, "", 0, 1, images) for images in (3, None))
    assert Chunk("c", Kind.IMAGE, (known, known)).images == 6
    assert Chunk("c", Kind.IMAGE, (known, unknown)).images is None


def layout(keys: Sequence[str]) -> str:
    return Content(tuple(keys), pa.table({}), lambda _: iter(())).layout


def test_a_layout_is_the_keys_in_their_order() -> None:
    different = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", ""], ["ab"], [], ["abc"]]
    assert len({layout(keys) for keys in different}) == len(different)
    assert layout(["ab", "c"]) == layout(["ab", "c"])
