"""A request to a disk or a store -> its answer, tried again while the failure may be transient.

This module is the one place that retries: a failing request is tried `ATTEMPTS` times, and not `ATTEMPTS` times some
library's own number.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from iqa_core.errors import IqaError
from iqa_core.storage.failures import FetchFailed, Oversized, failure_named, final_meaning
from iqa_core.storage.uris import is_local

T = TypeVar("T")

ATTEMPTS = 8
"""Tries of one request; the waits between them are 24 s together at most, which outlasts a burst of throttling."""

LOCAL_ATTEMPTS = 3
"""Tries of one local read: a disk answers the same every time, a network mount may not."""


def retried(once: Callable[[], T], uri: str) -> T:
    """The request's answer. Raises FetchFailed after the last try, and at once an error that `final_meaning` gives."""
    attempts = LOCAL_ATTEMPTS if is_local(uri) else ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            return once()
        except (IqaError, Oversized):
            raise
        except Exception as error:  # stores and their clients raise errors of any class
            if (final := final_meaning(error, uri)) is not None:
                raise final from error
            if attempt == attempts:
                raise FetchFailed(f"{uri}: {attempts} tries failed, the last with {failure_named(error)}") from error
        # full jitter, so that many readers that were throttled together do not come back together
        time.sleep(random.uniform(0, min(8.0, 0.25 * 2 ** (attempt - 1))))
    raise AssertionError("unreachable")
