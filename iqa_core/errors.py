"""One small error tree, by whose fault it is.

The image's fault is not here: that is a `Rejection`, a value in the image's place (see records).
"""

from __future__ import annotations


class IqaError(Exception):
    """Anything this project raises on purpose. The message has the value, the bound and the way out."""


class CallerError(IqaError):
    """The caller's mistake, found before anything ran: a wrong flag, path, rubric or column (exit code 2)."""


class RunError(IqaError):
    """The run cannot go on, through nobody's flag: credentials expired, a source damaged, no progress (exit code 1).

    What was committed stays; the same command goes on from there.
    """
