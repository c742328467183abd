"""The output of a scoring run -> its columns and its finished score files, as files that a local engine can open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from iqa_core.corpus.columns import plain
from iqa_core.corpus.ledger import Ledger
from iqa_core.corpus.plan import Contract, Plan
from iqa_core.corpus.storage import Storage, absolute, join
from iqa_core.corpus.table import table_schema
from iqa_core.errors import CallerError

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

    @property
    def schema(self) -> pa.Schema:
        """Columns of all its files; codes of carried columns are read as what they stand for."""
        contract = self.contract
        return plain(table_schema(contract.dimensions, contract.probs, contract.carried))

    def file(self, chunk: str) -> str:
        return join(join(self.uri, "scores"), f"{chunk}.parquet")

    def local_files(self, scratch: Path) -> list[Path]:
        """Its files on this machine, in order; those of an object store are copied into `scratch`."""
        if "://" not in self.uri:
            return [Path(self.file(chunk)) for chunk in self.chunks]
        scratch.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(COPY_THREADS, thread_name_prefix="scores") as pool:
            return list(pool.map(lambda chunk: self._copied(chunk, scratch), self.chunks))

    def _copied(self, chunk: str, scratch: Path) -> Path:
        path = scratch / f"{chunk}.parquet"
        path.write_bytes(self.storage.read(self.file(chunk)))
        return path


def open_score_table(storage: Storage, given: str) -> ScoreTable:
    """Raises CallerError where no scoring run has put anything, or nothing is finished yet."""
    uri = absolute(given)
    plan = Plan(storage, uri)
    contract = plan.contract()
    if contract is None:
        raise CallerError(f"--scores {given}: no score table is there; give the --output of jobs/score_corpus.py")
    planned = {chunk.name for chunk in plan.chunks()}
    chunks = tuple(sorted(Ledger(storage, uri).finished() & planned))
    if not chunks:
        raise CallerError(f"--scores {given}: none of its {len(planned)} chunks is scored yet")
    return ScoreTable(storage, uri, contract, chunks, len(planned))
