"""Settings -> few large score files: the flow of the compaction job."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Sized

from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.errors import DONE, CallerError, RunError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.compaction import Merged, Step, carry_out, steps
from iqa_core.tables.heartbeats import COMPACTION, GROUNDING, SCORING, Pulse, active
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.packs import ScoreFiles
from iqa_core.tables.regions.ledger import GroundingLedger
from iqa_core.tables.scores.score_table import ledger_of
from jobs.compaction.settings import CompactSettings
from jobs.progress import LINE_EVERY_S, counted


def compact(settings: CompactSettings) -> int:
    """Run the job; the exit code. Raises CallerError before anything is written, RunError later."""
    storage, output = Storage(settings.storage_options), absolute(settings.scores)
    plan = Plan(storage, output)
    try:
        contract = plan.contract()
        if contract is None:
            raise CallerError(f"--scores {output}: no score table is there; give the --output of jobs/score_corpus.py")
        _require_rest(storage, output)
        ledgers = _ledgers(storage, output, contract)
        files = {ledger.folder: ledger.files() for ledger in ledgers}
        per_file = max(1, settings.file_images // contract.chunk_images)
        todo = [step for own in files.values() for step in steps((c.name for c in plan.chunks()), own, per_file)]
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(str(error)) from error
    print(_opening(output, files, todo), flush=True)
    retired = plan.retired()
    if settings.dry_run or not (todo or any(own.superfluous or retired & own.finished for own in files.values())):
        return DONE
    storage.require_writable(output, "--scores", is_folder=True)
    try:
        with Pulse(storage, output, COMPACTION) as pulse:
            shown_at = time.monotonic()
            for done, merged in enumerate(_merged(ledgers, plan, per_file), start=1):
                pulse.log("merged", file=merged.file, chunks=len(merged.chunks))
                pulse.progress = {"files_total": max(len(todo), done), "files_done": done}
                if time.monotonic() - shown_at >= LINE_EVERY_S:
                    shown_at = time.monotonic()
                    print(f"{done:,} of {counted(len(todo), 'file')}", flush=True)
    except (Missing, Forbidden, FetchFailed) as error:
        raise RunError(f"{error}; what is merged stays, and the same command goes on") from error
    for ledger in ledgers:
        print(f"now        {_described(ledger.files(), _of(ledger.folder, ledgers))}", flush=True)
    return DONE


def _ledgers(storage: Storage, output: str, contract: Contract) -> Sequence[Ledger]:
    """The tables of an output, the one that says what is finished last."""
    parts = GroundingLedger.of(storage, output, contract).both if contract.grounding else ()
    return [*parts, *([ledger_of(storage, output, contract)] if contract.has_scores else ())]


def _merged(ledgers: Sequence[Ledger], plan: Plan, per_file: int) -> Iterator[Merged]:
    for ledger in ledgers:
        yield from carry_out(ledger, plan, per_file)


def _require_rest(storage: Storage, output: str) -> None:
    """Raises CallerError where a scoring run is at work: its last chunks would be left for another compaction.

    This is no lock: beside a run without a heartbeat, or another compaction, no row is lost.
    """
    other = active(storage, output, SCORING) or active(storage, output, GROUNDING)
    if other is not None:
        raise CallerError(
            f"--scores {output}: {other.job} is at work there, on {other.host} since {other.began} (heartbeat "
            f"{other.age_s():.0f} s old); run this when it has ended"
        )


def _opening(output: str, files: Mapping[str, ScoreFiles], todo: Sequence[Step]) -> str:
    chunks = sum(len(step.chunks) for step in todo)
    return "\n".join(
        [
            f"scores     {output}",
            *(f"files      {_described(own, _of(folder, files))}" for folder, own in files.items()),
            f"to merge   {counted(chunks, 'chunk')} into {counted(len(todo), 'file')}",
        ]
    )


def _described(files: ScoreFiles, of: str) -> str:
    return f"{counted(len(files.finished), 'chunk')} in {counted(len(files.files), 'file')}{of}"


def _of(folder: str, tables: Sized) -> str:
    """The folder, for people, where there are several."""
    return f" of {folder}/" if len(tables) > 1 else ""
