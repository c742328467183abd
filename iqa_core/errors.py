"""One small error tree, by whose fault it is -> the exit code of a command.

The image's fault is not here: that is a `Rejection`, a value in the image's place (see records).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

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
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted: what was committed stays; the same command goes on from there", file=sys.stderr)
        return FAILED
