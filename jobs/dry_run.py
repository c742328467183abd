"""A scoring job and its proposal -> what it would do, how long, at what cost; nothing is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain

from iqa_core.assessor.boundary import assess_each
from iqa_core.assessor.load import load
from iqa_core.corpus.batches import ReadyBatch, ready_batches
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.planning import Proposal
from iqa_core.corpus.reading import open_chunk
from jobs.progress import counted
from jobs.scoring_job import ScoringJob
from jobs.scoring_run import within_limit
from jobs.work import Work

TIMED_IMAGES = 64


def print_dry_run(job: ScoringJob, proposal: Proposal) -> None:
    """The resolved configuration as JSON, then the plan."""
    print(json.dumps(job.shown_settings(), indent=2))
    finished = job.ledger.finished() - proposal.retired
    chunks = list(_all_chunks(job, proposal))
    images = sum(chunk.images or 0 for chunk in chunks)
    size = sum({s.source: s.size or 0 for chunk in chunks for s in chunk.stretches}.values())
    print(f"fingerprint  {job.wanted.fingerprint}")
    print(f"system       {job.spec.system.describe()}")
    print(f"plan         {counted(images, 'image')}, {size / 2**20:,.1f} MiB, in {counted(len(chunks), 'chunk')}")
    print(f"new          {counted(len(proposal.chunks), 'chunk')}, {len(proposal.retired):,} retired")
    print(f"finished     {counted(len(finished), 'chunk')}")
    if proposal.ignored:
        print(f"ignored      {counted(proposal.ignored.total(), 'file')}: {dict(proposal.ignored.most_common())}")
    if job.settings.estimate:
        left = [chunk for chunk in chunks if chunk.name not in finished]
        _print_estimate(job, proposal, left, sum(chunk.images or 0 for chunk in left))


def _all_chunks(job: ScoringJob, proposal: Proposal) -> Iterator[Chunk]:
    """What the plan would be, up to --limit images."""
    planned = (chunk for chunk in job.plan.chunks() if chunk.name not in proposal.retired)
    new = (Chunk(f"new-{index:06d}", kind, stretches) for index, (kind, stretches) in enumerate(proposal.chunks))
    return within_limit(chain(planned, new), job.settings.limit)


def _print_estimate(job: ScoringJob, proposal: Proposal, chunks: list[Chunk], images: int) -> None:
    work = job.work(proposal.contract, job.settings.assessor.threads or 1)
    assessor = load(work.spec, work.config)
    timed = 0
    began: float | None = None
    for batch in _batches(chunks, work):
        assess_each(assessor, batch.images)
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
    actors = job.settings.num_actors or 1
    hours = images / (rate * actors) / 3600
    print(f"estimate     {rate:.1f} images/s here in one process (reading included, {timed} images timed)")
    print(f"             {images:,} images take {hours:.2f} h on {actors} such actors")
    if job.settings.price_per_hour is not None:
        print(f"             and cost {hours * actors * job.settings.price_per_hour:.2f} at the given price per hour")


def _batches(chunks: list[Chunk], work: Work) -> Iterator[ReadyBatch]:
    for chunk in chunks:
        content = open_chunk(chunk, work.read_plan)
        yield from ready_batches(chunk.name, content, work.spec.preparer, work.bounds, nullcontext)
