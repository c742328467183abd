"""A range file reads what the file holds, wherever it is asked, and never past its end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_core.storage.failures import FetchFailed
from iqa_core.storage.range_file import BLOCK_BYTES, RangeFile
from iqa_core.storage.storage import Storage

SIZE = 3 * BLOCK_BYTES + 17


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("range") / "a"
    path.write_bytes(bytes(range(251)) * (SIZE // 251 + 1))
    with path.open("r+b") as file:
        file.truncate(SIZE)
    return path


edges = [0, 1, 511, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, SIZE - 1, SIZE, SIZE + 5]
offsets = st.sampled_from(edges) | st.integers(0, SIZE + 10)
steps = st.lists(
    st.tuples(st.just("seek"), offsets)
    | st.tuples(st.just("back"), st.integers(0, SIZE))
    | st.tuples(st.just("read"), st.integers(-1, 2000) | st.sampled_from(edges)),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(steps=steps)
def test_it_does_what_an_open_file_does(steps: list[tuple[str, int]], path: Path) -> None:
    ours = RangeFile(Storage(), str(path), SIZE)
    with path.open("rb") as theirs:
        for what, number in steps:
            if what == "seek":
                assert ours.seek(number) == theirs.seek(number)
            elif what == "back":
                assert ours.seek(-number, io.SEEK_END) == theirs.seek(-number, io.SEEK_END)
            else:
                assert ours.read(number) == theirs.read(number)
            assert min(ours.tell(), SIZE) == min(theirs.tell(), SIZE)


def test_it_can_be_buffered(path: Path) -> None:
    assert io.BufferedReader(RangeFile(Storage(), str(path), SIZE), 1000).read() == path.read_bytes()


def test_a_file_that_shrank_is_a_failure_and_not_an_end(path: Path) -> None:
    file = RangeFile(Storage(), str(path), SIZE + 100)
    file.seek(SIZE - 10)
    with pytest.raises(FetchFailed):
        file.read(50)
