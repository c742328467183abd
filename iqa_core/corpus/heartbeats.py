"""A run at work -> `<output>/runs`: a heartbeat every few seconds and a log in JSON lines; and who is at work there.

    runs/<run>.json              the heartbeat, replaced whole: where, since when, how far, and at last how it ended
    runs/<run>.NNNNNN.jsonl      the log, in parts, since an object store cannot append

Both are told by a thread of their own, so a slow store costs the run nothing, and a store that fails costs only them.
"""

from __future__ import annotations

import json
import platform
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from iqa_core.corpus.storage import Missing, Storage, join
from iqa_core.errors import RunError

BEAT_S = 5.0

STALE_S = 60.0
"""Age of a heartbeat after which its run is taken to be dead. Clocks of machines may differ by much less."""

LOG_PART_S = 30.0
"""Log lines that are lost with a killed run are at most this old."""

LATEST = 32
"""Runs of one output that are looked at, the latest by the time at which they began."""

RUNNING, DONE, FAILED = "running", "done", "failed"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a run says of itself; times in ISO 8601, UTC."""

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
        return self.state == RUNNING and self.age_s() < STALE_S


BEAT_FIELDS = ("run", "job", "host", "began", "at", "state")
"""Text, in every heartbeat."""


class Pulse:
    """Inside of the block, a thread tells of this run. What is told is what `progress` was last set to."""

    def __init__(self, storage: Storage, output: str, job: str) -> None:
        now = datetime.now(UTC)
        self.run = f"{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        self.progress: Mapping[str, Any] = {}
        self._storage = storage
        self._output = output
        self._job = job
        self._began = now.isoformat(timespec="seconds")
        self._state = RUNNING
        self._lines: list[str] = []
        self._parts = 0
        self._is_warned = False
        self._heard = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="pulse", daemon=True)

    def log(self, event: str, **facts: Any) -> None:
        """Add a line to the log."""
        line = json.dumps({"at": _now(), "run": self.run, "event": event, **facts}, ensure_ascii=False)
        with self._lock:
            self._lines.append(line)

    @property
    def is_heard(self) -> bool:
        """Whether others still take this run to be alive: neither the store nor this machine has paused for long."""
        return time.time() - self._heard < STALE_S / 2

    def __enter__(self) -> Self:
        """Raises RunError where nothing can be written: no other run would know of this one."""
        self._beat()
        if not self.is_heard:
            raise RunError(f"{_folder(self._output)} cannot be written")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.log("run_ended", error=None if error is None else f"{type(error).__name__}: {error}")
        self._state = DONE if error is None else FAILED
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
        if not self._beat():
            self._withdraw()

    def _withdraw(self) -> None:
        """Delete the heartbeat: on a full disk nothing else can be done to it, and as it stands it says that this run
        is at work, which keeps others off for STALE_S."""
        with suppress(Exception):
            self._storage.delete(join(_folder(self._output), f"{self.run}.json"))

    def _beat(self) -> bool:
        beat = Heartbeat(self.run, self._job, platform.node(), self._began, _now(), self._state, self.progress)
        began = time.time()
        is_put = self._put(f"{self.run}.json", json.dumps(asdict(beat), indent=2).encode())
        if is_put:
            self._heard = began
        return is_put

    def _put_log(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self._put(f"{self.run}.{self._parts:06d}.jsonl", "".join(f"{line}\n" for line in lines).encode())
            self._parts += 1

    def _put(self, name: str, data: bytes) -> bool:
        try:
            self._storage.put(join(_folder(self._output), name), data, scratch=join(self._output, ".tmp"))
        except Exception as error:  # nobody's run ends because it cannot be watched
            if not self._is_warned:
                print(f"warning: {name} could not be written ({error})", file=sys.stderr, flush=True)
            self._is_warned = True
            return False
        return True


def heartbeats(storage: Storage, output: str) -> list[Heartbeat]:
    """The last one of each of the LATEST runs over this output, the youngest run first."""
    names = [name for name in storage.names(_folder(output)) if name.endswith(".json")][-LATEST:]
    with ThreadPoolExecutor(LATEST, thread_name_prefix="heartbeats") as pool:
        found = pool.map(lambda name: _read(storage, join(_folder(output), name)), reversed(names))
        return [beat for beat in found if beat is not None]


def active(storage: Storage, output: str, job: str, own: str = "") -> Heartbeat | None:
    """A run of this job, another one than `own`, that is at work on the output."""
    beats = heartbeats(storage, output)
    return next((beat for beat in beats if beat.job == job and beat.run != own and beat.is_active), None)


def _read(storage: Storage, uri: str) -> Heartbeat | None:
    """None where it is gone, or was written by something else; a later version's further fields are passed over."""
    try:
        found = json.loads(storage.read(uri))
        beat = Heartbeat(**{name: found[name] for name in BEAT_FIELDS}, progress=found.get("progress", {}))
        beat.age_s()
    except (Missing, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    texts = [getattr(beat, name) for name in BEAT_FIELDS]
    return beat if isinstance(beat.progress, dict) and all(isinstance(text, str) for text in texts) else None


def _folder(output: str) -> str:
    return join(output, "runs")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
