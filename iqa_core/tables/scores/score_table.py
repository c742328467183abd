"""Output of a scoring run -> its columns, and its finished score files as local files that an engine can open."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.errors import CallerError
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.packs import by_file, chunk_names_in
from iqa_core.tables.scores.columns import TABLE_VERSION, schema_of

COPY_THREADS = 32
"""Score files of an object store fetched at once: each is some 100 kB, so a request's latency is what they cost."""


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """One output of the scoring job, as it stood when it was opened."""

    storage: Storage
    uri: str
    contract: Contract
    chunks: tuple[str, ...]
    """Names of the finished chunks, sorted: the order of its rows."""
    planned: int
    """Chunks of its plan; more than are finished where the scoring was stopped."""
    packed: Mapping[str, str] = field(default_factory=dict)
    """Chunk -> the file that it lies in, where that is not the one of its own name."""

    @property
    def ledger(self) -> Ledger:
        """Its score files, held against its contract."""
        return ledger_of(self.storage, self.uri, self.contract)

    @property
    def schema(self) -> pa.Schema:
        """Columns of all its files."""
        return schema_of(self.contract)

    def local_files(self, scratch: Path) -> list[Path]:
        """Local files with exactly its rows, in order.

        Remote files, and packs with other chunks, are copied into `scratch`. A local file may be gone by the time it is
        opened, if its rows have moved. Raises Damaged for a file that is not what was committed to this output; of a
        local one only the footer is read.
        """
        found = by_file(self.chunks, self.packed)
        with ThreadPoolExecutor(COPY_THREADS, thread_name_prefix="scores") as pool:
            return [
                path for paths in pool.map(lambda run: self._local(run[0], run[1], scratch), found) for path in paths
            ]

    def require_whole(self) -> None:
        """Read all of it. Raises CallerError that names the first file that is damaged."""
        for _ in replace(self.ledger, is_read_whole=True).read_all(self.chunks, []):
            pass

    def _local(self, file: str, chunks: list[str], scratch: Path) -> list[Path]:
        """These chunks of one file: the file where it holds nothing else, or a file for each."""
        uri = self.ledger.uri(file)
        is_whole = chunks == chunk_names_in(file)
        with suppress(Missing):  # its rows have moved since it was listed: each chunk is read by itself
            if is_whole and "://" not in self.uri:
                self.ledger.check_footer(file)
                return [Path(uri)]
            scratch.mkdir(parents=True, exist_ok=True)
            if is_whole:
                (path := scratch / f"{file}.parquet").write_bytes(self.ledger.read_bytes(file))
                return [path]
        scratch.mkdir(parents=True, exist_ok=True)
        paths = []
        for chunk, rows in self.ledger.read_all(chunks):
            pq.write_table(rows, path := scratch / f"{chunk}.parquet")
            paths.append(path)
        return paths


def ledger_of(storage: Storage, uri: str, contract: Contract) -> Ledger:
    """Score files of an output, held against its contract."""
    return Ledger(
        storage, uri, fingerprint=contract.fingerprint, schema=schema_of(contract), table_version=TABLE_VERSION
    )


def score_ledger(storage: Storage, uri: str) -> Ledger:
    """Score files of an output, held against its contract if it has one. Raises CallerError for a broken contract."""
    if (contract := Plan(storage, uri).contract()) is None:
        return Ledger(storage, uri, table_version=TABLE_VERSION)
    return ledger_of(storage, uri, contract)


def open_score_table(storage: Storage, given: str, flag: str = "--scores ") -> ScoreTable:
    """The score table as it stands. Raises CallerError where nothing was planned, or no chunk is finished yet.

    flag: what stands before the place on the command line.
    """
    uri = absolute(given)
    plan = Plan(storage, uri)
    contract = plan.contract()
    if contract is None:
        raise CallerError(f"{flag}{given}: no score table is there; give the --output of jobs/score_corpus.py")
    if not contract.has_scores:
        raise CallerError(
            f"{flag}{given}: its tables are of parts of images (grounding/, regions/); give the output of "
            "jobs/score_corpus.py in which these images were scored"
        )
    planned = {chunk.name for chunk in plan.chunks()}
    files = ledger_of(storage, uri, contract).files()
    chunks = tuple(sorted(files.finished & planned))
    if not chunks:
        raise CallerError(f"{flag}{given}: none of its {len(planned)} chunks is scored yet")
    return ScoreTable(storage, uri, contract, chunks, len(planned), files.packed)
