"""Settings -> few large score files: the flow of the compaction job."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from iqa_core.corpus.compaction import Step, carry_out, steps, superfluous
from iqa_core.corpus.heartbeats import Pulse, active
from iqa_core.corpus.ledger import Ledger
from iqa_core.corpus.packs import ScoreFiles
from iqa_core.corpus.plan import Plan
from iqa_core.corpus.storage import FetchFailed, Forbidden, Missing, Storage, absolute
from iqa_core.errors import DONE, CallerError, RunError
from jobs.compact_settings import COMPACTION, CompactSettings
from jobs.progress import LINE_EVERY_S, counted
from jobs.scoring_job import JOB as SCORING


def compact(settings: CompactSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is written, RunError later."""
    storage, output = Storage(settings.storage_options), absolute(settings.scores)
    plan, ledger = Plan(storage, output), Ledger(storage, output)

    def names() -> Iterator[str]:
        return (chunk.name for chunk in plan.chunks())

    try:
        contract = plan.contract()
        if contract is None:
            raise CallerError(f"--scores {output}: no score table is there; give the --output of jobs/score_corpus.py")
        ledger = replace(ledger, schema=contract.table_schema)
        _require_rest(storage, output)
        files = ledger.files()
        per_file = max(1, settings.file_images // contract.chunk_images)
        todo = list(steps(names(), files, per_file))
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(str(error)) from error
    print(_opening(output, files, todo), flush=True)
    if settings.dry_run or not (todo or superfluous(files) or plan.retired() & files.finished):
        return DONE
    storage.require_writable(output, "--scores", is_folder=True)
    try:
        with Pulse(storage, output, COMPACTION) as pulse:
            _require_rest(storage, output, pulse.run)  # again, now that others can see this one
            if retired := plan.retired() & ledger.files().finished:
                ledger.remove(retired)
            files = ledger.files()
            todo = list(steps(names(), files, per_file))
            shown_at = time.monotonic()
            for done, step in enumerate(carry_out(ledger, files, todo), start=1):
                pulse.log("merged", file=step.file, chunks=len(step.chunks))
                pulse.progress = {"files_total": len(todo), "files_done": done}
                if not pulse.is_heard:
                    raise RunError(f"{output}: no heartbeat could be written for long; run the same command again")
                if time.monotonic() - shown_at >= LINE_EVERY_S:
                    shown_at = time.monotonic()
                    print(f"{done:,} of {counted(len(todo), 'file')}", flush=True)
    except (Missing, Forbidden, FetchFailed) as error:
        raise RunError(f"{error}; what is merged stays, and the same command goes on") from error
    print(f"now        {_described(ledger.files())}", flush=True)
    return DONE


def _require_rest(storage: Storage, output: str, own: str = "") -> None:
    """Raises CallerError where a run is at work that may replace the files that this one merges."""
    for job in (SCORING, COMPACTION):
        other = active(storage, output, job, own)
        if other is not None:
            raise CallerError(
                f"--scores {output}: {job} is at work there, on {other.host} since {other.began} (heartbeat "
                f"{other.age_s():.0f} s old); run this when it has ended"
            )


def _opening(output: str, files: ScoreFiles, todo: Sequence[Step]) -> str:
    chunks = sum(len(step.chunks) for step in todo)
    return "\n".join(
        [
            f"scores     {output}",
            f"files      {_described(files)}",
            f"to merge   {counted(chunks, 'chunk')} into {counted(len(todo), 'file')}",
        ]
    )


def _described(files: ScoreFiles) -> str:
    total = len(files.singles) + len(files.packs)
    return f"{counted(len(files.finished), 'chunk')} in {counted(total, 'file')}"
