"""What is done to an output, as the jobs do it but without a Ray, and ended at any change that it makes to the disk.

A kill is an exception out of an audit hook, which Python calls before each system call that would change something
under the output. From the one that is chosen on, all of them raise, in every thread: so the disk stays exactly as it
was, which is what SIGKILL leaves, and what is only in memory goes with the objects that nobody holds any more.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqa_core.assessor.config import AssessorConfig
from iqa_core.corpus.plan.plan import Plan
from iqa_core.storage.storage import Storage
from iqa_core.tables.heartbeats import STALE_S
from iqa_core.tables.scores.audit import audit
from iqa_core.tables.scores.score_table import open_score_table
from jobs.compaction.flow import compact as compacted
from jobs.compaction.settings import CompactSettings
from jobs.scoring.settings import ScoreSettings
from tests.jobs.by_hand import scoring_by_hand

LOCAL = Storage()


def score(output: Path, *inputs: Path | str, **settings: Any) -> int:
    """The scoring job with its readers and its assessor in this process, one after the other; the exit code."""
    return sum(scoring(output, *inputs, **settings))


def scoring(output: Path, *inputs: Path | str, **settings: Any) -> Iterator[int]:
    """The same, a chunk at a time: 0 before each, and at last the exit code. Two of them are two drivers."""
    given = {"input": [str(path) for path in inputs], "output": str(output), "report": False, "chunk_images": 4}
    yield from scoring_by_hand(ScoreSettings(**{**given, "assessor": AssessorConfig(checkpoint="fake:"), **settings}))


def compact(output: Path, file_images: int = 8) -> int:
    return compacted(CompactSettings(scores=str(output), file_images=file_images))


def rows_of(output: Path) -> list[dict[str, Any]]:
    """The score table as the other jobs read it, sorted by image."""
    table = open_score_table(LOCAL, str(output))
    parts = [rows.replace_schema_metadata(None) for _, rows in table.ledger.read_all(table.chunks)]
    order = [(name, "ascending") for name in ("source", "offset", "row", "key")]
    return list(pa.concat_tables(parts).sort_by(order).to_pylist())


def faults_of(output: Path) -> list[str]:
    """What `status --verify` would say."""
    plan = Plan(LOCAL, str(output))
    contract = plan.contract()
    assert contract is not None
    return [f"{fault.chunk} {fault.what}" for fault in audit(plan, contract).faults]


def a_minute_later(output: Path) -> None:
    """Runs that were killed are taken to be dead when their heartbeat is old."""
    for file in (output / "runs").glob("*.json"):
        beat = json.loads(file.read_text())
        beat["at"] = (datetime.fromisoformat(beat["at"]) - timedelta(seconds=2 * STALE_S)).isoformat()
        file.write_text(json.dumps(beat))


# ---- kills


_CHANGES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


class Killed(BaseException):
    """Nothing that is there to clean up changes anything."""


@dataclass(slots=True)
class Watch:
    """Changes under a folder are counted; behind so many of them none happens any more."""

    folder: str
    kill_at: int | None
    changes: int = 0
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_change(event, arguments):
            return
        with self.lock:
            self.is_over = self.is_over or self.changes == self.kill_at
            self.changes += not self.is_over
        if self.is_over:
            raise Killed

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event not in _CHANGES or not isinstance(arguments[0], str) or not arguments[0].startswith(self.folder):
            return False
        if event == "open":
            return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        return os.path.exists(arguments[0]) != (event == "os.mkdir")


_watches: list[Watch] = []
"""The one that is under way, if any: an audit hook cannot be taken off again."""


@cache
def _install() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _watches:
        watch(event, arguments)


@contextmanager
def killed_at(folder: Path, kill_at: int | None) -> Iterator[Watch]:
    """Inside, only so many changes under the folder happen; None: all of them. They are counted.

    A put is two of them, the file being opened under another name and getting its own; a create has a third, when that
    other name goes.
    """
    _install()
    watch = Watch(str(folder), kill_at)
    said = threading.excepthook
    threading.excepthook = lambda args: None if args.exc_type is Killed else said(args)
    _watches.append(watch)
    try:
        yield watch
    except Killed:
        pass
    finally:
        _watches.remove(watch)
        threading.excepthook = said
