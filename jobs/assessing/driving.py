"""A checked job -> an exit code: plan made or extended, finished chunks struck out, the rest streamed and committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager

from iqa_core.assessor.batching import quiet_limit_s
from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.errors import DONE, CallerError, RunError, told
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.tables.heartbeats import Pulse
from jobs.assessing.isolation import Isolation
from jobs.assessing.job import AssessingJob, considered_chunks
from jobs.assessing.metrics import RunMetrics
from jobs.assessing.precheck import precheck
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.run import AssessingRun
from jobs.assessing.stock import take_stock
from jobs.assessing.stream import stream, waves
from jobs.assessing.work import ChunkTask
from jobs.on_ray.cluster import connected, living_nodes, made_room, plan_pool
from jobs.on_ray.guard import guarded


def drive(checked: Callable[[], AssessingJob]) -> int:
    """Run a job; the exit code. checked: makes it. Raises CallerError before anything is written, RunError later."""
    try:
        job = checked()
        proposal = proposed(job)
    except (RunError, Missing, Forbidden, FetchFailed, OSError) as error:
        raise CallerError(told(error)) from error
    settings = job.settings
    if settings.dry_run:
        from jobs.assessing.dry_run import print_dry_run

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
        pulse = session.enter_context(Pulse(job.storage, job.output, job.name))
        session.enter_context(_ray_resumable())
        stock = take_stock(job, contract)
        run = session.enter_context(closing(AssessingRun(job, proposal, stock, pulse, RunMetrics(pulse.run), warnings)))
        run.begin(pool.describe())
        work = job.work(contract, pool.threads_per_actor)
        isolation = session.enter_context(closing(Isolation(work, pool)))
        quiet_s = quiet_limit_s(work.config, work.spec.rubric, settings.stall_timeout_s, work.asking.passes)
        for wave in waves(run.tasks(), settings.wave_chunks):
            for event in guarded(stream(wave, work, pool), quiet_s):
                run.take(event)
            _replay(wave, run, isolation, quiet_s)
            isolation.close()  # it would hold what the next wave's actors need
        return run.conclude()


def _concluded_again(job: AssessingJob, proposal: Proposal) -> int:
    """Write the outcome of a finished output anew, without Ray; the exit code."""
    contract = applied(job, proposal)
    with _resumable(), Pulse(job.storage, job.output, job.name) as pulse:
        run = AssessingRun(job, proposal, take_stock(job, contract), pulse)
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


def _replay(wave: Iterable[ChunkTask], run: AssessingRun, isolation: Isolation, quiet_s: float) -> None:
    """Try what did not come back of these chunks again, image by image."""
    for task in wave:
        if run.is_open(task):
            for event in guarded(isolation.replay(task.encoded, run.sink), quiet_s):
                run.take(event)


def _is_work_left(job: AssessingJob) -> bool:
    """Whether Ray is needed at all."""
    finished = job.ledger.finished()
    return job.settings.retry_rejected or any(chunk.name not in finished for chunk in considered_chunks(job))
