"""Many image URIs -> their bytes in order, fetched in parallel; what cannot be had is a rejection in its place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from iqa_core.corpus.remote import Oversized, failure_named
from iqa_core.corpus.storage import FetchFailed, Forbidden, Missing, Storage
from iqa_core.records import ImageLimits, Reason, Rejection

FETCH_THREADS = 16
"""Requests in flight per reader: enough to hide 50 ms of latency at 300 images/s."""

LOOKAHEAD = 32
"""Images fetched ahead of the one being decoded; bounds memory."""


def fetch(storage: Storage, uri: str, size: int | None, limits: ImageLimits) -> bytes | Rejection:
    """The whole object as it is now, be it longer or shorter than when it was listed.

    size: where a listing told it, so that what is too large is not asked for.
    """
    try:
        if size is not None and size > limits.max_bytes:
            raise Oversized(size)
        return storage.read(uri, max_bytes=limits.max_bytes)
    except Oversized as error:
        return Rejection(Reason.TOO_LARGE, f"{error.size} bytes encoded; the bound is {limits.max_bytes}")
    except Missing:
        return Rejection(Reason.MISSING, "there is no such file")
    except Forbidden:
        return Rejection(Reason.FORBIDDEN, "access is denied")
    except FetchFailed as error:
        return Rejection(Reason.FETCH_FAILED, f"reading failed again and again: {failure_named(error.__cause__)}")


def fetch_all(
    storage: Storage, wanted: Iterable[tuple[str, int | None]], limits: ImageLimits
) -> Iterator[bytes | Rejection]:
    """The same for many (uri, size), in order, at most LOOKAHEAD ahead of the consumer."""
    pool = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
    waiting = iter(wanted)
    pending: deque[Future[bytes | Rejection]] = deque()
    try:
        while True:
            for uri, size in islice(waiting, LOOKAHEAD - len(pending)):
                pending.append(pool.submit(fetch, storage, uri, size, limits))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        # an abandoned generator may be ended by the garbage collector amid the start of a thread: joining would hang
        pool.shutdown(wait=False, cancel_futures=True)
