"""Settings -> a scored corpus: plan made or extended, finished chunks struck out, the rest streamed and committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager

from iqa_core.assessor.batching import quiet_limit_s
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import Proposal, apply, propose
from iqa_core.corpus.plan.segments import Draft
from iqa_core.errors import DONE, CallerError, RunError, told
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.tables.heartbeats import SCORING, Pulse
from jobs.on_ray.cluster import connected, living_nodes, made_room, plan_pool
from jobs.on_ray.guard import guarded
from jobs.scoring.isolation import Isolation
from jobs.scoring.job import ScoringJob, checked, considered_chunks
from jobs.scoring.metrics import RunMetrics
from jobs.scoring.precheck import precheck
from jobs.scoring.run import ScoringRun
from jobs.scoring.settings import ScoreSettings
from jobs.scoring.stock import take_stock
from jobs.scoring.stream import stream, waves
from jobs.scoring.work import ScoringTask

PLAN_ATTEMPTS = 10
"""Races with other drivers that planning may lose before it gives up."""


def score(settings: ScoreSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is written, RunError later."""
    try:
        job = checked(settings)
        proposal = proposed(job)
    except (RunError, Missing, Forbidden, FetchFailed, OSError) as error:
        raise CallerError(told(error)) from error
    if settings.dry_run:
        from jobs.scoring.dry_run import print_dry_run

        print_dry_run(job, proposal)
        return DONE
    if not proposal.chunks and not proposal.retired and not _is_work_left(job):
        return _concluded_again(job, proposal)
    with _resumable(), connected(settings.ray_address, settings.code_on_nodes), ExitStack() as session:
        pool = plan_pool(
            settings.assessor,
            settings.num_actors,
            settings.max_actors,
            settings.actor_cpus,
            settings.reader_cpus,
            living_nodes(),
        )
        session.enter_context(made_room(pool, settings.wait_for_resources_s))
        warnings = precheck(job.spec, settings.assessor, pool, settings.strict_check) if settings.check else None
        contract = applied(job, proposal)
        pulse = session.enter_context(Pulse(job.storage, job.output, SCORING))
        session.enter_context(_ray_resumable())
        stock = take_stock(job, contract)
        run = session.enter_context(closing(ScoringRun(job, proposal, stock, pulse, RunMetrics(pulse.run), warnings)))
        run.begin(pool.describe())
        work = job.work(contract, pool.threads_per_actor)
        isolation = session.enter_context(closing(Isolation(work, pool)))
        quiet_s = quiet_limit_s(work.config, work.spec.rubric, settings.stall_timeout_s)
        for wave in waves(run.tasks(), settings.wave_chunks):
            for event in guarded(stream(wave, work, pool), quiet_s):
                run.take(event)
            _replay(wave, run, isolation, quiet_s)
            isolation.close()  # it would hold what the next wave's actors need
        return run.conclude()


def _concluded_again(job: ScoringJob, proposal: Proposal) -> int:
    """Write the outcome of a finished output anew, without Ray; the exit code."""
    contract = applied(job, proposal)
    with _resumable(), Pulse(job.storage, job.output, SCORING) as pulse:
        run = ScoringRun(job, proposal, take_stock(job, contract), pulse)
        run.begin("none: nothing is left to do")
        return run.conclude()


@contextmanager
def _resumable() -> Iterator[None]:
    """Inside: what a disk or a store cannot do any more is the run's failure."""
    try:
        yield
    except (Missing, Forbidden, FetchFailed) as error:
        raise RunError(f"{error}; the same command goes on") from error


@contextmanager
def _ray_resumable() -> Iterator[None]:
    """Inside: what Ray raises is the run's failure."""
    from ray.exceptions import RayError  # not before its environment is set

    try:
        yield
    except RayError as error:
        raise RunError(f"Ray ended the run ({type(error).__name__}: {error}); the same command goes on") from error


def _replay(wave: Iterable[ScoringTask], run: ScoringRun, isolation: Isolation, quiet_s: float) -> None:
    """Try what did not come back of these chunks again, image by image."""
    for task in wave:
        if run.is_open(task):
            for event in guarded(isolation.replay(task.encoded, run.sink), quiet_s):
                run.take(event)


def proposed(job: ScoringJob) -> Proposal:
    """What the plan lacks of the input.

    Raises CallerError for --no-scan where there is no plan, and for a slot without a column of text.
    """
    settings = job.settings
    if settings.scan:
        return propose(
            job.plan,
            job.wanted,
            job.inputs,
            job.options,
            own_columns=job.own_columns,
            limit=settings.limit,
            on_changed=settings.on_changed,
            exact=settings.estimate,
            tables=job.tables,
        )
    if (contract := job.plan.contract()) is not None:
        return Proposal(contract, Draft())
    raise CallerError(f"--no-scan: {job.output} has no plan yet; run once without it")


def applied(job: ScoringJob, proposal: Proposal) -> Contract:
    """Write the proposal; where another driver wrote in between, propose again. The contract that holds then.

    Raises CallerError where nothing can be written, RunError where some of it is, or the race is always lost.
    """
    for _ in range(PLAN_ATTEMPTS):
        try:
            if apply(job.plan, proposal):
                contract = job.plan.contract()
                assert contract is not None
                return contract
        except (Missing, Forbidden, FetchFailed) as error:
            if _has_grown(job, proposal):
                raise RunError(f"{error}; the same command goes on") from error
            raise CallerError(f"--output {job.output} cannot be written: {error}") from error
        proposal = proposed(job)
    raise RunError(f"{job.output}: other drivers extended the plan {PLAN_ATTEMPTS} times; run the same command again")


def _has_grown(job: ScoringJob, proposal: Proposal) -> bool:
    """Whether some of a proposal is written already, as far as can be told."""
    try:
        is_begun = proposal.next_segment == 0 and job.plan.contract() is not None
        return is_begun or job.plan.next_segment() > proposal.next_segment
    except (RunError, Missing, Forbidden, FetchFailed):
        return True


def _is_work_left(job: ScoringJob) -> bool:
    """Whether Ray is needed at all."""
    finished = job.ledger.finished()
    return job.settings.retry_rejected or any(chunk.name not in finished for chunk in considered_chunks(job))
