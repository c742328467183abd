"""A run that is over -> run.json, the result on the screen, the report, and the exit code."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.errors import DONE, FAILED, NAMES_SHOWN
from iqa_core.questions import scales_json
from iqa_core.report.scoring_report import scoring_report
from iqa_core.storage.uris import join
from iqa_core.tables.scores.columns import TABLE_VERSION
from iqa_core.tables.scores.run_record import RUN_RECORD
from iqa_core.tables.scores.score_table import open_score_table
from iqa_core.tables.scores.summary import Summary
from jobs.command import ROOT
from jobs.progress import Progress, counted
from jobs.reporting import written
from jobs.scoring.job import ScoringJob

FAILURES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What one run came to: each of its chunks is committed, or has failed for a known reason."""

    job: ScoringJob
    proposal: Proposal
    table: Summary
    """All that the output holds, whichever run scored it."""
    mine: Summary
    """What this run scored."""
    failures: Mapping[str, str]
    """Chunk that stays unfinished -> why."""
    replayed: int
    """Chunks of which some images were tried one by one."""
    progress: Progress
    warnings: list[str] | None
    """What the check of the checkpoint found; None where it was never looked at."""


def publish(outcome: RunOutcome) -> int:
    """Write run.json, print the result, write the report; the exit code."""
    job = outcome.job
    job.storage.put(join(job.output, RUN_RECORD), json.dumps(record(outcome), indent=2).encode())
    print(closing(outcome), flush=True)
    if job.settings.report:
        written("scoring", job.storage, job.output, lambda: scoring_report(open_score_table(job.storage, job.output)))
    return FAILED if outcome.failures else DONE


def closing(outcome: RunOutcome) -> str:
    """The result for people: counts, quartiles, where things lie, and what is unfinished."""
    table, job, progress = outcome.table, outcome.job, outcome.progress
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
    lines += [
        "",
        f"this run   {outcome.mine.images:,} images in {progress.seconds:.1f} s, {progress.rate:.1f} images/s",
        f"scores     {join(job.output, 'scores')}",
        f"run.json   {join(job.output, RUN_RECORD)}",
    ]
    lines += [f"damaged    {damage}" for damage in sorted(table.damage)]
    if outcome.failures:
        lines.append(f"unfinished {counted(len(outcome.failures), 'chunk')}, which the same command tries again:")
        shown_failures = sorted(outcome.failures.items())[:FAILURES_SHOWN]
        lines += [f"  {name}: {message}" for name, message in shown_failures]
    return "\n".join(lines)


def record(outcome: RunOutcome) -> dict[str, Any]:
    """What run.json says, as JSON values; docs/score-table.md describes it."""
    job, listing = outcome.job, outcome.proposal.listing
    return {
        "complete": not outcome.failures,
        "fingerprint": job.wanted.fingerprint,
        "fingerprint_parts": dict(job.wanted.fingerprint_parts),
        "table_version": TABLE_VERSION,
        "checkpoint": job.spec.checkpoint,
        "rubric": job.spec.rubric.id,
        "meant_for": job.spec.meant_for,
        **({"scales": scales_json(job.wanted.scales)} if job.wanted.scales else {}),
        **({"slots": job.wanted.slots.to_json()} if job.wanted.slots.columns else {}),
        **({"generation_config": dict(job.spec.generation_config or {})} if job.wanted.written else {}),
        "warnings": outcome.warnings,
        "fusion": {
            "source": job.weights.source,
            "digest": job.weights.digest,
            "weights": dict(zip(job.weights.dimensions, job.weights.weights, strict=True)),
        },
        **outcome.table.to_json(),
        "unfinished": dict(sorted(outcome.failures.items())),
        "ignored_files": dict(listing.ignored.most_common()),
        "metadata": {
            "tables": listing.tables,
            "rows_without_file": listing.rows_without_file,
        },
        "this_run": {
            **outcome.mine.to_json(),
            "unfit_values": dict(sorted(outcome.proposal.unfit.items())),
            "replayed_chunks": outcome.replayed,
            "seconds": outcome.progress.seconds,
            "images_per_second": outcome.progress.rate,
            "progress": outcome.progress.moments(),
        },
        "config": job.shown_settings(),
        "versions": _versions(),
        "git_commit": _git_commit(),
    }


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("iqa-ray", "ray", "pyarrow", "pillow", "numpy", "torch", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def _git_commit() -> str | None:
    """Commit of the checkout that runs; None where it is no checkout (an uploaded working directory)."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
