"""Names of score files, and the footers of packs -> which file counts for which chunk.

    000000-000007.parquet                       chunk 7 of segment 0, as it was scored
    000000-000007.2-5d41402a.parquet            the same when it was tried again a second time: generation 2
    000000-000000-000255.3-7b8b965a.parquet     a pack: chunks 0 to 255, in order, after rows were moved 3 times

The digits at the end are the first ones of the file's seal, so no name is ever given to other rows. A chunk may
lie in several files: while it moves, after a run or a compaction was stopped, or when a stopped one went on. One of the
files counts: the one of the highest generation, among equals a pack, among packs the one that was moved more often. A
file is deleted only after one of a higher rank was seen. So the highest of a chunk is never deleted, even by a process
that was paused before a delete for any time, and no locks are needed.

Names alone say which chunks are finished. The packs' footers decide between two packs, and between a pack and a chunk
that was tried again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from iqa_core.corpus.chunks import chunk_name, segment_and_index

_FILE = re.compile(r"(\d{6})-(\d{6})(?:-(\d{6}))?(?:\.(\d{1,9})-([0-9a-f]{8}))?")

SEAL_DIGITS = 8
"""Digits of a file's seal in its name."""

Rank = tuple[int, int, int, int, str]

Generations = Mapping[str, Mapping[str, int]]
"""Pack -> chunk -> generation of the rows that it holds."""


def again_name(chunk: str, generation: int, seal: str) -> str:
    """Name of the file of a chunk that was tried again."""
    return f"{chunk}.{generation}-{seal[:SEAL_DIGITS]}"


def pack_name(chunks: Sequence[str], moves: int, seal: str) -> str:
    """Name of the pack for these consecutive chunks of one segment."""
    segment, first = segment_and_index(chunks[0])
    assert list(chunks) == [chunk_name(segment, first + i) for i in range(len(chunks))], "a pack has no gaps"
    return f"{chunks[0]}-{segment_and_index(chunks[-1])[1]:06d}.{moves}-{seal[:SEAL_DIGITS]}"


@dataclass(frozen=True, slots=True)
class FileName:
    """A score file by its name without the ending."""

    name: str
    segment: int
    first: int
    last: int
    is_pack: bool
    number: int
    """Generation of a single chunk's rows; for a pack, how often rows were moved until they lay here."""
    seal: str
    """First digits of the file's seal; empty where the name has none."""

    @classmethod
    def of(cls, name: str) -> FileName | None:
        """The parts of a score file's name; None for any other file."""
        if (match := _FILE.fullmatch(name)) is None:
            return None
        segment, first, last, number, seal = match.groups()
        found = cls(name, int(segment), int(first), int(last or first), last is not None, int(number or 0), seal or "")
        is_empty = found.last < found.first or (found.last == found.first and found.is_pack and not found.seal)
        return None if is_empty else found

    @property
    def chunks(self) -> list[str]:
        """Names of the chunks that it holds, in order."""
        return [chunk_name(self.segment, index) for index in range(self.first, self.last + 1)]

    def rank(self, chunk: str, generations: Generations) -> Rank:
        """Its rank among the files of this chunk; the highest counts. A pack that has gone meanwhile is lowest."""
        if not self.is_pack:
            return self.number, 0, 0, 0, self.name
        if self.seal:
            own = generations.get(self.name)
            return 0 if own is None else own.get(chunk, -2), 1, self.number, 0, self.name
        # a pack from before packs had generations: a chunk's own file is never older, nor is a wider pack
        return -1, 1, self.last - self.first, -self.first, self.name


def parsed(file: str) -> FileName:
    """The parts of a score file's name."""
    found = FileName.of(file)
    assert found is not None, file
    return found


def chunk_names_in(file: str) -> list[str]:
    """Names of the chunks that a score file holds, by its name without the ending."""
    return parsed(file).chunks


def no_generations(packs: Sequence[str]) -> Generations:
    """No generations: for folders in which nothing is ever merged, and for a listing that asks no footers."""
    return {}


@dataclass(frozen=True, slots=True)
class ScoreFiles:
    """The score files of a listing, by names without the ending."""

    files: frozenset[str]
    packed: Mapping[str, str] = field(default_factory=dict)
    """Chunk -> the file that counts for it, where that is not the one of its own name."""
    beaten: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Chunk -> files that hold it too, and do not count."""

    @classmethod
    def of(
        cls, names: Iterable[str], generations_in: Callable[[Sequence[str]], Generations] = no_generations
    ) -> ScoreFiles:
        """The score files among a folder's names. generations_in: reads footers of packs where names do not decide."""
        found = [FileName.of(name.removesuffix(".parquet")) for name in names if name.endswith(".parquet")]
        files = {file.name: file for file in found if file is not None}
        packed: dict[str, str] = {}
        contested: dict[str, list[FileName]] = defaultdict(list)
        for file in files.values():
            if not file.is_pack and not file.seal:
                continue
            for chunk in file.chunks:
                if chunk in files or chunk in packed:
                    contested[chunk].append(file)
                packed.setdefault(chunk, file.name)
        for chunk, others in contested.items():
            others += {files[name] for name in (packed[chunk], chunk) if name in files} - set(others)
        generations = generations_in(sorted({file.name for some in contested.values() for file in _doubtful(some)}))
        beaten = {}
        for chunk, some in contested.items():
            *lower, highest = sorted(some, key=lambda file: file.rank(chunk, generations))
            packed[chunk] = highest.name
            if highest.name == chunk:
                del packed[chunk]
            beaten[chunk] = tuple(file.name for file in lower)
        return cls(frozenset(files), packed, beaten)

    def __contains__(self, chunk: object) -> bool:
        """Whether the chunk lies in one of them."""
        return chunk in self.packed or chunk in self.files

    def place(self, chunk: str) -> str:
        """The file that counts for this chunk."""
        return self.packed.get(chunk, chunk)

    def places(self, chunk: str) -> tuple[str, ...]:
        """All files that hold this chunk; none where it is not finished."""
        return (self.place(chunk), *self.beaten.get(chunk, ())) if chunk in self else ()

    @property
    def packs(self) -> tuple[str, ...]:
        """Files of several chunks."""
        return tuple(sorted(file for file in self.files if len(chunk_names_in(file)) > 1))

    @property
    def finished(self) -> frozenset[str]:
        """Names of the chunks that lie in a file."""
        return frozenset(self.packed).union(file for file in self.files if "." not in file and file.count("-") == 1)

    @property
    def superfluous(self) -> list[str]:
        """Files that count for no chunk: each of their chunks lies in a file of a higher rank."""
        lower = {file for some in self.beaten.values() for file in some}
        return sorted(lower.difference(self.packed.values()))


def _doubtful(contenders: Sequence[FileName]) -> list[FileName]:
    """Packs whose footers decide which file counts; none where there is one pack beside a chunk's first file."""
    packs = [file for file in contenders if file.is_pack and file.seal]
    return packs if len(packs) > 1 or any(file.number for file in contenders if not file.is_pack) else []


def by_file(chunks: Iterable[str], packed: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """File and the chunks that follow one another here and are read from it, in order."""
    run: list[str] = []
    for chunk in chunks:
        if run and packed.get(chunk, chunk) != packed.get(run[0], run[0]):
            yield packed.get(run[0], run[0]), run
            run = []
        run.append(chunk)
    if run:
        yield packed.get(run[0], run[0]), run
