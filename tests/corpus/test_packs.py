"""Names of files say which chunks are there, each once, whatever else holds their rows for a moment."""

from __future__ import annotations

import pytest

from iqa_core.corpus.packs import ScoreFiles, chunk_name, chunks_of, pack_name, place_of, runs


def chunks(*indices: int, segment: int = 0) -> list[str]:
    return [chunk_name(segment, index) for index in indices]


def test_a_name_says_what_its_file_holds() -> None:
    assert pack_name(chunks(3, 4, 5, segment=2)) == "000002-000003-000005"
    assert chunks_of("000002-000003-000005") == chunks(3, 4, 5, segment=2)
    assert chunks_of("000002-000003") == chunks(3, segment=2)
    assert place_of("000002-000003") == (2, 3)
    with pytest.raises(AssertionError, match="gaps"):
        pack_name(chunks(3, 5))


def test_a_chunk_counts_in_its_own_file_or_else_in_the_widest_pack() -> None:
    names = ["000000-000001.parquet", "000000-000000-000003.parquet", "000000-000002-000003.parquet", "notes.txt"]
    files = ScoreFiles.of([*names, "000000-000005-000004.parquet", "x000000-000009.parquet"])
    assert files.finished == set(chunks(0, 1, 2, 3))
    assert files.singles == set(chunks(1))
    assert files.packed == dict.fromkeys(chunks(0, 2, 3), "000000-000000-000003")
    assert files.packs == ("000000-000000-000003", "000000-000002-000003")


def test_runs_are_what_is_read_from_one_file_at_once() -> None:
    pack = "000000-000000-000003"
    packed = dict.fromkeys(chunks(0, 2, 3), pack)
    found = list(runs(chunks(0, 1, 2, 3, 7), packed))
    assert found == [
        (pack, chunks(0)),
        ("000000-000001", chunks(1)),
        (pack, chunks(2, 3)),
        ("000000-000007", chunks(7)),
    ]
