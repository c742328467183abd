"""A block of code and a number of seconds -> the process ends if the block takes longer."""

from __future__ import annotations

import faulthandler
import functools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum


class Clock(Enum):
    """What is counted; each value is the operating system's timer and the signal that it sends."""

    WALL = (signal.ITIMER_REAL, signal.SIGALRM)
    CPU = (signal.ITIMER_PROF, signal.SIGPROF)
    """CPU time of all threads of the process: the same on a busy machine. Waiting and sleeping take none."""


@contextmanager
def deadline(seconds: float, clock: Clock = Clock.WALL) -> Iterator[None]:
    """End this process by the clock's signal if the block takes longer, even if it hangs in C code that holds the
    interpreter's lock; where each thread was then is on the standard error stream.

    There is one such clock of each kind per process: blocks must not overlap. It costs two system calls, so that one
    image may be one block.
    """
    timer, alarm = clock.value
    _say_where_on(alarm)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)


@functools.cache
def _say_where_on(alarm: signal.Signals) -> None:
    """Python's own handlers wait for the interpreter's lock; this one does not, and then does what the signal does."""
    faulthandler.register(alarm, file=2, all_threads=True, chain=True)
