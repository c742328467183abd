"""Image URIs -> their bytes in order, fetched in parallel; an image that cannot be fetched is a rejection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from iqa_core.base64_text import bytes_of, is_base64
from iqa_core.errors import CallerError
from iqa_core.records import ImageLimits, Reason, Rejection
from iqa_core.storage.failures import (
    FetchFailed,
    Forbidden,
    Missing,
    NoSuchStorage,
    Oversized,
    check_size,
    failure_named,
)
from iqa_core.storage.storage import Storage
from iqa_core.storage.uris import windows_hint

T = TypeVar("T")

FETCH_THREADS = 16
"""Requests in flight per reader: enough to hide 50 ms of latency at 300 images/s."""

LOOKAHEAD = 32
"""Images fetched ahead of the one that is being decoded: the bound on memory."""


def fetch(storage: Storage, uri: str, size: int | None, limits: ImageLimits) -> bytes | Rejection:
    """The whole object as it is now, even if its size changed since it was listed; or what a data URI holds.

    size: from the listing, where there is one, so that an object that is too large is not asked for.
    Raises RunError where the credentials are at fault; any other failure is the image's, a Rejection.
    """
    try:
        if size is not None and size > limits.max_bytes:
            raise Oversized(size)
        if is_inline(uri):
            return _inline(uri, limits.max_bytes)
        return storage.read(uri, max_bytes=limits.max_bytes)
    except Oversized as error:
        return Rejection(Reason.TOO_LARGE, f"{error.size} bytes encoded; the bound is {limits.max_bytes}")
    except (Missing, Forbidden, FetchFailed) as error:
        return unread(error, uri)
    except CallerError as error:  # this row names a storage that cannot be opened; other rows may name another
        return Rejection(Reason.FETCH_FAILED, f"its storage cannot be opened: {_unopened(error.__cause__)}")


def unread(error: Missing | Forbidden | FetchFailed, uri: str) -> Rejection:
    """The rejection of an image whose URI was not read; its text names no path."""
    if isinstance(error, NoSuchStorage):
        return Rejection(Reason.MISSING, f"there is no storage of the kind {uri.split('://')[0][:40]}://")
    if isinstance(error, Missing):
        return Rejection(Reason.MISSING, f"there is no such file{windows_hint(uri)}")
    if isinstance(error, Forbidden):
        return Rejection(Reason.FORBIDDEN, "access is denied")
    return Rejection(Reason.FETCH_FAILED, f"reading failed again and again: {failure_named(error.__cause__)}")


def _unopened(cause: BaseException | None) -> str:
    """Why a storage was not opened, in words that name a missing package and no path."""
    if isinstance(cause, ImportError):
        return f"a package is not installed ({cause.name if cause.path else cause})"
    return failure_named(cause)


def is_inline(uri: str) -> bool:
    """Whether the URI is a data URI, which holds the image itself."""
    return uri[:5].lower() == "data:"


def _inline(uri: str, max_bytes: int) -> bytes | Rejection:
    """Content of a data URI (RFC 2397), base64 or percent-encoded. Raises Oversized."""
    if "," not in uri:
        return Rejection(Reason.CORRUPT, "its data URI has no comma")
    try:
        data = bytes_of(uri) if is_base64(uri) else unquote_to_bytes(uri.partition(",")[2])
    except UnicodeError:
        return Rejection(Reason.CORRUPT, "its data URI has half a character in it")
    except ValueError as error:
        return Rejection(Reason.CORRUPT, f"its data URI is {error}")
    check_size(len(data), None, max_bytes)
    return data


def fetch_all(
    storage: Storage, wanted: Iterable[tuple[str, int | None]], limits: ImageLimits
) -> Iterator[bytes | Rejection]:
    """What `fetch` returns for each (uri, size), in order, at most LOOKAHEAD images ahead of the consumer.

    Raises RunError where the credentials are at fault.
    """
    return in_order((partial(fetch, storage, uri, size, limits) for uri, size in wanted), LOOKAHEAD)


def in_order(calls: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """Results of calls in order, FETCH_THREADS of them at once, at most so many ahead of the consumer."""
    pool = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")
    waiting = iter(calls)
    pending: deque[Future[T]] = deque()
    try:
        while True:
            for call in islice(waiting, ahead - len(pending)):
                pending.append(pool.submit(call))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        # the garbage collector may end an abandoned generator while a thread starts: waiting for it would hang
        pool.shutdown(wait=False, cancel_futures=True)
