"""A score table with `grounding` and `regions` beside it, as one: a chunk's score file, put last, says it is done.

Its rows are those of the score table with two more columns, what is said of an image's parts (see nesting).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import pyarrow as pa

from iqa_core.corpus.plan.plan import Contract
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.packs import ScoreFiles
from iqa_core.tables.regions.columns import IMAGE, REGIONS_VERSION
from iqa_core.tables.regions.ledger import GroundingLedger
from iqa_core.tables.regions.nesting import GROUNDING, NESTED, REGIONS
from iqa_core.tables.regions.summary import GroundingSummary
from iqa_core.tables.score_file import Damaged
from iqa_core.tables.scores.score_table import ledger_of
from iqa_core.tables.scores.summary import Distribution, Summary

PARTS = (NESTED.field(GROUNDING), NESTED.field(REGIONS))
"""The columns that rows in transit have behind those of the score table."""


@dataclass(frozen=True, slots=True)
class GroundedScores:
    """The folders `scores`, `grounding` and `regions` of an output."""

    scores: Ledger
    parts: GroundingLedger

    @classmethod
    def of(cls, storage: Storage, output: str, contract: Contract) -> Self:
        """The tables of an output, held against its contract."""
        return cls(ledger_of(storage, output, contract), GroundingLedger.of(storage, output, contract))

    @property
    def folder(self) -> str:
        """The folder whose files say which chunks are finished."""
        return self.scores.folder

    @property
    def all(self) -> tuple[Ledger, ...]:
        """The tables by themselves, in the order in which a chunk's files are put."""
        return *self.parts.both, self.scores

    def finished(self) -> set[str]:
        """Names of the chunks that are committed."""
        return self.scores.finished()

    def files(self) -> ScoreFiles:
        """The score files."""
        return self.scores.files()

    def commit(self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any]) -> None:
        """Put a chunk's files in place. rows: one per image."""
        self.parts.commit(chunk, rows, _of_parts(metadata))
        self.scores.commit(chunk, rows.drop_columns([GROUNDING, REGIONS]), metadata)

    def commit_again(
        self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any], generation: int, files: ScoreFiles
    ) -> None:
        """Put the files of a chunk that was tried again; see `Ledger.commit_again`."""
        self.parts.commit_again(chunk, rows, _of_parts(metadata), generation, self.parts.files())
        self.scores.commit_again(chunk, rows.drop_columns([GROUNDING, REGIONS]), metadata, generation, files)

    def read(self, chunk: str, columns: list[str] | None = None, files: ScoreFiles | None = None) -> pa.Table:
        """A committed chunk, one row per image in ordinal order. Raises Missing where there is none."""
        [(_, rows)] = self.read_all([chunk], columns, files)
        return rows

    def read_all(
        self, chunks: Sequence[str], columns: list[str] | None = None, files: ScoreFiles | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Committed chunks in this order, as `read` gives each.

        columns: tables of which none is asked for are not read. Raises Missing, and Damaged where the tables differ.
        """
        wanted = [part.name for part in PARTS if columns is None or part.name in columns]
        if not wanted:
            yield from self.scores.read_all(chunks, columns, files)
            return
        own = None if columns is None else [name for name in columns if name not in wanted]
        parts = self.parts.read_all(chunks, wanted)
        for name, rows in self.scores.read_all(
            chunks, own if own is None else [*dict.fromkeys([*own, *IMAGE.names])], files
        ):
            said = self._said(name, parts)
            if not all(said.column(place).equals(rows.column(place)) for place in IMAGE.names):
                raise Damaged(self.scores.uri(name), f"{GROUNDING}/ has other images in this chunk")
            for part in wanted:
                rows = rows.append_column(part, said.column(part))
            yield name, rows if columns is None else rows.select(columns)

    def settled(self, retired: Collection[str]) -> ScoreFiles:
        """The score files, after retired chunks and superfluous files were deleted from all tables."""
        self.parts.settled(retired)
        return self.scores.settled(retired)

    def take_apart(self, chunks: Collection[str]) -> ScoreFiles:
        """The score files, after each of these chunks was given files of its own in all tables."""
        self.parts.take_apart(chunks)
        return self.scores.take_apart(chunks)

    def _said(self, chunk: str, parts: Iterator[tuple[str, pa.Table]]) -> pa.Table:
        """What is said of the parts of a chunk that has scores."""
        try:
            return next(parts)[1]
        except Missing as error:
            raise Damaged(self.scores.uri(chunk), f"{GROUNDING}/ has no file of it") from error


def _of_parts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the files of parts say of how they were made."""
    return {**{name: value for name, value in metadata.items() if name != "fusion"}, "table_version": REGIONS_VERSION}


@dataclass(slots=True)
class GroundedSummary:
    """Counts of all three tables."""

    scores: Summary
    parts: GroundingSummary

    @property
    def images(self) -> int:
        return self.scores.images

    @property
    def rejected(self) -> int:
        return self.scores.rejected

    @property
    def reasons(self) -> Mapping[str, int]:
        """Rejection code -> images, most frequent first."""
        return self.scores.reasons

    @property
    def damage(self) -> Sequence[str]:
        """Damaged sources."""
        return self.scores.damage

    @property
    def distributions(self) -> Mapping[str, Distribution]:
        """Of scores by name."""
        return self.scores.distributions

    def columns(self) -> list[str]:
        """Columns that `add` needs."""
        return [*dict.fromkeys([*self.scores.columns(), *self.parts.columns()])]

    def add(self, rows: pa.Table, damage: str | None, answers: Mapping[str, int] = MappingProxyType({})) -> None:
        """Count a chunk's rows, one per image."""
        self.scores.add(rows, damage, answers)
        self.parts.add(rows, damage)

    def to_json(self) -> dict[str, Any]:
        """The tables' part of run.json."""
        return {**self.scores.to_json(), **self.parts.said_of_parts()}
