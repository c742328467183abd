"""An output as a run finds it -> what is finished, what is tried again, and what the run says of it first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.errors import CallerError
from iqa_core.tables.packs import ScoreFiles
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.columns import retryable_ordinals
from iqa_core.tables.scores.run_record import run_record
from jobs.assessing.job import AssessingJob, ImageTable, TableSummary, considered_chunks
from jobs.progress import counted


@dataclass(frozen=True, slots=True)
class Stock:
    """What an output holds before a run adds to it."""

    ledger: ImageTable
    schema: pa.Schema
    """Columns of the rows in transit."""
    files: ScoreFiles
    expected: Mapping[str, int | None]
    """Chunk that the run is about -> its images; None where only reading tells how many."""
    finished: frozenset[str]
    """Chunks of the plan that are committed, without those that are tried again."""
    retries: Mapping[str, tuple[int, ...]]
    """Committed chunk -> ordinals to be tried again, under --retry-rejected."""
    images_done: int
    """Images of `expected` that are not assessed again."""
    table: TableSummary
    """Counts of the finished chunks; the run goes on counting in it."""
    warnings: list[str] | None
    """What the check of the checkpoint found in the run before; None where there was none."""

    @property
    def images_expected(self) -> int:
        """Images that the run is about, as far as they are counted."""
        return sum(images or 0 for images in self.expected.values())

    @property
    def is_counted(self) -> bool:
        """Whether `images_expected` is all of them."""
        return None not in self.expected.values()


def take_stock(job: AssessingJob, contract: Contract) -> Stock:
    """Read all that is finished.

    Files of chunks that the plan retired are deleted, and chunks that are tried again are taken out of packs.

    Raises Damaged for a score file that cannot be read.
    """
    warnings = _known_warnings(job)
    ledger, schema, table = job.table(contract), job.schema(contract), job.summary(contract)
    files = ledger.settled(job.plan.retired())
    expected = {chunk.name: chunk.images for chunk in considered_chunks(job)}
    finished = files.finished & {chunk.name for chunk in job.plan.chunks()}
    retries: dict[str, tuple[int, ...]] = {}
    images_done = 0
    for name, rows in ledger.read_all(sorted(finished), table.columns(), files):
        again = retryable_ordinals(rows) if job.settings.retry_rejected and name in expected else []
        if again:
            retries[name] = tuple(again)
        else:
            add_committed(table, rows)
        if name in expected:
            images_done += rows.num_rows - len(again)
    if retries:
        files = ledger.take_apart(retries)
    finished -= retries.keys()
    return Stock(ledger, schema, files, expected, finished, retries, images_done, table, warnings)


def add_committed(table: TableSummary, rows: pa.Table) -> None:
    """Count the rows of a committed chunk, and the damage that its file tells of."""
    known = metadata_of(rows)
    table.add(rows, known.get("damage"), known.get("written_answers", {}))


def opening(job: AssessingJob, proposal: Proposal, stock: Stock, pool: str) -> str:
    """What a run says first. pool: the cluster's share, for people."""
    expected, finished = stock.expected, stock.finished
    todo = len(expected.keys() - finished)
    lines = [
        *(f"{label:<10} {text}" for label, text in job.introduction(considered_chunks(job))),
        f"output     {job.output}",
        f"plan       {counted(stock.images_expected, 'image')} in {counted(len(expected), 'chunk')}",
        f"finished   {counted(stock.table.images, 'image')} in {counted(len(finished), 'chunk')}; to do: {todo:,}",
        f"pool       {pool}",
    ]
    found = proposal.listing
    if found.tables:
        lines.append(f"metadata   {found.describe_tables()}")
    if found.ignored:
        ignored = ", ".join(f"{count:,} {name}" for name, count in found.ignored.most_common(5))
        lines.append(f"ignored    {counted(found.ignored.total(), 'file')}, no images: {ignored}")
    if proposal.left_out:
        lines.append(f"left out   columns that this table does not have: {', '.join(sorted(proposal.left_out))}")
    lines += [
        f"unfit      {counted(count, 'value')} of {name} cannot be {job.options.carry[name]}, and null in the table"
        for name, count in sorted(proposal.unfit.items())
    ]
    return "\n".join(lines)


def _known_warnings(job: AssessingJob) -> list[str] | None:
    """Warnings in run.json; None where there is none, or it is damaged: this run writes it anew."""
    try:
        found: list[str] | None = run_record(job.storage, job.output).get("warnings")
    except CallerError:
        return None
    return found
