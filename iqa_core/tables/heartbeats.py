"""A run -> `<output>/runs`: a heartbeat every few seconds and a log in JSON lines; and which runs are active there.

    runs/<run>.json              the heartbeat, replaced whole: where, since when, how far, and at last how it ended
    runs/<run>.ended             a mark that it ended: whoever looks for active runs need not read its heartbeat
    runs/<run>.NNNNNN.jsonl      the log, in parts, since an object store cannot append

A thread of its own writes them, so a slow store costs the run nothing, and a failing store costs only these files. They
are for people: no row depends on which runs seem active.
"""

from __future__ import annotations

import json
import platform
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from iqa_core.errors import RunError
from iqa_core.storage.failures import Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import join, scratch_of

SCORING, GROUNDING, COMPACTION = "score_corpus", "ground_corpus", "compact_scores"
"""Jobs by their names in heartbeats."""

BEAT_S = 5.0

STALE_S = 60.0
"""Age of a heartbeat in seconds after which its run is taken to be dead. A heartbeat as far ahead of this machine's
clock counts for nothing: it would look young for as long, whether its run lives or not."""

LOG_PART_S = 30.0
"""Seconds between parts of the log: older lines survive a killed run."""

LATEST = 32
"""Ended runs of one output whose heartbeats are read: those that began last."""

OPEN = 1024
"""Runs without a mark that they ended whose heartbeats are read: they are active, were killed, or are of a version
that wrote no such mark."""

READ_THREADS = 32


class State(StrEnum):
    """How a run stands, as its heartbeat says it."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """State of a run as it wrote it; times in ISO 8601, UTC."""

    run: str
    job: str
    host: str
    began: str
    at: str
    state: str
    progress: Mapping[str, Any] = field(default_factory=dict)
    """Figures of the job; see docs/operate.md."""

    def age_s(self) -> float:
        """Seconds since it was made, by this machine's clock."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.at)).total_seconds()

    @property
    def is_active(self) -> bool:
        """Whether it says that it is running, and is younger than STALE_S."""
        return self.state == State.RUNNING and abs(self.age_s()) < STALE_S


BEAT_FIELDS = ("run", "job", "host", "began", "at", "state")
"""Fields of every heartbeat; all are text."""


class Pulse:
    """Inside the block, a thread writes this run's heartbeat, with the latest `progress`, and its log."""

    def __init__(self, storage: Storage, output: str, job: str) -> None:
        now = datetime.now(UTC)
        self.run = f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        self.progress: Mapping[str, Any] = {}
        self._storage = storage
        self._output = output
        self._job = job
        self._began = now.isoformat(timespec="seconds")
        self._state = State.RUNNING
        self._lines: list[str] = []
        self._parts = 0
        self._is_warned = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="pulse", daemon=True)

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to the log."""
        line = _json({"at": _now(), "run": self.run, "event": event, **facts})
        with self._lock:
            self._lines.append(line)

    def __enter__(self) -> Self:
        """Raises RunError where nothing can be written: no other run would know of this one."""
        if not self._beat():
            raise RunError(f"{_folder(self._output)} cannot be written")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.log("run_ended", error=None if error is None else f"{type(error).__name__}: {error}")
        self._state = State.DONE if error is None else State.FAILED
        self._ended.set()
        self._thread.join()

    def _tell(self) -> None:
        logged_s = 0.0
        while not self._ended.wait(BEAT_S):
            self._beat()
            logged_s += BEAT_S
            if logged_s >= LOG_PART_S:
                self._put_log()
                logged_s = 0.0
        self._put_log()
        if self._beat():
            self._put(f"{self.run}.ended", str)
        else:
            self._withdraw()

    def _withdraw(self) -> None:
        """Delete the heartbeat: on a full disk it cannot be replaced, and its state `running` would hold others up for
        STALE_S."""
        with suppress(Exception):
            self._storage.delete(join(_folder(self._output), f"{self.run}.json"))

    def _beat(self) -> bool:
        """Whether it could be written."""
        about = (self.run, self._job, platform.node(), self._began, _now(), self._state)
        return self._put(
            f"{self.run}.json", lambda: _json(asdict(Heartbeat(*about, _tellable(self.progress))), indent=2)
        )

    def _put_log(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self._put(f"{self.run}.{self._parts:06d}.jsonl", lambda: "".join(f"{line}\n" for line in lines))
            self._parts += 1

    def _put(self, name: str, told: Callable[[], str]) -> bool:
        try:
            # a lone surrogate (from a path that is no UTF-8) becomes its JSON escape
            data = told().encode(errors="backslashreplace")
            self._storage.put(join(_folder(self._output), name), data, scratch=scratch_of(self._output))
        except Exception as error:  # a run does not end because its heartbeat cannot be written
            if not self._is_warned:
                print(f"warning: {name} could not be written ({error})", file=sys.stderr, flush=True)
            self._is_warned = True
            return False
        return True


def heartbeats(storage: Storage, output: str) -> list[Heartbeat]:
    """Heartbeats of the runs over this output that may be active, and of the LATEST others; the youngest run first.

    Raises what `Storage.names` does.
    """
    names = storage.names(_folder(output))
    ended = {name.removesuffix(".ended") for name in names if name.endswith(".ended")}
    runs = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    latest = [run for run in runs if run in ended][-LATEST:] + [run for run in runs if run not in ended][-OPEN:]
    told = sorted(latest, reverse=True)
    with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="heartbeats") as pool:
        found = pool.map(lambda run: _read(storage, join(_folder(output), f"{run}.json")), told)
        return [beat for beat in found if beat is not None]


def active(storage: Storage, output: str, job: str) -> Heartbeat | None:
    """A run of this job that seems active on the output, or None. Raises what `Storage.names` does."""
    return next((beat for beat in heartbeats(storage, output) if beat.job == job and beat.is_active), None)


def _read(storage: Storage, uri: str) -> Heartbeat | None:
    """A heartbeat; None where it is gone or something else wrote it. Unknown fields of a later version are ignored."""
    try:
        found = json.loads(storage.read(uri))
        beat = Heartbeat(**{name: found[name] for name in BEAT_FIELDS}, progress=found.get("progress", {}))
        beat.age_s()
    except (Missing, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    texts = [getattr(beat, name) for name in BEAT_FIELDS]
    return beat if isinstance(beat.progress, dict) and all(isinstance(text, str) for text in texts) else None


def _json(facts: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON of these facts, whatever they hold: values that JSON does not know are written as `repr`."""
    return json.dumps(_tellable(facts), ensure_ascii=False, indent=indent, default=repr)


def _tellable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same facts; one that cannot be JSON even so (odd keys, a circle) becomes its `repr`."""
    found = {}
    for name, fact in facts.items():
        try:
            json.dumps(fact, default=repr)
            found[str(name)] = fact
        except (TypeError, ValueError, RecursionError):
            found[str(name)] = repr(fact)
    return found


def _folder(output: str) -> str:
    return join(output, "runs")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
