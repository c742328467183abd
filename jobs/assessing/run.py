"""Batches that come back -> committed chunks and counts that add up: the state of one run on the driver."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum

import pyarrow as pa

from iqa_core.corpus.chunks import Origin
from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.errors import RunError
from iqa_core.records import Reason
from iqa_core.tables.heartbeats import Pulse
from iqa_core.tables.score_file import metadata_of
from iqa_core.tables.scores.columns import SCORED, counts_of
from iqa_core.tables.sink import OpenChunk, Sink
from jobs.assessing.job import AssessingJob, considered_chunks
from jobs.assessing.metrics import RunMetrics
from jobs.assessing.outcome import RunOutcome
from jobs.assessing.stock import Stock, add_committed, opening
from jobs.assessing.stream import Event
from jobs.assessing.work import ChunkTask
from jobs.on_ray.transport import ChunkFailure
from jobs.progress import Progress, counted

COMMITS_WAITING = 16
"""Complete chunks that wait to be written; beyond, the stream waits."""

OUTAGE_SHARE = 0.2
"""Share of a chunk that may be forbidden or not fetched; beyond, it is an outage and the chunk is not committed."""

TELL_EVERY_S = 1.0
"""Seconds between two updates of heartbeat and metrics: a driver hands out 78 batches a second."""

REJECT_RATE_AFTER = 1000
"""Images of the table after which --max-reject-rate is looked at."""


class Phase(StrEnum):
    """Where a run is, as its heartbeat says it; between these two it says what the job does."""

    STARTING = "starting"
    CONCLUDING = "concluding"


class AssessingRun:
    """One run over one output. The ledger holds everything that counts; this state can be lost at any moment."""

    def __init__(
        self,
        job: AssessingJob,
        proposal: Proposal,
        stock: Stock,
        pulse: Pulse,
        metrics: RunMetrics | None = None,
        warnings: Sequence[str] | None = None,
    ) -> None:
        """metrics: None where no Ray is there to export them.

        warnings: what the check of the checkpoint found; None where it was not looked at, and what the run before
        found still holds: one output is scored by one checkpoint.
        """
        self.sink = Sink()
        self._job, self._proposal, self._stock = job, proposal, stock
        self._pulse, self._metrics = pulse, metrics
        self._warnings = stock.warnings if warnings is None else list(warnings)
        self._told_at = self._event_at = time.monotonic()
        self._failures: dict[str, str] = {}
        self._replayed: set[str] = set()
        self._planned: dict[str, str] = {}
        """Chunk that is being scored -> digest of what was planned."""
        self._generations: dict[str, int] = {}
        """Chunk that is tried again -> generation of the rows that will come of it."""
        self._kept_answers: dict[str, Mapping[str, int]] = {}
        """Chunk that is tried again -> how the written answers were parsed that it keeps."""
        self._commits: deque[Future[None]] = deque()
        self._writers = ThreadPoolExecutor(COMMITS_WAITING, thread_name_prefix="commit")
        self._mine, self._table = job.summary(job.wanted), stock.table
        self._finished = set(stock.finished)
        self._done_chunks = len(stock.expected.keys() & stock.finished)
        self._progress = Progress(stock.images_expected if stock.is_counted else None, stock.images_done)

    def begin(self, pool: str) -> None:
        """Tell people, the log and the heartbeat that the run begins. pool: the cluster's share, for people."""
        self._pulse.log(
            "run_started",
            config=self._job.shown_settings(),
            images=self._stock.images_expected,
            chunks=len(self._stock.expected),
            pool=pool,
            warnings=self._warnings,
        )
        self._tell(Phase.STARTING)
        print(opening(self._job, self._proposal, self._stock, pool), flush=True)

    def tasks(self) -> Iterator[ChunkTask]:
        """A task for each chunk that is left to do."""
        for chunk in considered_chunks(self._job):
            if chunk.name in self._stock.retries or chunk.name not in self._finished:
                self._planned[chunk.name] = chunk.digest
            if chunk.name in self._stock.retries:
                yield ChunkTask.of(chunk, self._stock.retries[chunk.name])
            elif chunk.name not in self._finished:
                yield ChunkTask.of(chunk)

    def take(self, event: Event | None) -> None:
        """Count a batch that came back, a chunk that failed, or a second in which nothing came.

        Raises RunError for a failure that ends the run, and where too many images are rejected.
        """
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self._tell(self._job.doing)
        if event is None:
            self._progress.tick()
            return
        self._event_at = now
        if isinstance(event, ChunkFailure):
            if event.is_fatal:
                raise RunError(event.message)
            if event.chunk not in self._failures:  # several of its batches may say so
                self._progress.give_up(self._stock.expected.get(event.chunk) or 0)
            self._fail(event.chunk, event.message)
        elif event.origin.chunk not in self._finished:  # a node that was thought lost may send a complete chunk again
            self._preload(event.origin.chunk)
            self._progress.add(event.rows.num_rows, event.rows.num_rows - counts_of(event.rows).get(SCORED, 0))
            complete = self.sink.add(event)
            if complete is not None:
                self._complete(complete)

    def is_open(self, task: ChunkTask) -> bool:
        """Whether some images of the chunk neither came back nor failed for a known reason; it is then replayed."""
        is_open = task.name not in self._finished and task.name not in self._failures
        if is_open:
            self._preload(task.name)
            self._replayed.add(task.name)
            self._pulse.log("chunk_replayed", chunk=task.name)
            self._progress.say(f"chunk {task.name}: some of its images did not come back; they are tried one by one")
        return is_open

    def conclude(self) -> int:
        """Reconcile what came back with what lies there, and publish the outcome; the exit code.

        Raises RunError where a chunk is not in the table, and where too many images are rejected.
        """
        while self._commits:
            self._commits.popleft().result()
        self._progress.close()
        self._tell(Phase.CONCLUDING)
        # another driver may have retired chunks (--on-changed rescore) while this one was committing them
        retired = self._job.plan.retired()
        there = self._stock.ledger.settled(retired).finished
        undone = self._stock.expected.keys() - retired - set(self._failures) - (self._finished & there)
        if undone:
            raise RunError(f"{counted(len(undone), 'chunk')} not in the table ({min(undone)}, …); run it again")
        if retired & (self._stock.expected.keys() | self._finished):
            self._count_again(retired, there)
        self._check_reject_rate(at_end=True)
        return self._job.publish(
            RunOutcome(
                proposal=self._proposal,
                table=self._table,
                mine=self._mine,
                failures=self._failures,
                replayed=len(self._replayed),
                progress=self._progress,
                warnings=self._warnings,
            )
        )

    def close(self) -> None:
        """Let the writes that run end; the next run scores again what was not written."""
        self._progress.close()
        self._writers.shutdown(wait=True, cancel_futures=True)

    def _count_again(self, retired: frozenset[str], there: frozenset[str]) -> None:
        """Count the table as it is now, after chunks of it were retired since it was counted first."""
        self._failures = {name: message for name, message in self._failures.items() if name not in retired}
        self._table = self._job.summary(self._job.wanted)
        planned = {chunk.name for chunk in self._job.plan.chunks()}
        for _, rows in self._stock.ledger.read_all(sorted(there & planned), self._table.columns()):
            add_committed(self._table, rows)

    def _fail(self, name: str, message: str) -> None:
        """Note why a chunk stays as it was; the rows that it had before it was tried again count as they are."""
        if name in self._stock.retries and name not in self._failures:
            rows = self._stock.ledger.read(name, self._table.columns(), self._stock.files)
            add_committed(self._table, rows)
        self._failures[name] = message
        self._pulse.log("chunk_failed", chunk=name, message=message)

    def _preload(self, name: str) -> None:
        """Put the rows that a chunk keeps when it is tried again into the sink, before the first new one comes."""
        if name not in self._stock.retries or name in self.sink.open:
            return
        rows = self._stock.ledger.read(name, files=self._stock.files)
        known = metadata_of(rows)
        self._generations[name] = 1 + known.get("generation", 0)
        self._kept_answers[name] = known.get("written_answers", {})
        again = set(self._stock.retries[name])
        kept = [ordinal for ordinal in range(rows.num_rows) if ordinal not in again]
        origin = Origin(name, rows.num_rows, known["layout"], known["damage"])
        pieces = [rows.take(pa.array(kept, pa.int64())).replace_schema_metadata(None)]
        self.sink.open[name] = [OpenChunk(origin, kept, pieces, set(known["versions"]))]

    def _complete(self, chunk: OpenChunk) -> None:
        name, damage = chunk.origin.chunk, chunk.origin.damage
        rows = chunk.rows().select(self._stock.schema.names).cast(self._stock.schema)
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
        self._commit(rows, chunk)
        self._finished.add(name)
        self._mine.add(self._tried(name, rows), damage, chunk.answers)
        self._table.add(rows, damage, self._answers(chunk))
        self._done_chunks += 1
        rejected = {reason: count for reason, count in counts.items() if reason != SCORED}
        self._pulse.log("chunk_complete", chunk=name, images=rows.num_rows, rejected=rejected, damage=damage)
        self._check_reject_rate(at_end=False)

    def _tried(self, name: str, rows: pa.Table) -> pa.Table:
        """The rows of a complete chunk that came back in this run."""
        tried = self._stock.retries.get(name)
        return rows if tried is None else rows.take(pa.array(tried, pa.int64()))

    def _answers(self, chunk: OpenChunk) -> Counter[str]:
        """How the written answers of a complete chunk were parsed, those of rows that it keeps among them."""
        return chunk.answers + Counter(self._kept_answers.get(chunk.origin.chunk, {}))

    def _commit(self, rows: pa.Table, chunk: OpenChunk) -> None:
        while len(self._commits) >= COMMITS_WAITING or (self._commits and self._commits[0].done()):
            self._commits.popleft().result()
        job, name = self._job, chunk.origin.chunk
        metadata = {
            "chunk": name,
            "planned": self._planned.pop(name, None),
            "layout": chunk.origin.layout,
            "damage": chunk.origin.damage,
            "versions": sorted(chunk.versions),
            "fingerprint": job.wanted.fingerprint,
            "fingerprint_parts": dict(job.wanted.fingerprint_parts),
            "rubric": job.spec.rubric.id,
            **job.about_chunks(),
            **({"written_answers": answers} if (answers := self._answers(chunk)) else {}),
        }
        if name in self._stock.retries:
            again = (name, rows, metadata, self._generations[name], self._stock.files)
            self._commits.append(self._writers.submit(self._stock.ledger.commit_again, *again))
        else:
            self._commits.append(self._writers.submit(self._stock.ledger.commit, name, rows, metadata))

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
            "chunks_total": len(self._stock.expected),
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


def _first_outage(rows: pa.Table) -> str:
    """Key, reason and detail of the first row that was forbidden or not fetched."""
    reasons = rows.column("reason").to_pylist()
    first = next(i for i, reason in enumerate(reasons) if reason in (Reason.FORBIDDEN, Reason.FETCH_FAILED))
    return f"{rows.column('key')[first]}: {reasons[first]}, {rows.column('detail')[first]}"
