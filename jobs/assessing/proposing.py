"""A job and its input -> what its plan lacks, and the plan after that was written, whoever else writes there."""

from __future__ import annotations

from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import Proposal, apply, propose
from iqa_core.corpus.plan.segments import Draft
from iqa_core.errors import CallerError, RunError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from jobs.assessing.job import AssessingJob

PLAN_ATTEMPTS = 10
"""Races with other drivers that planning may lose before it gives up."""


def proposed(job: AssessingJob) -> Proposal:
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


def applied(job: AssessingJob, proposal: Proposal) -> Contract:
    """Write the proposal; where another driver wrote in between, propose again. The contract that holds then.

    Raises CallerError where nothing can be written, RunError where some of it is, or the race is always lost.
    """
    for _ in range(PLAN_ATTEMPTS):
        try:
            job.provide()
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


def _has_grown(job: AssessingJob, proposal: Proposal) -> bool:
    """Whether some of a proposal is written already, as far as can be told."""
    try:
        is_begun = proposal.next_segment == 0 and job.plan.contract() is not None
        return is_begun or job.plan.next_segment() > proposal.next_segment
    except (RunError, Missing, Forbidden, FetchFailed):
        return True
