"""Batches that come back -> committed chunks, counts that add up, and run.json: the state of one run on the driver."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import pyarrow as pa

from iqa_core.corpus.chunks import Chunk
from iqa_core.corpus.plan.plan import Contract
from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.errors import DONE, FAILED, CallerError, RunError
from iqa_core.records import Reason
from iqa_core.report.scoring_report import scoring_report
from iqa_core.storage.uris import join
from iqa_core.tables.heartbeats import Pulse
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.columns import SCORED, TABLE_VERSION, counts_of, retryable_ordinals, schema_of, table_schema
from iqa_core.tables.scores.run_record import RUN_RECORD, run_record
from iqa_core.tables.scores.score_table import open_score_table
from iqa_core.tables.scores.summary import Summary
from iqa_core.tables.sink import OpenChunk, Sink
from jobs.command import ROOT
from jobs.on_ray.transport import ChunkFailure
from jobs.progress import Progress, counted
from jobs.reporting import written
from jobs.scoring.job import ScoringJob
from jobs.scoring.metrics import RunMetrics
from jobs.scoring.stream import Event
from jobs.scoring.work import ScoringTask

COMMITS_WAITING = 16
"""Complete chunks that wait to be written; beyond, the stream waits."""

OUTAGE_SHARE = 0.2
"""Share of a chunk that may be forbidden or not fetched; more is an outage, and the chunk is not committed."""

TELL_EVERY_S = 1.0
"""Heartbeat and metrics are brought up to date as often: a driver hands out 78 batches a second."""

STARTING, SCORING, CONCLUDING = "starting", "scoring", "concluding"

REJECT_RATE_AFTER = 1000
"""Images of the table after which --max-reject-rate is looked at."""

FAILURES_SHOWN = 10


def considered_chunks(job: ScoringJob) -> Iterator[Chunk]:
    """Chunks of the plan that a run is about: all, or the first that hold --limit images."""
    return within_limit(job.plan.chunks(), job.settings.limit)


def within_limit(chunks: Iterable[Chunk], limit: int | None) -> Iterator[Chunk]:
    """Whole chunks up to at least `limit` images; one that nobody has counted is taken to hold a single image."""
    images = 0
    for chunk in chunks:
        if limit is not None and images >= limit:
            return
        images += 1 if chunk.images is None else chunk.images
        yield chunk


class ScoringRun:
    """One run over one output. Everything that is known for sure lies in the ledger; this can be lost at any moment."""

    def __init__(
        self,
        job: ScoringJob,
        contract: Contract,
        proposal: Proposal,
        pool: str,
        pulse: Pulse,
        metrics: RunMetrics | None = None,
        warnings: Sequence[str] | None = None,
    ) -> None:
        """pool: the cluster's share, for people; metrics: None where no Ray is there to export them.

        warnings: what the check of the checkpoint found; None where it was not looked at, and what the run before
        found still holds: one output is scored by one checkpoint.
        """
        self.sink = Sink()
        self._pulse = pulse
        self._metrics = metrics
        self._told_at = self._event_at = time.monotonic()
        self._job = job
        self._warnings = _known_warnings(job) if warnings is None else list(warnings)
        self._schema = table_schema(job.dimensions, job.settings.probs, contract.carried)
        self._ledger = replace(job.ledger, schema=schema_of(contract))
        self._proposal = proposal
        self._failures: dict[str, str] = {}
        self._replayed: set[str] = set()
        self._planned: dict[str, str] = {}
        """Chunk that is being scored -> digest of what was planned."""
        self._generations: dict[str, int] = {}
        """Of chunks that are tried again: that of the rows which will come of it."""
        self._commits: deque[Future[None]] = deque()
        self._writers = ThreadPoolExecutor(COMMITS_WAITING, thread_name_prefix="commit")
        self._mine = Summary(job.dimensions)
        self._table = Summary(job.dimensions)
        self._files = self._ledger.settled(job.plan.retired())
        self._finished = set(self._files.finished)
        self._expected = {chunk.name: chunk.images for chunk in considered_chunks(job)}
        total = sum(images or 0 for images in self._expected.values())
        has_unknown = None in self._expected.values()
        self._done_before = 0
        self._retries = self._take_stock()
        self._done_chunks = len(self._expected.keys() & self._finished)
        self._progress = Progress(None if has_unknown else total, self._done_before)
        pulse.log(
            "run_started",
            config=job.shown_settings(),
            images=total,
            chunks=len(self._expected),
            pool=pool,
            warnings=self._warnings,
        )
        self._tell(STARTING)
        print(self._opening(total, pool), flush=True)

    def tasks(self) -> Iterator[ScoringTask]:
        """What is left to do, chunk by chunk."""
        for chunk in considered_chunks(self._job):
            if chunk.name in self._retries or chunk.name not in self._finished:
                self._planned[chunk.name] = chunk.digest
            if chunk.name in self._retries:
                yield ScoringTask.of(chunk, self._retries[chunk.name])
            elif chunk.name not in self._finished:
                yield ScoringTask.of(chunk)

    def take(self, event: Event | None) -> None:
        """A batch that came back, a chunk that failed, or nothing for a second."""
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self._tell(SCORING)
        if event is None:
            self._progress.tick()
            return
        self._event_at = now
        if isinstance(event, ChunkFailure):
            if event.is_fatal:
                raise RunError(event.message)
            if event.chunk not in self._failures:  # several of its batches may say so
                self._progress.give_up(self._expected.get(event.chunk) or 0)
            self._fail(event.chunk, event.message)
        elif event.chunk not in self._finished:  # what is complete may come again from a node that was thought lost
            self._preload(event.chunk)
            self._progress.add(event.rows.num_rows, event.rows.num_rows - counts_of(event.rows).get(SCORED, 0))
            complete = self.sink.add(event)
            if complete is not None:
                self._complete(event.chunk, complete)

    def is_open(self, task: ScoringTask) -> bool:
        """Whether some of it neither came back nor failed for a known reason."""
        is_open = task.name not in self._finished and task.name not in self._failures
        if is_open:
            self._preload(task.name)
            self._replayed.add(task.name)
            self._pulse.log("chunk_replayed", chunk=task.name)
            self._progress.say(f"chunk {task.name}: some of its images did not come back; they are tried one by one")
        return is_open

    def conclude(self) -> int:
        """Reconcile, write run.json, print the result; the exit code."""
        while self._commits:
            self._commits.popleft().result()
        self._progress.close()
        self._tell(CONCLUDING)
        # another driver may have retired chunks (--on-changed rescore) while this one was committing them
        retired = self._job.plan.retired()
        there = self._ledger.settled(retired).finished
        undone = self._expected.keys() - retired - set(self._failures) - (self._finished & there)
        if undone:
            raise RunError(f"{counted(len(undone), 'chunk')} not in the table ({min(undone)}, …); run it again")
        if retired & (self._expected.keys() | self._finished):
            self._count_again(retired, there)
        self._check_reject_rate(at_end=True)
        self._job.storage.put(join(self._job.output, RUN_RECORD), json.dumps(self._run_json(), indent=2).encode())
        print(self._closing(), flush=True)
        if self._job.settings.report:
            written("scoring", self._job.storage, self._job.output, self._report)
        return FAILED if self._failures else DONE

    def _report(self) -> bytes:
        table = open_score_table(self._job.storage, self._job.output)
        return scoring_report(table)

    def close(self) -> None:
        """Let running writes end; what was not yet written is done again by the next run."""
        self._progress.close()
        self._writers.shutdown(wait=True, cancel_futures=True)

    def _take_stock(self) -> dict[str, tuple[int, ...]]:
        """Count what is finished; chunk -> ordinals to be tried again, under --retry-rejected."""
        retries: dict[str, tuple[int, ...]] = {}
        self._finished &= {chunk.name for chunk in self._job.plan.chunks()}
        for name, rows in self._ledger.read_all(sorted(self._finished), self._table.columns(), self._files):
            again = retryable_ordinals(rows) if self._job.settings.retry_rejected else []
            if again and name in self._expected:
                retries[name] = tuple(again)
            else:
                self._count(rows)
            if name in self._expected:
                self._done_before += rows.num_rows - (len(again) if name in retries else 0)
        self._finished -= set(retries)
        if retries:
            self._files = self._ledger.take_apart(retries)
        return retries

    def _count(self, rows: pa.Table) -> None:
        """A committed chunk is part of the table."""
        self._table.add(rows, metadata_of(rows).get("damage"))

    def _count_again(self, retired: frozenset[str], there: frozenset[str]) -> None:
        """The table as it is now, where chunks of it were retired since it was counted."""
        self._failures = {name: message for name, message in self._failures.items() if name not in retired}
        self._table = Summary(self._job.dimensions)
        planned = {chunk.name for chunk in self._job.plan.chunks()}
        for _, rows in self._ledger.read_all(sorted(there & planned), self._table.columns()):
            self._count(rows)

    def _fail(self, name: str, message: str) -> None:
        """A chunk stays as it was; if that is scored but for a few rows that were tried again, the table has it."""
        if name in self._retries and name not in self._failures:
            rows = self._ledger.read(name, self._table.columns(), self._files)
            self._count(rows)
        self._failures[name] = message
        self._pulse.log("chunk_failed", chunk=name, message=message)

    def _preload(self, name: str) -> None:
        """Before the first row of a chunk that is tried again: those that are kept, as if they had come back too."""
        if name not in self._retries or name in self.sink.open:
            return
        rows = self._ledger.read(name, files=self._files)
        known = metadata_of(rows)
        self._generations[name] = 1 + known.get("generation", 0)
        again = set(self._retries[name])
        kept = [ordinal for ordinal in range(rows.num_rows) if ordinal not in again]
        reading = OpenChunk(rows.num_rows, known["layout"], known["damage"], kept, [], set(known["versions"]))
        reading.pieces.append(rows.take(pa.array(kept, pa.int64())).replace_schema_metadata(None))
        self.sink.open[name] = [reading]

    def _complete(self, name: str, chunk: OpenChunk) -> None:
        rows = chunk.rows().select(self._schema.names).cast(self._schema)
        counts = counts_of(rows)
        outage = counts.get(Reason.FORBIDDEN, 0) + counts.get(Reason.FETCH_FAILED, 0)
        if outage > OUTAGE_SHARE * rows.num_rows:
            tried = self._tried(name, rows)
            self._progress.give_up(tried.num_rows, tried.num_rows, tried.num_rows - counts_of(tried).get(SCORED, 0))
            self._fail(
                name,
                f"{outage} of {rows.num_rows} images were forbidden or could not be fetched: taken for an outage "
                f"(the first: {_first_outage(rows)})",
            )
            return
        self._commit(name, rows, chunk)
        self._finished.add(name)
        self._mine.add(self._tried(name, rows), chunk.damage)
        self._table.add(rows, chunk.damage)
        self._done_chunks += 1
        rejected = {reason: count for reason, count in counts.items() if reason != SCORED}
        self._pulse.log("chunk_complete", chunk=name, images=rows.num_rows, rejected=rejected, damage=chunk.damage)
        self._check_reject_rate(at_end=False)

    def _tried(self, name: str, rows: pa.Table) -> pa.Table:
        """Of a complete chunk, the rows that came back in this run."""
        tried = self._retries.get(name)
        return rows if tried is None else rows.take(pa.array(tried, pa.int64()))

    def _commit(self, name: str, rows: pa.Table, chunk: OpenChunk) -> None:
        while len(self._commits) >= COMMITS_WAITING or (self._commits and self._commits[0].done()):
            self._commits.popleft().result()
        job = self._job
        metadata = {
            "chunk": name,
            "planned": self._planned.pop(name, None),
            "layout": chunk.layout,
            "damage": chunk.damage,
            "versions": sorted(chunk.versions),
            "table_version": TABLE_VERSION,
            "fingerprint": job.wanted.fingerprint,
            "fingerprint_parts": dict(job.wanted.fingerprint_parts),
            "rubric": job.spec.rubric.id,
            "fusion": {"source": job.weights.source, "digest": job.weights.digest},
        }
        if name in self._retries:
            again = (name, rows, metadata, self._generations[name], self._files)
            self._commits.append(self._writers.submit(self._ledger.commit_again, *again))
        else:
            self._commits.append(self._writers.submit(self._ledger.commit, name, rows, metadata))

    def _check_reject_rate(self, at_end: bool) -> None:
        images, rejected = self._table.images, self._table.rejected
        bound = self._job.settings.max_reject_rate
        if images and (at_end or images >= REJECT_RATE_AFTER) and rejected / images > bound:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._table.reasons.items())
            raise RunError(
                f"{rejected} of {images} images are rejected ({reasons}), more than --max-reject-rate {bound:g}. What "
                "is scored stays: put the cause right, or raise the bound, and run the same command"
            )

    def _tell(self, phase: str) -> None:
        """Bring heartbeat and metrics up to date."""
        progress = self._progress
        standing = {
            "phase": phase,
            "images_total": progress.total,
            "images_done": progress.done_before + progress.done,
            "images_left": progress.left,
            "images_this_run": progress.done,
            "rejected_this_run": progress.failed,
            "images_per_second": round(progress.rate, 2),
            "eta_seconds": progress.eta_s,
            "quiet_seconds": round(time.monotonic() - self._event_at, 1),
            "chunks_total": len(self._expected),
            "chunks_done": self._done_chunks,
            "chunks_open": len(self.sink.open),
            "chunks_failed": len(self._failures),
            "commits_waiting": len(self._commits),
            "rejected_by_reason": dict(self._mine.reasons),
            "table": {"images": self._table.images, "rejected_by_reason": dict(self._table.reasons)},
            "warnings": self._warnings,
        }
        self._pulse.progress = standing
        if self._metrics is not None:
            self._metrics.update(standing, self._mine.distributions.get("reward"))

    def _opening(self, total: int, pool: str) -> str:
        job, known = self._job, self._table.images
        todo = len(self._expected.keys() - self._finished)
        lines = [
            *(f"{label:<10} {text}" for label, text in job.introduction()),
            f"output     {job.output}",
            f"plan       {counted(total, 'image')} in {counted(len(self._expected), 'chunk')}",
            f"finished   {counted(known, 'image')} in {counted(len(self._finished), 'chunk')}; to do: {todo:,}",
            f"pool       {pool}",
        ]
        found = self._proposal.listing
        if found.tables:
            lines.append(f"metadata   {found.describe_tables()}")
        if found.ignored:
            ignored = ", ".join(f"{count:,} {name}" for name, count in found.ignored.most_common(5))
            lines.append(f"ignored    {counted(found.ignored.total(), 'file')}, no images: {ignored}")
        if self._proposal.left_out:
            lines.append(
                f"left out   columns that this table does not have: {', '.join(sorted(self._proposal.left_out))}"
            )
        lines += [
            f"unfit      {counted(count, 'value')} of {name} cannot be {job.options.carry[name]}, and null in the table"
            for name, count in sorted(self._proposal.unfit.items())
        ]
        return "\n".join(lines)

    def _closing(self) -> str:
        table, job, seconds = self._table, self._job, self._progress.seconds
        width = max([14, *(len(name) + 1 for name in table.statistics())])
        lines = [
            "",
            f"images     {table.images:>10,}",
            f"scored     {table.scored:>10,}",
            f"rejected   {table.rejected:>10,}",
            *(f"  {reason:<18} {count:>5,}" for reason, count in table.reasons.items()),
            "",
            f"{'':<{width}}{'mean':>8}{'q1':>8}{'median':>8}{'q3':>8}",
        ]
        for name, values in table.statistics().items():
            shown = (f"{value:>8.3f}" if value is not None else f"{'-':>8}" for value in values.values())
            lines.append(f"{name:<{width}}{''.join(shown)}")
        lines += [
            "",
            f"this run   {self._mine.images:,} images in {seconds:.1f} s, {self._progress.rate:.1f} images/s",
            f"scores     {join(job.output, 'scores')}",
            f"run.json   {join(job.output, RUN_RECORD)}",
        ]
        lines += [f"damaged    {damage}" for damage in sorted(self._table.damage)]
        if self._failures:
            lines.append(f"unfinished {counted(len(self._failures), 'chunk')}, which the same command tries again:")
            shown_failures = sorted(self._failures.items())[:FAILURES_SHOWN]
            lines += [f"  {name}: {message}" for name, message in shown_failures]
        return "\n".join(lines)

    def _run_json(self) -> dict[str, Any]:
        job = self._job
        return {
            "complete": not self._failures,
            "fingerprint": job.wanted.fingerprint,
            "fingerprint_parts": dict(job.wanted.fingerprint_parts),
            "table_version": TABLE_VERSION,
            "checkpoint": job.spec.checkpoint,
            "rubric": job.spec.rubric.id,
            "meant_for": job.spec.meant_for,
            "warnings": self._warnings,
            "fusion": {
                "source": job.weights.source,
                "digest": job.weights.digest,
                "weights": dict(zip(job.weights.dimensions, job.weights.weights, strict=True)),
            },
            **self._table.to_json(),
            "unfinished": dict(sorted(self._failures.items())),
            "ignored_files": dict(self._proposal.listing.ignored.most_common()),
            "metadata": {
                "tables": self._proposal.listing.tables,
                "rows_without_file": self._proposal.listing.rows_without_file,
            },
            "this_run": {
                **self._mine.to_json(),
                "unfit_values": dict(sorted(self._proposal.unfit.items())),
                "replayed_chunks": len(self._replayed),
                "seconds": self._progress.seconds,
                "images_per_second": self._progress.rate,
                "progress": self._progress.moments(),
            },
            "config": job.shown_settings(),
            "versions": _versions(),
            "git_commit": _git_commit(),
        }


def _known_warnings(job: ScoringJob) -> list[str] | None:
    """Of the run before; None where there was none, or its record is damaged: this run writes it anew."""
    try:
        found: list[str] | None = run_record(job.storage, job.output).get("warnings")
    except CallerError:
        return None
    return found


def _first_outage(rows: pa.Table) -> str:
    """Key, reason and detail of the first row that was forbidden or not fetched."""
    reasons = rows.column("reason").to_pylist()
    first = next(i for i, reason in enumerate(reasons) if reason in (Reason.FORBIDDEN, Reason.FETCH_FAILED))
    return f"{rows.column('key')[first]}: {reasons[first]}, {rows.column('detail')[first]}"


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
    """Of the checkout that runs; None where it is no checkout (an uploaded working directory)."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
