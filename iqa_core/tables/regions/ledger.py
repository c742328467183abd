"""Complete chunks -> a file in `regions/` and then one in `grounding/`, whose existence says that the chunk is done."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.errors import CallerError
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.packs import ScoreFiles
from iqa_core.tables.regions.columns import GROUNDING_TABLE, REGIONS_TABLE, REGIONS_VERSION
from iqa_core.tables.regions.nesting import GROUNDING, REGIONS, exploded, imploded
from iqa_core.tables.score_file import Damaged
from iqa_core.tables.scores.score_table import ledger_of


@dataclass(frozen=True, slots=True)
class GroundingLedger:
    """The folders `grounding` and `regions` of an output, as one table with a row per image (see nesting)."""

    grounding: Ledger
    regions: Ledger
    num_dimensions: int
    scores: Ledger | None = None
    """The score files beside it, which say what is finished; None where it is an output of its own."""

    @classmethod
    def of(cls, storage: Storage, output: str, contract: Contract) -> Self:
        """The tables of an output, held against its contract."""

        def ledger(folder: str, schema: pa.Schema) -> Ledger:
            return Ledger(storage, output, folder, contract.fingerprint, schema, REGIONS_VERSION)

        scores = ledger_of(storage, output, contract) if contract.has_scores else None
        return cls(ledger(GROUNDING, GROUNDING_TABLE), ledger(REGIONS, REGIONS_TABLE), len(contract.grounded), scores)

    @property
    def folder(self) -> str:
        """The folder whose files say which chunks are finished."""
        return self.grounding.folder

    @property
    def both(self) -> tuple[Ledger, Ledger]:
        """The tables by themselves: `regions`, whose files are put first, then `grounding`."""
        return self.regions, self.grounding

    def finished(self) -> set[str]:
        """Names of the chunks that are committed."""
        return (self.scores or self.grounding).finished()

    def files(self) -> ScoreFiles:
        """The files of `grounding`."""
        return self.grounding.files()

    def commit(self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any]) -> None:
        """Put a chunk's files in place. rows: one per image."""
        grounding, regions = exploded(rows)
        self.regions.commit(chunk, regions, metadata)
        self.grounding.commit(chunk, grounding, metadata)

    def commit_again(
        self, chunk: str, rows: pa.Table, metadata: Mapping[str, Any], generation: int, files: ScoreFiles
    ) -> None:
        """Put the files of a chunk that was tried again; see `Ledger.commit_again`."""
        grounding, regions = exploded(rows)
        self.regions.commit_again(chunk, regions, metadata, generation, self.regions.files())
        self.grounding.commit_again(chunk, grounding, metadata, generation, files)

    def read(self, chunk: str, columns: list[str] | None = None, files: ScoreFiles | None = None) -> pa.Table:
        """A committed chunk, one row per image in ordinal order. Raises Missing where there is none."""
        [(_, rows)] = self.read_all([chunk], columns, files)
        return rows

    def read_all(
        self, chunks: Sequence[str], columns: list[str] | None = None, files: ScoreFiles | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Committed chunks in this order, as `read` gives each.

        columns: without `regions`, that table is not read, and its lists are empty. Raises Missing and Damaged.
        """
        has_regions = columns is None or REGIONS in columns
        regions = self.regions.read_all(chunks) if has_regions else iter([(name, _NO_REGIONS) for name in chunks])
        for name, grounding in self.grounding.read_all(chunks, files=files):
            try:
                yield name, imploded(grounding, next(regions)[1], self.num_dimensions)
            except ValueError as error:
                raise Damaged(self.grounding.uri(name), error) from error
            except Missing as error:
                if name not in self.finished():
                    raise
                raise Damaged(self.grounding.uri(name), f"{REGIONS}/ has no file of it") from error

    def settled(self, retired: Collection[str]) -> ScoreFiles:
        """The files of `grounding`, after retired chunks and superfluous files were deleted from both tables."""
        self.regions.settled(retired)
        return self.grounding.settled(retired)

    def take_apart(self, chunks: Collection[str]) -> ScoreFiles:
        """The files of `grounding`, after each of these chunks was given files of its own in both tables."""
        self.regions.take_apart(chunks)
        return self.grounding.take_apart(chunks)


def open_grounding(storage: Storage, given: str, flag: str) -> tuple[Contract, GroundingLedger]:
    """The contract and the tables of an output. Raises CallerError where there are none.

    flag: what stands before the place on the command line.
    """
    uri = absolute(given)
    contract = Plan(storage, uri).contract()
    if contract is None or not contract.grounding:
        raise CallerError(
            f"{flag} {given}: no table of parts of images is there; give an output of ground_corpus.py, or of "
            "score_corpus.py --ground"
        )
    return contract, GroundingLedger.of(storage, uri, contract)


_NO_REGIONS = REGIONS_TABLE.empty_table()
