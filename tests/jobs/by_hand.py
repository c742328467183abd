"""Settings of the scoring job -> what it would put into the output, made by the worker's loop in this process."""

from __future__ import annotations

from collections.abc import Iterator

from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import load
from iqa_core.assessor.protocol import Assessor
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.tables.heartbeats import SCORING, Pulse
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.run import AssessingRun
from jobs.assessing.stock import take_stock
from jobs.assessing.work import ChunkTask, Work, read_chunk, scored_batch
from jobs.command import parse
from jobs.on_ray.transport import ChunkFailure
from jobs.scoring.job import ScoringJob, checked
from jobs.scoring.settings import ScoreSettings


def begun(job: ScoringJob, contract: Contract, proposal: Proposal, pulse: Pulse) -> AssessingRun:
    """A run over this output, as the job's flow begins one."""
    run = AssessingRun(job, proposal, take_stock(job, contract), pulse)
    run.begin("this process")
    return run


def score_by_hand(*flags: object) -> int:
    """The exit code. No Ray is asked; whatever the run raises comes out of here."""
    return sum(
        scoring_by_hand(parse(ScoreSettings, [*map(str, flags), "--assessor.checkpoint", "fake:", "--no-report"]))
    )


def scoring_by_hand(settings: ScoreSettings) -> Iterator[int]:
    """The same, a chunk at a time: 0 before each, and at last the exit code. Two of them are two drivers."""
    job = checked(settings)
    proposal = proposed(job)
    yield 0
    contract = applied(job, proposal)
    work = job.work(contract, 1)
    assessor = load(work.spec, work.config)
    with Pulse(job.storage, job.output, SCORING) as pulse:
        run = begun(job, contract, proposal, pulse)
        try:
            for task in run.tasks():
                yield 0
                _carry_out(task, work, assessor, run)
            yield run.conclude()
        finally:
            run.close()


def _carry_out(task: ChunkTask, work: Work, assessor: Assessor, run: AssessingRun) -> None:
    only = None if task.only is None else frozenset(task.only)
    for batch in read_chunk(Chunk.from_bytes(task.encoded), work, only):
        if isinstance(batch, ChunkFailure):
            run.take(batch)
        else:
            run.take(scored_batch(batch, assess_each(assessor, batch.images, batch.texts), work, "{}"))
