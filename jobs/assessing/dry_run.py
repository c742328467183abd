"""A job and its proposal -> what it would do, how long, at what cost; nothing is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain

from iqa_core.assessor.load import load
from iqa_core.corpus.batches import ReadyBatch, ready_batches
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.corpus.plan.selected import SelectedRows
from iqa_core.corpus.reading import open_chunk
from jobs.assessing.job import AssessingJob, within_limit
from jobs.assessing.work import Work
from jobs.progress import counted

TIMED_IMAGES = 64


@dataclass(slots=True)
class Totals:
    """How much the chunks hold that were added, which come in the plan's order."""

    chunks: int = 0
    images: int = 0
    size: int = 0
    """Bytes of the chunks' sources."""
    _source: str = ""

    def add(self, chunk: Chunk) -> None:
        """Count a chunk; a source that goes on from the chunk before is not measured again."""
        self.chunks += 1
        self.images += chunk.images or 0
        for span in chunk.spans:
            if span.source != self._source:  # a source's spans follow one another
                self.size += span.size or 0
                self._source = span.source

    def describe(self) -> str:
        """Images, MiB and chunks, for people."""
        return f"{counted(self.images, 'image')}, {self.size / 2**20:,.1f} MiB, in {counted(self.chunks, 'chunk')}"


def print_dry_run(job: AssessingJob, proposal: Proposal) -> None:
    """The resolved configuration as JSON, then the plan."""
    print(json.dumps(job.shown_settings(), indent=2))
    finished = job.ledger.finished() - proposal.retired
    planned, left = Totals(), Totals()
    for chunk in _all_chunks(job, proposal):
        planned.add(chunk)
        if chunk.name not in finished:
            left.add(chunk)
    for label, text in job.introduction(_all_chunks(job, proposal)):
        print(f"{label:<12} {text}")
    print(f"plan         {planned.describe()}")
    print(f"new          {counted(len(proposal.chunks), 'chunk')}, {len(proposal.retired):,} retired")
    print(f"finished     {counted(len(finished), 'chunk')}")
    found = proposal.listing
    if found.tables:
        print(f"metadata     {found.describe_tables()}")
    if found.ignored:
        print(f"ignored      {counted(found.ignored.total(), 'file')}: {dict(found.ignored.most_common())}")
    if job.settings.estimate:
        chunks = (chunk for chunk in _all_chunks(job, proposal) if chunk.name not in finished)
        _print_estimate(job, proposal, chunks, left.images)


def _all_chunks(job: AssessingJob, proposal: Proposal) -> Iterator[Chunk]:
    """What the plan would be, up to --limit images."""
    planned = (chunk for chunk in job.plan.chunks() if chunk.name not in proposal.retired)
    new = (Chunk(f"new-{index:06d}", kind, spans) for index, (kind, spans) in enumerate(proposal.chunks))
    return within_limit(chain(planned, new), job.settings.limit)


def _print_estimate(job: AssessingJob, proposal: Proposal, chunks: Iterable[Chunk], images: int) -> None:
    work = job.work(proposal.contract, job.settings.assessor.threads or 1)
    assessor = load(work.spec, work.config)
    timed = 0
    began: float | None = None
    for batch in _batches(chunks, work, proposal.selected):
        work.asking.results(assessor, batch)
        if began is None:  # the first batch warms up and is not counted
            began = time.monotonic()
            continue
        timed += len(batch.ordinals)
        if timed >= TIMED_IMAGES:
            break
    if not timed or began is None:
        print("estimate     too few images to time")
        return
    rate = timed / (time.monotonic() - began)
    alone_h = images / rate / 3600
    print(f"estimate     {rate:.1f} images/s here in one process (reading included, {timed} images timed)")
    least = job.settings.num_actors or 1
    for actors in sorted({least, job.settings.max_actors or least}):
        print(f"             {images:,} images take {alone_h / actors:.2f} h on {actors} such actors")
    if job.settings.price_per_hour is not None:
        print(f"             and cost {alone_h * job.settings.price_per_hour:.2f} at the given price per hour")


def _batches(chunks: Iterable[Chunk], work: Work, selected: SelectedRows) -> Iterator[ReadyBatch]:
    drafted = {file.name: str(file.parent) for file in selected.files}
    for chunk in chunks:
        tables = (span.metadata.uri for span in chunk.spans if span.metadata is not None)
        folder = next((drafted[name] for name in tables if name in drafted), work.read_plan.folder)
        content = open_chunk(chunk, replace(work.read_plan, folder=folder))
        yield from ready_batches(chunk.name, content, work.spec.preparer, work.bounds, nullcontext)
