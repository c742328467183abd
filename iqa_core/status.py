"""An output of a job that assesses images -> how far it is, who is at work on it, and whether it is true."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.errors import CallerError, RunError
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import absolute
from iqa_core.tables.audit import Audit
from iqa_core.tables.heartbeats import STALE_S, State, heartbeats
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.packs import ScoreFiles
from iqa_core.tables.regions.audit import audit as audit_grounding
from iqa_core.tables.regions.nesting import GROUNDING
from iqa_core.tables.scores.audit import audit as audit_scores
from iqa_core.tables.scores.columns import SCORED
from iqa_core.tables.scores.run_record import run_record

FAULTS_SHOWN = 20


def status(given: str, storage: Storage, verify: bool, as_json: bool) -> int:
    """Print what is known of an output; the exit code: 1 where it was verified and is not true, else 0.

    Raises CallerError where nothing was planned, or it cannot be read.
    """
    plan = Plan(storage, absolute(given))
    try:
        contract = _contract(plan)
        found = standing(plan, contract)
        checked = _audit(plan, contract) if verify else None
    except (RunError, Missing, Forbidden, FetchFailed) as error:
        raise CallerError(str(error)) from error
    if checked is not None:
        found["verified"] = _verified(checked)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(found)))
    return 0 if checked is None or checked.is_true else 1


def _audit(plan: Plan, contract: Contract) -> Audit:
    return audit_grounding(plan, contract) if contract.grounding else audit_scores(plan, contract)


def _contract(plan: Plan) -> Contract:
    """What the output was begun with. Raises CallerError where nothing was planned."""
    if (contract := plan.contract()) is None:
        raise CallerError(
            f"{plan.output}: nothing was planned there; give the --output of jobs/score_corpus.py or ground_corpus.py"
        )
    return contract


def standing(plan: Plan, contract: Contract) -> dict[str, Any]:
    """What the plan, a listing, heartbeats and run.json say; no score file is read."""
    storage, output = plan.storage, plan.output
    ledger = Ledger(storage, output) if contract.has_scores else Ledger(storage, output, GROUNDING)
    files = ScoreFiles.of(storage.names(ledger.folder_uri))  # which of two counts is asked by --verify
    chunks, images = {"planned": 0, "done": 0, "left": 0, "uncounted": 0}, {"planned": 0, "done": 0, "left": 0}
    for chunk in plan.chunks():
        place = "done" if chunk.name in files else "left"
        for name in ("planned", place):
            chunks[name] += 1
            images[name] += chunk.images or 0
        chunks["uncounted"] += chunk.images is None
    runs = [
        {**asdict(beat), "is_active": beat.is_active, "age_s": beat.age_s()} for beat in heartbeats(storage, output)
    ]
    return {
        "output": output,
        "fingerprint": contract.fingerprint,
        **({"slots": contract.slots.describe()} if contract.slots.columns else {}),
        "is_active": any(run["is_active"] for run in runs),
        "chunks": chunks,
        "images": images,
        "files": {"single": len(files.files) - len(files.packs), "packs": len(files.packs)},
        "rejected_by_reason": _rejected(storage, output, runs),
        "warnings": _warnings(storage, output, runs),
        "runs": runs,
    }


def _rejected(storage: Storage, output: str, runs: list[dict[str, Any]]) -> Mapping[str, int] | None:
    """Rejections of the whole table as the latest scoring run counted them; None where no run has counted yet."""
    for run in runs:
        table = run["progress"].get("table")
        found = table.get("rejected_by_reason") if isinstance(table, dict) else None
        if isinstance(found, dict):
            return found
    return run_record(storage, output).get("rejected_by_reason")


def _warnings(storage: Storage, output: str, runs: list[dict[str, Any]]) -> list[str] | None:
    """What the check of the checkpoint found, as the latest scoring run knows it; None where it was never made."""
    for run in runs:
        found = run["progress"].get("warnings", "")
        if found is None or isinstance(found, list):
            return found
    return run_record(storage, output).get("warnings")


def _verified(checked: Audit) -> dict[str, Any]:
    return {
        "is_true": checked.is_true,
        "images": checked.images,
        "rejected_by_reason": {reason: count for reason, count in checked.counts.most_common() if reason != SCORED},
        "faults": [asdict(fault) for fault in checked.faults],
    }


def _lines(found: Mapping[str, Any]) -> list[str]:
    chunks, files = found["chunks"], found["files"]
    share = chunks["done"] / chunks["planned"] if chunks["planned"] else 1.0
    uncounted = (
        f", and those of {_counted(chunks['uncounted'], 'chunk')} not counted yet" if chunks["uncounted"] else ""
    )
    lines = [
        f"output     {found['output']}",
        f"scored by  fingerprint {found['fingerprint']}",
        *([f"slots      {found['slots']}"] if "slots" in found else []),
        f"planned    {_amount(found, 'planned')}{uncounted}",
        f"done       {_amount(found, 'done')} ({share:.1%})",
        f"left       {_amount(found, 'left')}",
        f"files      {files['single'] + files['packs']:,}, {files['packs']:,} of them packs of several chunks",
    ]
    if found["rejected_by_reason"] is not None:
        lines.append(f"rejected   {_reasons(found['rejected_by_reason'])}")
    lines += [f"warning    {warning}" for warning in found["warnings"] or ()]
    lines += _run_lines(found["runs"]) or ["run        none has left a heartbeat"]
    return lines + (_verified_lines(found["verified"]) if "verified" in found else [])


def _amount(found: Mapping[str, Any], place: str) -> str:
    return f"{_counted(found['images'][place], 'image')} in {_counted(found['chunks'][place], 'chunk')}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_number(count)} {reason}" for reason, count in counts.items()) or "none"


def _number(count: Any) -> str:
    """A count in digits; what stands in a file need not be a number."""
    return f"{count:,}" if isinstance(count, int) else str(count)


def _run_lines(runs: list[dict[str, Any]]) -> list[str]:
    """A line for each run that is at work; else one for the latest."""
    active = [run for run in runs if run["is_active"]]
    return [f"run        {_told(run)}" for run in active or runs[:1]]


def _told(run: Mapping[str, Any]) -> str:
    """One run in a line."""
    is_open = run["state"] == State.RUNNING
    state = run["state"] if not is_open else "at work" if run["is_active"] else "silent, taken to be dead"
    told = f"heartbeat {run['age_s']:.0f} s old"
    if run["age_s"] <= -STALE_S:
        told = f"its clock {-run['age_s']:.0f} s ahead of this one's"
        state = "at work or dead, which cannot be told" if is_open else state
    parts = [f"{run['run']} of {run['job']} on {run['host']}: {state}, {told}"]
    if "images_this_run" in run["progress"]:
        try:
            parts += _figures(run["progress"], run["is_active"])
        except (LookupError, TypeError, ValueError):
            parts.append("figures that cannot be read")
    return ", ".join(parts)


def _figures(progress: Mapping[str, Any], is_active: bool) -> Iterator[str]:
    """Progress in words. Raises LookupError, TypeError or ValueError on figures that no run has written."""
    yield f"{progress['images_this_run']:,} images at {progress['images_per_second']:.1f}/s"
    yield f"{progress['chunks_open']:,} chunks open"
    yield f"{progress['chunks_failed']:,} failed"
    if is_active:  # a run that has ended has no time left to tell
        eta = progress["eta_seconds"]
        yield "ETA unknown" if eta is None else f"ETA {eta:,.0f} s"


def _verified_lines(verified: Mapping[str, Any]) -> list[str]:
    faults = verified["faults"]
    lines = [f"verified   {verified['images']:,} rows; rejected: {_reasons(verified['rejected_by_reason'])}"]
    if verified["is_true"]:
        return [*lines, "           every planned image is there exactly once"]
    lines.append(f"           {_counted(len(faults), 'fault')}")
    lines += [f"  {fault['chunk']}: {fault['what']}" for fault in faults[:FAULTS_SHOWN]]
    return lines + (
        [f"  and {len(faults) - FAULTS_SHOWN:,} more; --json has all"] if len(faults) > FAULTS_SHOWN else []
    )
