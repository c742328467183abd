"""Events of a stream that Ray may leave hanging -> the same events, with a beat between them and an end to waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

from iqa_core.errors import RunError

TICK_S = 1.0

T = TypeVar("T")


def guarded(events: Iterator[T], stall_s: float) -> Iterator[T | None]:
    """The events, with a None each TICK_S in which none came. Raises RunError when nothing comes for stall_s."""
    passing: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=64)

    def pump() -> None:
        try:
            for event in events:
                passing.put(event)
            passing.put(None)
        except BaseException as error:  # handed over to the thread that waits
            passing.put(error)

    threading.Thread(target=pump, name="stream", daemon=True).start()
    quiet_s = 0.0
    while True:
        try:
            event = passing.get(timeout=TICK_S)
        except queue.Empty:
            quiet_s += TICK_S
            if quiet_s >= stall_s:
                raise RunError(
                    f"no batch came back for {stall_s:g} s (--stall-timeout-s); the same command goes on from here"
                ) from None
            yield None
            continue
        if event is None:
            return
        if isinstance(event, BaseException):
            raise event
        quiet_s = 0.0
        yield event
