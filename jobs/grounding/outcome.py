"""A grounding run that is over -> run.json, the result on the screen, the report, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqa_core.report.grounding_report import grounding_report
from iqa_core.tables.regions.columns import REGIONS_VERSION
from iqa_core.tables.regions.nesting import GROUNDING, REGIONS
from iqa_core.tables.regions.summary import GroundingSummary
from jobs.assessing.outcome import RunOutcome, ending, published, record_of_job, record_of_run

if TYPE_CHECKING:
    from jobs.grounding.job import GroundingJob


def publish(job: GroundingJob, outcome: RunOutcome[GroundingSummary]) -> int:
    """Write run.json, print the result, write the report; the exit code."""
    reports = {"report.html": lambda: grounding_report(job.storage, job.output)}
    return published(job, outcome, record(job, outcome), closing(job, outcome), reports)


def closing(job: GroundingJob, outcome: RunOutcome[GroundingSummary]) -> str:
    """The result for people: counts by status and reason, and where things lie."""
    table = outcome.table
    lines = [
        "",
        f"images     {table.images:>10,}",
        f"grounded   {table.images - table.rejected:>10,}",
        f"rejected   {table.rejected:>10,}",
        *(f"  {reason:<18} {count:>5,}" for reason, count in table.reasons.items()),
        "",
        *job.parts_asked.lines(table),
    ]
    return "\n".join([*lines, "", *ending(job, outcome, [GROUNDING, REGIONS])])


def record(job: GroundingJob, outcome: RunOutcome[GroundingSummary]) -> dict[str, Any]:
    """What run.json says, as JSON values."""
    return {
        **record_of_job(job, outcome),
        "table_version": REGIONS_VERSION,
        "dimensions": [*job.dimensions],
        **job.parts_asked.record(),
        **outcome.table.to_json(),
        **record_of_run(job, outcome),
    }
