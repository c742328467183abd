"""A run that is over -> what every such job says of it in run.json and on the screen."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.errors import DONE, FAILED
from iqa_core.storage.uris import join
from iqa_core.tables.scores.run_record import RUN_RECORD
from jobs.command import ROOT
from jobs.progress import Progress, counted
from jobs.reporting import written

if TYPE_CHECKING:
    from jobs.assessing.job import AssessingJob, TableSummary

FAILURES_SHOWN = 10

S = TypeVar("S", bound="TableSummary")


@dataclass(frozen=True, slots=True)
class RunOutcome(Generic[S]):
    """What one run came to: each of its chunks is committed, or has failed for a known reason."""

    proposal: Proposal
    table: S
    """All that the output holds, whichever run made it."""
    mine: S
    """What this run made."""
    failures: Mapping[str, str]
    """Chunk that stays unfinished -> why."""
    replayed: int
    """Chunks of which some images were tried one by one."""
    progress: Progress
    warnings: list[str] | None
    """What the check of the checkpoint found; None where it was never looked at."""


def published(
    job: AssessingJob,
    outcome: RunOutcome[S],
    record: Mapping[str, Any],
    closing: str,
    reports: Mapping[str, Callable[[], bytes]],
) -> int:
    """Write run.json, print the result, write the reports unless they are not wanted; the exit code.

    record: of run.json; closing: for people; reports: name of a file -> what makes it.
    """
    job.storage.put(join(job.output, RUN_RECORD), json.dumps(record, indent=2).encode())
    print(closing, flush=True)
    for name, make in reports.items() if job.settings.report else ():
        written(job.doing, job.storage, job.output, make, name=name)
    return FAILED if outcome.failures else DONE


def ending(job: AssessingJob, outcome: RunOutcome[S], folders: Sequence[str]) -> Iterator[str]:
    """The last lines of a result for people: this run, where things lie, and what is unfinished."""
    progress = outcome.progress
    yield f"this run   {outcome.mine.images:,} images in {progress.seconds:.1f} s, {progress.rate:.1f} images/s"
    for folder in folders:
        yield f"{folder:<10} {join(job.output, folder)}"
    yield f"run.json   {join(job.output, RUN_RECORD)}"
    yield from (f"damaged    {damage}" for damage in sorted(outcome.table.damage))
    if outcome.failures:
        yield f"unfinished {counted(len(outcome.failures), 'chunk')}, which the same command tries again:"
        for name, message in sorted(outcome.failures.items())[:FAILURES_SHOWN]:
            yield f"  {name}: {message}"


def record_of_job(job: AssessingJob, outcome: RunOutcome[S]) -> dict[str, Any]:
    """The beginning of run.json: what the images were assessed by."""
    return {
        "complete": not outcome.failures,
        "fingerprint": job.wanted.fingerprint,
        "fingerprint_parts": dict(job.wanted.fingerprint_parts),
        "checkpoint": job.spec.checkpoint,
        "rubric": job.spec.rubric.id,
        "meant_for": job.spec.meant_for,
        "warnings": outcome.warnings,
    }


def record_of_run(job: AssessingJob, outcome: RunOutcome[S]) -> dict[str, Any]:
    """The end of run.json: the input, and this run."""
    listing = outcome.proposal.listing
    return {
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
