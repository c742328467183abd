"""Names of files say which chunks are there, each once, whatever else holds their rows for a moment."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iqa_core.corpus.chunks import chunk_name, segment_and_index
from iqa_core.tables.packs import FileName, Generations, ScoreFiles, again_name, by_file, chunk_names_in, pack_name

A, B = "aaaaaaaa", "bbbbbbbb"

ENDS = ("000000-000001", "000000-000002", "000001-000001", "000001-000002")


def chunks(*indices: int, segment: int = 0) -> list[str]:
    return [chunk_name(segment, index) for index in indices]


def listed(*files: str) -> list[str]:
    return [f"{file}.parquet" for file in files]


def never(packs: Sequence[str]) -> Generations:
    assert not packs, "no footer may be read"
    return {}


def test_a_name_says_what_its_file_holds() -> None:
    assert pack_name(chunks(3, 4, 5, segment=2), 7, A * 8) == f"000002-000003-000005.7-{A}"
    assert pack_name(chunks(3), 1, A * 8) == f"000000-000003-000003.1-{A}"
    assert again_name(chunk_name(0, 3), 2, B * 8) == f"000000-000003.2-{B}"
    assert chunk_names_in(f"000002-000003-000005.7-{A}") == chunks(3, 4, 5, segment=2)
    assert chunk_names_in("000002-000003-000005") == chunks(3, 4, 5, segment=2)
    assert chunk_names_in(f"000002-000003.1-{A}") == chunk_names_in("000002-000003") == chunks(3, segment=2)
    assert segment_and_index("000002-000003") == (2, 3)
    with pytest.raises(AssertionError, match="gaps"):
        pack_name(chunks(3, 5), 1, A)
    for other in ("000000-000005-000004", "000000-000004-000004", "x000000-000009", "000000-000001.1", f"1-2.1-{A}"):
        assert FileName.of(other) is None


def test_what_names_alone_decide() -> None:
    """The latest try of a chunk; a pack over the first files that it was made of; of older packs the widest."""
    pack, again = f"000000-000000-000001.1-{A}", [f"000000-000002.{n}-{A}" for n in (1, 2)]
    old = ["000000-000004-000007", "000000-000004-000005", "000000-000005"]
    files = ScoreFiles.of(["notes.txt", *listed(pack, *chunks(0, 1, 2, 3), *again, *old)], never)
    assert files.finished == set(chunks(0, 1, 2, 3, 4, 5, 6, 7))
    assert [files.place(chunk) for chunk in chunks(0, 1, 2, 3)] == [pack, pack, again[1], chunk_name(0, 3)]
    assert [files.place(chunk) for chunk in chunks(4, 5, 6, 7)] == [old[0], old[2], old[0], old[0]]
    assert files.superfluous == sorted([*chunks(0, 1, 2), again[0], old[1]])
    assert files.places(chunk_name(0, 0)) == (pack, chunk_name(0, 0))
    assert files.places(chunk_name(0, 9)) == ()
    assert chunk_name(0, 9) not in files


@pytest.mark.parametrize(("of_pack", "counts"), [(0, False), (1, True), (2, True)])
def test_a_pack_counts_if_it_holds_the_latest_try(of_pack: int, counts: bool) -> None:
    pack, again = f"000000-000000-000001.5-{A}", f"000000-000000.1-{B}"
    said = {pack: {chunk_name(0, 0): of_pack, chunk_name(0, 1): 0}}
    files = ScoreFiles.of(listed(pack, again), lambda packs: {name: said[name] for name in packs})
    assert files.place(chunk_name(0, 0)) == (pack if counts else again)
    assert files.place(chunk_name(0, 1)) == pack
    assert files.superfluous == ([again] if counts else [])


def test_of_two_packs_the_later_counts_and_one_that_has_gone_does_not() -> None:
    wide, narrow = f"000000-000000-000002.1-{B}", f"000000-000001-000002.2-{A}"
    generations: dict[str, dict[str, int]] = {
        wide: dict.fromkeys(chunks(0, 1, 2), 0),
        narrow: dict.fromkeys(chunks(1, 2), 0),
    }
    files = ScoreFiles.of(listed(wide, narrow), lambda packs: generations)
    assert [files.place(chunk) for chunk in chunks(0, 1, 2)] == [wide, narrow, narrow]
    assert files.superfluous == []
    generations[wide] = dict.fromkeys(chunks(0, 1, 2), 1)
    assert ScoreFiles.of(listed(wide, narrow), lambda packs: generations).superfluous == [narrow]
    generations[wide] = {}
    assert ScoreFiles.of(listed(wide, narrow), lambda packs: generations).place(chunk_name(0, 1)) == narrow


def test_the_order_of_files_is_total() -> None:
    """So two who each delete what lies in another file never delete the last one of a chunk."""
    chunk = chunk_name(0, 1)
    names = [
        chunk,
        *(f"{chunk}.{number}-{seal}" for number in (1, 2) for seal in (A, B)),
        *(f"000000-{ends}.{moves}-{seal}" for ends in ENDS for moves in (1, 2) for seal in (A, B)),
        *("000000-000000-000001", "000000-000001-000002", "000000-000000-000002"),
    ]
    generations = {name: {chunk: 1} for name in names}
    ranks = {found.rank(chunk, generations) for name in names if (found := FileName.of(name)) is not None}
    assert len(ranks) == len(names)


def test_runs_are_what_is_read_from_one_file_at_once() -> None:
    pack = f"000000-000000-000003.1-{A}"
    packed = dict.fromkeys(chunks(0, 2, 3), pack)
    found = list(by_file(chunks(0, 1, 2, 3, 7), packed))
    assert found == [
        (pack, chunks(0)),
        ("000000-000001", chunks(1)),
        (pack, chunks(2, 3)),
        ("000000-000007", chunks(7)),
    ]
