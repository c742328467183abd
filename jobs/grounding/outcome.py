"""A grounding run that is over -> run.json, the result on the screen, the report, and the exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from iqa_core.errors import DONE, FAILED
from iqa_core.report.grounding_report import grounding_report
from iqa_core.storage.uris import join
from iqa_core.tables.regions.columns import REGIONS_VERSION, Status
from iqa_core.tables.regions.nesting import GROUNDING, REGIONS
from iqa_core.tables.regions.summary import GroundingSummary
from iqa_core.tables.scores.run_record import RUN_RECORD
from jobs.assessing.outcome import RunOutcome, ending, record_of_job, record_of_run
from jobs.reporting import written

if TYPE_CHECKING:
    from jobs.grounding.job import GroundingJob


def publish(job: GroundingJob, outcome: RunOutcome[GroundingSummary]) -> int:
    """Write run.json, print the result, write the report; the exit code."""
    job.storage.put(join(job.output, RUN_RECORD), json.dumps(record(job, outcome), indent=2).encode())
    print(closing(job, outcome), flush=True)
    if job.settings.report:
        written("grounding", job.storage, job.output, lambda: grounding_report(job.storage, job.output))
    return FAILED if outcome.failures else DONE


def closing(job: GroundingJob, outcome: RunOutcome[GroundingSummary]) -> str:
    """The result for people: counts by status and reason, and where things lie."""
    table = outcome.table
    width = max([14, *(len(name) + 1 for name in job.dimensions)])
    statuses = [status for status in Status if any(counts[status] for counts in table.statuses.values())]
    lines = [
        "",
        f"images     {table.images:>10,}",
        f"grounded   {table.images - table.rejected:>10,}",
        f"rejected   {table.rejected:>10,}",
        *(f"  {reason:<18} {count:>5,}" for reason, count in table.reasons.items()),
        "",
        f"{'':<{width}}{''.join(f'{status:>11}' for status in statuses)}",
    ]
    lines += [
        f"{name:<{width}}{''.join(f'{counts[status]:>11,}' for status in statuses)}"
        for name, counts in table.statuses.items()
    ]
    if job.num_boxes is not None:
        lines += [
            "",
            f"boxes      {table.boxes:>10,}",
            f"  no scores          {table.boxes_failed:>5,}",
            f"  of no image        {job.num_boxes - table.boxes:>5,}",
        ]
    return "\n".join([*lines, "", *ending(job, outcome, [GROUNDING, REGIONS])])


def record(job: GroundingJob, outcome: RunOutcome[GroundingSummary]) -> dict[str, Any]:
    """What run.json says, as JSON values."""
    given = {} if job.num_boxes is None else {"boxes_given": job.num_boxes}
    return {
        **record_of_job(job, outcome),
        "table_version": REGIONS_VERSION,
        "dimensions": [*job.dimensions],
        "grid": job.settings.grid,
        **outcome.table.to_json(),
        **given,
        **record_of_run(job, outcome),
    }
