"""Settings of a job that assesses images -> what it would put into the output, by the worker's loop in this process."""

from __future__ import annotations

from collections.abc import Iterator

from iqa_core.assessor.load import load
from iqa_core.assessor.protocol import Assessor
from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.tables.heartbeats import Pulse
from jobs.assessing.job import AssessingJob
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.run import AssessingRun
from jobs.assessing.stock import take_stock
from jobs.assessing.work import ChunkTask, Work, assessed_batch, read_chunk
from jobs.command import parse
from jobs.grounding.job import checked as checked_grounding
from jobs.grounding.settings import GroundSettings
from jobs.on_ray.transport import ChunkFailure
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings


def begun(job: AssessingJob, contract: Contract, proposal: Proposal, pulse: Pulse) -> AssessingRun:
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
    yield from _by_hand(checked(settings))


def ground_by_hand(*flags: object) -> int:
    """The exit code of the grounding job, likewise."""
    return sum(grounding_by_hand(parse(GroundSettings, [*map(str, flags)])))


def grounding_by_hand(settings: GroundSettings) -> Iterator[int]:
    """The same, a chunk at a time."""
    yield from _by_hand(checked_grounding(settings))


def _by_hand(job: AssessingJob) -> Iterator[int]:
    proposal = proposed(job)
    yield 0
    contract = applied(job, proposal)
    work = job.work(contract, 1)
    assessor = load(work.spec, work.config)
    with Pulse(job.storage, job.output, job.name) as pulse:
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
            run.take(assessed_batch(batch, work.asking.results(assessor, batch), work, "{}"))
