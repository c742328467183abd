"""A block of code and a number of seconds -> the process ends if the block takes longer."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, even if it hangs in C code that holds the interpreter's lock.

    There is one such clock per process: blocks must not overlap.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
