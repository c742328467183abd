"""Names of score files -> which of them holds which chunk: a file of its own, or a pack of neighbours that were merged.

    000000-000007.parquet           chunk 7 of segment 0
    000000-000000-000255.parquet    chunks 0 to 255, in order: what `jobs/compact_scores.py` makes of so many files

A chunk may lie in several files for a moment, while it is merged or taken apart. Then its own file counts, which is
never older, or else the widest pack. So a listing alone says what is finished, and each chunk counts once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_FILE = re.compile(r"(\d{6})-(\d{6})(?:-(\d{6}))?\.parquet")


def chunk_name(segment: int, index: int) -> str:
    return f"{segment:06d}-{index:06d}"


def place_of(chunk: str) -> tuple[int, int]:
    """Segment and index of a chunk's name."""
    segment, index = chunk.split("-")
    return int(segment), int(index)


def pack_name(chunks: Sequence[str]) -> str:
    """Of the file that holds these neighbours of one segment, at least two."""
    segment, first = place_of(chunks[0])
    assert list(chunks) == [chunk_name(segment, first + i) for i in range(len(chunks))], "a pack has no gaps"
    return f"{chunks[0]}-{place_of(chunks[-1])[1]:06d}"


def chunks_of(file: str) -> list[str]:
    """Chunks that a file holds, by its name without the ending."""
    segment, first, *last = (int(part) for part in file.split("-"))
    return [chunk_name(segment, index) for index in range(first, (last or [first])[0] + 1)]


@dataclass(frozen=True, slots=True)
class ScoreFiles:
    """What one listing of the folder found."""

    singles: frozenset[str]
    """Chunks that have a file of their own."""
    packs: tuple[str, ...]
    packed: Mapping[str, str]
    """Chunk -> the pack that counts for it; none of the singles."""

    @classmethod
    def of(cls, names: Iterable[str]) -> ScoreFiles:
        """Of the names in the folder; any other file is passed over."""
        singles, packs = set(), []
        for match in filter(None, map(_FILE.fullmatch, names)):
            if match[3] is None:
                singles.add(f"{match[1]}-{match[2]}")
            elif int(match[2]) < int(match[3]):
                packs.append("-".join(match.groups()))
        packed: dict[str, str] = {}
        for pack in sorted(packs, key=lambda name: (-len(chunks_of(name)), name)):
            for chunk in chunks_of(pack):
                if chunk not in singles:
                    packed.setdefault(chunk, pack)
        return cls(frozenset(singles), tuple(sorted(packs)), packed)

    def __contains__(self, chunk: object) -> bool:
        """Whether the chunk lies in one of them."""
        return chunk in self.singles or chunk in self.packed

    @property
    def finished(self) -> frozenset[str]:
        return self.singles.union(self.packed)


def runs(chunks: Iterable[str], packed: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """File -> the chunks that follow one another here and are read from it."""
    run: list[str] = []
    for chunk in chunks:
        if run and packed.get(chunk, chunk) != packed.get(run[0], run[0]):
            yield packed.get(run[0], run[0]), run
            run = []
        run.append(chunk)
    if run:
        yield packed.get(run[0], run[0]), run
