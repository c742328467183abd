"""A score file is the one that was written, to the last byte, or it is found that it is not."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.tables.score_file import SEAL_KEY, deserialised, metadata_of, seal_of, serialised

LIKE_A_SEAL = SEAL_KEY.decode() + "\x18\x40" + "0" * 64

SCORES = pa.array([1.5, 2.5, None], pa.float32())

ROWS = pa.table({"key": ["a", "0" * 64, LIKE_A_SEAL], "layout": SCORES})

ABOUT = {"chunk": "000000-000000", "damage": LIKE_A_SEAL}


def test_rows_and_what_is_known_of_them_come_back() -> None:
    data, seal = serialised(ROWS, ABOUT)
    assert seal_of(data) == seal
    assert serialised(ROWS, ABOUT) == (data, seal), "the same rows give the same bytes"
    assert pq.read_table(io.BytesIO(data)).equals(ROWS), "for whoever else reads it"
    assert pq.read_metadata(io.BytesIO(data)).metadata[SEAL_KEY].decode() == seal
    assert deserialised(data, None).equals(ROWS)
    assert metadata_of(deserialised(data, None)) == ABOUT
    assert deserialised(data, ["layout", "key"]).column_names == ["layout", "key"]
    with pytest.raises(KeyError, match="reward"):
        deserialised(data, ["reward"])


def test_no_byte_can_be_changed() -> None:
    data, _ = serialised(ROWS, ABOUT)
    passed = []
    for index in range(0, len(data), 3):
        changed = bytearray(data)
        changed[index] ^= 1
        try:
            if seal_of(bytes(changed)) is not None:
                passed.append(index)
            if metadata_of(deserialised(bytes(changed), None)):
                passed.append(index)
        except ValueError:
            continue
    assert passed == [], "else it says nothing of itself any more"


def test_what_another_program_has_written_is_known_by_it() -> None:
    data, _ = serialised(ROWS, ABOUT)
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(data)), buffer)
    assert seal_of(buffer.getvalue()) is None
    with pytest.raises(ValueError, match="written it anew"):
        deserialised(buffer.getvalue(), None)


def test_files_without_a_seal_are_taken_as_they_are() -> None:
    buffer = io.BytesIO()
    pq.write_table(ROWS, buffer)
    assert seal_of(buffer.getvalue()) is None
    assert deserialised(buffer.getvalue(), None).equals(ROWS)
    for broken in (b"", b"PAR1", buffer.getvalue()[:-3], b"x" * 999):
        with pytest.raises(ValueError, match=r"\w"):
            seal_of(broken)
