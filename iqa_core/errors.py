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
from collections.abc import Callable
from types import FrameType
from typing import Any

DONE, FAILED, REFUSED = 0, 1, 2
"""Exit codes: as asked; failed while running, and resumable; the caller's mistake, before anything ran."""


class IqaError(Exception):
    """Anything this project raises on purpose. The message has the value, the bound and the way out."""


class CallerError(IqaError):
    """The caller's mistake, found before anything ran: a wrong flag, path, rubric or column (exit code 2)."""


class RunError(IqaError):
    """The run cannot go on, through nobody's flag: credentials expired, a source damaged, no progress (exit code 1).

    What was committed stays; the same command goes on from there.
    """


def exit_code(command: Callable[[], int]) -> int:
    """The command's own, or that of what it raises, which is one message on standard error and no traceback.

    What no code foresaw (a bug) keeps its traceback. OSError is foreseen everywhere: a disk is full when it is.
    """
    before = heed_termination()
    try:
        return command()
    except CallerError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:
        # who read standard output has gone; flushing it at the end of the process would fail once more
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
"""What `signal` knows one as."""


def heed_termination() -> Handler | None:
    """From here on SIGTERM (`ray job stop`, systemd, Kubernetes) does what Ctrl-C does; the handler that was there.

    None, and nothing is changed, outside of the main thread. To be called again behind what sets a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_: int, frame: FrameType | None) -> None:
    os.write(2, b"terminated: ending as by Ctrl-C\n")  # at once: `ray job stop` kills after 3 s, Ray takes 6 to leave
    # by its handler, where somebody has one (Ray Train ends its workers by it); in a background job of a shell
    # Ctrl-C is ignored, and SIGTERM is still meant
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def told(error: Exception) -> str:
    """In words. A full disk of which no path is told holds temporary files without a name, so their folder is."""
    is_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT} and error.filename is None
    way_out = f" (in {tempfile.gettempdir()}, perhaps; TMPDIR names another folder for temporary files)"
    return f"{error}{way_out if is_full else ''}"
