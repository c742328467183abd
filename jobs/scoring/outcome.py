"""A run that is over -> run.json, the result on the screen, the report, and the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqa_core.errors import NAMES_SHOWN
from iqa_core.questions import scales_json
from iqa_core.report.grounding_report import grounding_report
from iqa_core.report.scoring_report import GROUNDING_REPORT, scoring_report
from iqa_core.tables.regions.beside_scores import GroundedSummary
from iqa_core.tables.regions.nesting import GROUNDING, REGIONS
from iqa_core.tables.scores.columns import TABLE_VERSION
from iqa_core.tables.scores.score_table import open_score_table
from iqa_core.tables.scores.summary import Summary
from jobs.assessing.outcome import RunOutcome, ending, published, record_of_job, record_of_run

if TYPE_CHECKING:
    from jobs.scoring.job import ScoringJob


def publish(job: ScoringJob, outcome: RunOutcome[Summary | GroundedSummary]) -> int:
    """Write run.json, print the result, write the reports; the exit code."""
    reports = {}
    if job.parts_asked is not None:  # first: the other one names it
        reports[GROUNDING_REPORT] = lambda: grounding_report(job.storage, job.output)
    reports["report.html"] = lambda: scoring_report(open_score_table(job.storage, job.output))
    return published(job, outcome, record(job, outcome), closing(job, outcome), reports)


def closing(job: ScoringJob, outcome: RunOutcome[Summary | GroundedSummary]) -> str:
    """The result for people: counts, quartiles, where things lie, and what is unfinished."""
    found = outcome.table
    table = found.scores if isinstance(found, GroundedSummary) else found
    statistics = table.statistics()
    named = list(statistics)
    width = max([14, *(len(name) + 1 for name in named)])
    lines = [
        "",
        f"images     {table.images:>10,}",
        f"scored     {table.scored:>10,}",
        f"rejected   {table.rejected:>10,}",
        *(f"  {reason:<18} {count:>5,}" for reason, count in table.reasons.items()),
        *([f"texts cut  {table.texts_cut:>10,}"] if table.texts_cut else []),
        *(["answers"] if table.answers else []),
        *(f"  {what:<18} {count:>5,}" for what, count in table.answers.most_common()),
        "",
        f"{'':<{width}}{'mean':>8}{'q1':>8}{'median':>8}{'q3':>8}",
    ]
    for name in named[: NAMES_SHOWN - 1] + named[NAMES_SHOWN - 1 :][-1:]:
        shown = (f" {value:>7.3f}" if value is not None else f"{'-':>8}" for value in statistics[name].values())
        lines.append(f"{name:<{width}}{''.join(shown)}")
    if len(named) > NAMES_SHOWN:
        lines.append(f"and {len(named) - NAMES_SHOWN} further columns, in run.json")
    folders = ["scores"]
    if job.parts_asked is not None and isinstance(found, GroundedSummary):
        lines += ["", *job.parts_asked.lines(found.parts)]
        folders += [GROUNDING, REGIONS]
    lines += ["", *ending(job, outcome, folders)]
    return "\n".join(lines)


def record(job: ScoringJob, outcome: RunOutcome[Summary | GroundedSummary]) -> dict[str, Any]:
    """What run.json says, as JSON values; docs/score-table.md describes it."""
    return {
        **record_of_job(job, outcome),
        "table_version": TABLE_VERSION,
        **({"scales": scales_json(job.wanted.scales)} if job.wanted.scales else {}),
        **({"slots": job.wanted.slots.to_json()} if job.wanted.slots.columns else {}),
        **({"generation_config": dict(job.spec.generation_config or {})} if job.wanted.written else {}),
        "fusion": {
            "source": job.weights.source,
            "digest": job.weights.digest,
            "weights": dict(zip(job.weights.dimensions, job.weights.weights, strict=True)),
        },
        **({} if job.parts_asked is None else job.parts_asked.record()),
        **outcome.table.to_json(),
        **record_of_run(job, outcome),
    }
