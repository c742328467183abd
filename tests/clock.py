"""Time in tests -> waiting for what is to happen, and seconds that a busy machine does not add to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

NOT_SEEN = "what the test waits for does not happen"


def wait_for(condition: Any, timeout_s: float = 60, every_s: float = 0.05) -> None:
    """Poll what other threads, processes or machines bring about; the bound only catches a hang."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, NOT_SEEN
        time.sleep(every_s)


async def eventually(condition: Callable[[], object], timeout_s: float = 60, every_s: float = 0.005) -> None:
    """Poll in the same way, while the event loop goes on."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, NOT_SEEN
        await asyncio.sleep(every_s)


async def settled(turns: int = 20) -> None:
    """Let an event loop that waits for no thread and no socket do all that it can: counted in turns, not in seconds."""
    for _ in range(turns):
        await asyncio.sleep(0)


def least_s(
    work: Callable[[], object], enough_s: float, tries: int = 8, clock: Callable[[], float] = time.monotonic
) -> float:
    """Seconds that the work takes: the least of a few tries, until one is fast enough.

    What else is busy makes some of them slow (a core shared, a cold cache), and none fast.
    """
    least = float("inf")
    for _ in range(tries):
        began = clock()
        work()
        least = min(least, clock() - began)
        if least <= enough_s:
            break
    return least


def least_cpu_s(work: Callable[[], object], enough_s: float, tries: int = 8) -> float:
    """The same in CPU seconds of this thread."""
    return least_s(work, enough_s, tries, time.thread_time)


def slowness() -> float:
    """Seconds that a CPU second takes in a thread of this machine as busy as it is now: 1 where there are cores enough.

    Bounds on what several processes do together are multiplied by it.
    """
    began, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.2:
        pass
    return max(1.0, (time.monotonic() - began) / (time.thread_time() - used))


def stand_still(monkeypatch: pytest.MonkeyPatch, module: str, at_s: float) -> None:
    """From now on it is the same moment, by `time.monotonic` as this module calls it."""
    monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: at_s))
