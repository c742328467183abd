"""A block of code and a number of seconds -> the process ends if the block takes longer."""

from __future__ import annotations

import faulthandler
import functools
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process by SIGALRM if the block takes longer, even if it hangs in C code that holds the interpreter's
    lock; where each thread was then is on the standard error stream.

    There is one such clock per process: blocks must not overlap. It costs two system calls, so that one image may be
    one block.
    """
    _say_where_on_alarm()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@functools.cache
def _say_where_on_alarm() -> None:
    """Python's own handlers wait for the interpreter's lock; this one does not, and then does what SIGALRM does."""
    faulthandler.register(signal.SIGALRM, file=2, all_threads=True, chain=True)
