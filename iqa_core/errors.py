"""One small error tree, by whose fault it is -> the exit code of a command.

The image's fault is not here: that is a `Rejection`, a value in the image's place (see records).
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

DONE, FAILED, REFUSED = 0, 1, 2
"""Exit codes: as asked; failed while running, and resumable; the caller's mistake, before anything ran."""


NAMES_SHOWN = 40
"""Names in a message: a checklist may have 256 columns."""


class IqaError(Exception):
    """Anything this project raises on purpose. The message has the value, the bound and the way out."""


class CallerError(IqaError):
    """The caller's mistake, found before anything ran: a wrong flag, path, rubric or column (exit code 2)."""


class RunError(IqaError):
    """The run cannot go on, through nobody's flag: credentials expired, a source damaged, no progress (exit code 1).

    What was committed stays; the same command goes on from there.
    """


def listed(names: Sequence[str], most: int = NAMES_SHOWN, between: str = ", ") -> str:
    """Names for a message: the first of them, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def exit_code(command: Callable[[], int]) -> int:
    """Exit code of a command: its own, or that of the error it raises, told in one message on standard error.

    An error that no code foresaw (a bug) keeps its traceback. OSError is always foreseen: any write may fill the disk.
    """
    before = heed_termination()
    try:
        return command()
    except CallerError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:
        # the reader of standard output has gone; the flush at the end of the process would fail once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (IqaError, OSError) as error:
        print(f"failed: {told(error)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted: what was committed stays; the same command goes on from there", file=sys.stderr)
        return FAILED
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


Handler = Callable[[int, FrameType | None], Any] | int
"""A signal handler as `signal.signal` takes and returns it."""


def heed_termination() -> Handler | None:
    """Make SIGTERM (`ray job stop`, systemd, Kubernetes) do what Ctrl-C does; the handler that was there before.

    Outside of the main thread nothing is changed, and it returns None. Call it again after a library has set a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_: int, frame: FrameType | None) -> None:
    os.write(2, b"terminated: ending as by Ctrl-C\n")  # at once: `ray job stop` kills after 3 s, Ray takes 6 to leave
    # a handler of SIGINT is called where there is one: Ray Train ends its workers by it. In a background job of a shell
    # SIGINT is ignored, and SIGTERM must end the process all the same
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def told(error: Exception) -> str:
    """The error in words. A full disk without a path is the one of temporary files, so their folder is named."""
    is_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT} and error.filename is None
    way_out = f" (in {tempfile.gettempdir()}, perhaps; TMPDIR names another folder for temporary files)"
    return f"{error}{way_out if is_full else ''}"
