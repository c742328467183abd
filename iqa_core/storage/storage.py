"""URI -> bytes and back: ranges read whole or not at all, retries with back-off, atomic puts, create-if-absent.

A path without a scheme is local; everything else is a `remote.Store`. This module is the one place that retries: a
failing request is tried `ATTEMPTS` times, and not `ATTEMPTS` times some library's own number.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import re
import stat
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from itertools import takewhile
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fsspec import available_protocols

from iqa_core.errors import CallerError, IqaError, RunError
from iqa_core.storage.outputs import require_file, require_folder
from iqa_core.storage.stores import (
    Listed,
    Oversized,
    S3Store,
    Shorter,
    Store,
    check_size,
    error_code,
    failure_named,
    http_status,
    open_store,
)

T = TypeVar("T")

Kinds = type | UnionType
NO_KINDS: Mapping[str, Kinds] = {}

ATTEMPTS = 8
"""Tries of one request; the waits between them are 24 s together at most, which outlasts a burst of throttling."""

LOCAL_ATTEMPTS = 3
"""Tries of one local read: a disk answers the same every time, a network mount may not."""

ABANDONED_S = 24 * 3600.0
"""Age of a temporary file that nobody writes any more. One lives for seconds, while a file is written and synced; a run
that is paused for a day and goes on would lose that one file, say so, and end as one whose disk is full."""

_TEMPORARY = re.compile("[0-9a-f]{32}")

PART_BYTES = 16 * 2**20
"""Size of one request when a large range of a remote object is read in parallel."""

PARALLEL_PARTS = 8
"""Requests in flight for one large range."""

_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Answers that are about who asks, not about what is asked for: they stop the run."""

_CREDENTIAL_ERRORS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
)
"""The same, found by the client before it asked."""

_NO_SUCH_NAME = frozenset({"InvalidBucketName", "InvalidURI", "KeyTooLongError", "ParamValidationError"})
"""Nothing can lie at such a URI."""

_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentSHA256Mismatch",
    }
)
"""Answers after which another try may succeed, though most of these codes come with status 400."""


_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What FAT, CIFS and some FUSE file systems say of a hard link."""


class Missing(IqaError):
    """There is nothing at this URI."""


class NoSuchStorage(Missing):
    """Nothing that is installed or known speaks this scheme."""


class Forbidden(IqaError):
    """This URI may not be read with these (valid) credentials."""


class FetchFailed(IqaError):
    """Reading or writing failed again and again, or for a reason that is neither of the above."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or object found by a listing."""

    uri: str
    size: int | None
    """Bytes; None where it is not known (a dangling link)."""
    etag: str
    """Changes when the content changes: an object's ETag, or the modification time in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Access to every URI of one run. Picklable: readers on other nodes get a copy."""

    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Passed to fsspec for every URI that is not local (endpoint_url, key, secret, …)."""

    def read(self, uri: str, begin: int = 0, end: int | None = None, max_bytes: int | None = None) -> bytes:
        """Bytes begin..end of the object (its whole length when end is None), in one request.

        Raises Missing and Forbidden at once, FetchFailed after ATTEMPTS tries, RunError where the credentials are at
        fault, Oversized for a whole object of more than max_bytes. What comes back short is a failed try, not a result.
        """
        if end is not None and end <= begin:
            return b""
        if is_local(uri):
            return _retried(lambda: _read_local(local_path(uri), begin, end, max_bytes), uri)
        store, path = self._remote(uri)
        return _retried(lambda: store.get(path, begin, end, max_bytes), uri)

    async def blocks(self, uri: str, announce: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
        """An object of S3 as it arrives, in one try; announce: is given its size first, and may raise Oversized.

        Raises what `read` raises. It ends when the caller's task does; close it (`aclosing`) where it is left early.
        """
        try:
            store, path = await asyncio.to_thread(_opened, canonical(uri), self.options)  # the first imports s3fs
            assert isinstance(store, S3Store)
            async with aclosing(store.blocks(path, announce)) as blocks:
                async for block in blocks:
                    yield block
        except (IqaError, Oversized):
            raise
        except Exception as error:  # as in _retried
            raise _final(error, uri) or FetchFailed(f"{uri}: reading failed with {failure_named(error)}") from error

    def read_large(self, uri: str, begin: int, end: int) -> bytes:
        """The same as `read`, in parallel requests of PART_BYTES where the URI is remote."""
        if is_local(uri) or end - begin <= PART_BYTES:
            return self.read(uri, begin, end)
        parts = range(begin, end, PART_BYTES)
        with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
            return b"".join(pool.map(lambda start: self.read(uri, start, min(start + PART_BYTES, end)), parts))

    def read_object(
        self, uri: str, kinds: Mapping[str, Kinds] = NO_KINDS, way_out: str = "give another folder"
    ) -> dict[str, Any]:
        """A JSON object that was put here with values of these kinds by name. Raises CallerError for anything else."""
        try:
            found = json.loads(self.read(uri))
        except (ValueError, RecursionError) as error:
            raise CallerError(f"{uri}: it is not JSON ({error}); {way_out}") from None
        if not isinstance(found, dict):
            raise CallerError(f"{uri}: it is no JSON object, so something else wrote it; {way_out}")
        for fault, names in (
            ("it lacks", [name for name in kinds if name not in found]),
            ("it has other values of", [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]),
        ):
            if names:
                raise CallerError(f"{uri}: {fault} {', '.join(names)}, so something else wrote it; {way_out}")
        return found

    def require_writable(self, uri: str, flag: str, *, is_folder: bool) -> None:
        """Raises CallerError where nothing can be put; of a store, as far as asking for what is there tells."""
        if is_local(uri):
            (require_folder if is_folder else require_file)(local_path(uri), flag)
            return
        try:
            self.stat(uri)
        except (RunError, Missing, Forbidden, FetchFailed) as error:
            raise CallerError(f"{flag} {error}") from error

    def put(self, uri: str, data: bytes, scratch: str | None = None) -> None:
        """Replace the object with these bytes, in one atomic step. Raises FetchFailed or Forbidden where it cannot.

        scratch: for a local file, the folder on the same disk in which it lies until it is whole; `.tmp` beside it if
        not given.
        """
        if is_local(uri):
            with _local_writing(uri), _temporary(local_path(uri), data, scratch) as temporary:
                os.replace(temporary, local_path(uri))
                _sync_directory(local_path(uri))
            return
        store, path = self._remote(uri)
        _retried(lambda: store.put(path, data), uri)

    def create(self, uri: str, data: bytes, scratch: str | None = None) -> bool:
        """Put these bytes where nothing lies yet; False if something else did (the other writer's bytes stay)."""
        if is_local(uri):
            with _local_writing(uri):
                return _create_local(local_path(uri), data, scratch)
        store, path = self._remote(uri)

        def once() -> bool:
            try:
                store.create(path, data)
            except FileExistsError:
                return False
            return True

        # a try of which the answer was lost may have put them there: the next one finds them
        return _retried(once, uri) or self.read(uri) == data

    def begin(self, uri: str, data: bytes, scratch: str) -> None:
        """Create the file that an output begins with, unless it is there: what counts is what lies there afterwards.

        scratch: a folder of the output. Raises CallerError where a store would let a second `create` replace what the
        first one put: of two drivers, one's part of the plan would be lost, and neither would be told.
        """
        if self.stat(uri) is not None:
            return
        if not is_local(uri) and not self._keeps_what_is_there(join(scratch, uuid.uuid4().hex)):
            raise CallerError(
                f"{uri}: its store does not keep an object from being replaced by a PUT with `If-None-Match: *`, as "
                "Amazon S3 does, so two drivers could not share an output; write to a local folder and copy it, or "
                "give another store"
            )
        self.create(uri, data, scratch)

    def _keeps_what_is_there(self, probe: str) -> bool:
        """Whether `create` is refused where an object lies; asked of one of our own, which goes again."""
        self.put(probe, b"first")
        try:
            return not self.create(probe, b"second")
        except FetchFailed as error:
            if http_status(error) == HTTPStatus.NOT_IMPLEMENTED:
                return False
            raise
        finally:
            self.delete(probe)

    def delete(self, uri: str) -> None:
        """Remove the object; nothing happens where there is none."""
        if is_local(uri):
            with _local_writing(uri):
                local_path(uri).unlink(missing_ok=True)
            return
        store, path = self._remote(uri)
        with suppress(Missing):
            _retried(lambda: store.delete(path), uri)

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files directly in a folder or prefix; empty where there is none."""
        if is_local(folder):
            try:
                return sorted(entry.name for entry in os.scandir(local_path(folder)) if entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                return []
            except OSError as error:
                raise FetchFailed(f"{folder}: it cannot be listed ({error.strerror})") from error
        try:
            return sorted(listed.path.rsplit("/", 1)[1] for listed in self._listed(folder, is_recursive=False))
        except Missing:
            return []

    def stat(self, uri: str) -> Entry | None:
        """The file or object at exactly this URI; None for a folder or nothing."""
        if is_local(uri):
            try:
                return _local_entry(uri, local_path(uri)) if _retried(local_path(uri).exists, uri) else None
            except Missing:
                return None
        store, path = self._remote(uri)
        listed = _retried(lambda: store.stat(path), uri)
        return None if listed is None else Entry(uri, listed.size, listed.etag)

    def walk(self, folder: str) -> Iterator[Entry]:
        """Every file or object under a folder or prefix, sorted by URI, as a stream.

        Locally, links are followed to files but not to folders; a dangling link is an entry without a size; what is
        neither file nor link (a pipe, a socket) is left out, since reading it may never end.
        Raises CallerError where a store lists in another order, since listings are merged as they come.
        """
        if is_local(folder):
            # `file://` URIs (names that are no UTF-8) sort behind plain paths, so they are held back to the end
            escaped = []
            for entry in _walk_local(os.fsencode(local_path(folder))):
                if entry.uri.startswith("file://"):
                    escaped.append(entry)
                else:
                    yield entry
            yield from sorted(escaped, key=lambda entry: entry.uri)
            return
        scheme = canonical(folder).split("://", 1)[0]
        previous = ""
        for listed in self._listed(folder, is_recursive=True):
            entry = Entry(f"{scheme}://{listed.path.lstrip('/')}", listed.size, listed.etag)
            if entry.uri <= previous:
                raise CallerError(
                    f"{folder}: its store does not list in order of names ({previous}, then {entry.uri}); give a .csv "
                    "or .jsonl list of the URIs instead"
                )
            yield entry
            previous = entry.uri

    def _listed(self, folder: str, is_recursive: bool) -> Iterator[Listed]:
        """Page by page, each retried for itself: of 1,000 pages, some will fail."""
        store, path = self._remote(folder)
        token: str | None = None
        while True:
            found, token = _retried(partial(store.page, path, is_recursive, token), folder)
            yield from found
            if token is None:
                return

    def _remote(self, uri: str) -> tuple[Store, str]:
        """Raises NoSuchStorage, CallerError where a package is missing or the options do not fit, and what `read` does:
        of a chain such as `zip://a.png::s3://…` the outer ones are read to open it."""
        uri = canonical(uri)
        scheme = uri.split("://", 1)[0]
        if any(link not in available_protocols() for link in scheme.split("::")):
            raise NoSuchStorage(f"{uri}: there is no storage of the kind {scheme}://")
        return _retried(lambda: _opened(uri, self.options), uri)


def _opened(uri: str, options: Mapping[str, Any]) -> tuple[Store, str]:
    """What is no OSError has asked nobody, and will be the same next time."""
    try:
        return open_store(uri, options)
    except OSError:
        raise
    except Exception as error:  # whatever a store's library raises, as in _retried
        raise _final(error, uri) or CallerError(
            f"{uri}: it cannot be opened, or not with these --storage-options ({error})"
        ) from error


_FILE = re.compile(r"file:(?://localhost(?=/)|(?=/(?!/)))", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.:-]*(?=://)", re.IGNORECASE)


def canonical(uri: str) -> str:
    """The URI with its scheme in lower case; `file:/path` and `file://localhost/path` as `file:///path`."""
    if match := _FILE.match(uri):
        return f"file://{uri[match.end() :]}"
    match = _SCHEME.match(uri)
    return f"{match[0].lower()}{uri[match.end() :]}" if match else uri


_WINDOWS = re.compile(r"(^|/)[a-z]:[\\/]|\\", re.IGNORECASE)


def windows_hint(uri: str) -> str:
    """For the end of a message about a URI where nothing lies."""
    return "; a Windows path leads nowhere here" if _WINDOWS.search(uri) else ""


def is_local(uri: str) -> bool:
    uri = canonical(uri)
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path behind a local URI; `file:` URIs are percent-decoded, plain paths are taken as they are."""
    uri = canonical(uri)
    if uri.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    return Path(uri)


def absolute(uri: str) -> str:
    """The URI, canonical and without a trailing slash; a relative local path made absolute."""
    if is_local(uri):
        return local_uri(os.fsencode(os.path.abspath(local_path(uri))))
    uri = canonical(uri)
    return uri if uri.endswith("://") else uri.rstrip("/")


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def local_uri(path: bytes) -> str:
    """The path as text; a name that is no UTF-8 becomes a percent-encoded `file://` URI, since tables hold UTF-8."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(path)


def _walk_local(folder: bytes) -> Iterator[Entry]:
    """With a stack of its own, and of each folder that is open the names that are still to come: folders lie thousands
    deep where a tool has followed a link into itself, deeper than Python calls itself."""
    stack = [iter(_scanned(folder))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif _is_folder(entry):
            stack.append(iter(_scanned(entry.path)))
        elif entry.is_symlink() or entry.is_file():
            found = _local_entry(local_uri(entry.path), Path(os.fsdecode(entry.path)))
            if found is not None:
                yield found


def _scanned(folder: bytes) -> list[os.DirEntry[bytes]]:
    """What lies in it, as URIs are sorted. Raises CallerError where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name + (b"/" if _is_folder(entry) else b""))
    except OSError as error:
        uri = local_uri(folder)
        is_missing = isinstance(error, FileNotFoundError)
        what = f"there is no such file or folder{windows_hint(uri)}" if is_missing else error.strerror
        raise CallerError(f"{uri}: {what}") from error


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _local_entry(uri: str, path: Path) -> Entry | None:
    """None for what is no file; without a size where it cannot be looked at (a link to nothing)."""
    try:
        status = path.stat()
    except OSError:
        return Entry(uri, None, "")
    return Entry(uri, status.st_size, str(status.st_mtime_ns)) if stat.S_ISREG(status.st_mode) else None


def _read_local(path: Path, begin: int, end: int | None, max_bytes: int | None) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, "a pipe or a device may never end", str(path))
    check_size(status.st_size, end, max_bytes)
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read() if end is None else file.read(end - begin)
    if end is not None and len(data) != end - begin:
        raise OSError(f"{len(data)} of {end - begin} bytes arrived")
    return data


def _create_local(path: Path, data: bytes, scratch: str | None) -> bool:
    with _temporary(path, data, scratch) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS also says so of the link that it made, where its first answer was lost and it was asked again
            if temporary.stat().st_nlink == 1:
                if not path.is_file():
                    raise OSError(errno.EEXIST, "a folder, or a link to nothing, has its name") from None
                return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise CallerError(
                f"{path}: this file system has no hard links ({error.strerror}), by which one of two drivers learns "
                "that the other was first; give a folder on another one"
            ) from error
    _sync_directory(path)
    return True


@contextmanager
def _local_writing(uri: str) -> Iterator[None]:
    """Inside: what a disk says to writing is this module's error, as what a store says is."""
    try:
        yield
    except OSError as error:
        kind = Forbidden if isinstance(error, PermissionError) else FetchFailed
        raise kind(f"{uri}: it cannot be written ({error.strerror or error})") from error


@contextmanager
def _temporary(target: Path, data: bytes, scratch: str | None) -> Iterator[Path]:
    """The bytes in a file of their own, synced; it is gone afterwards, whatever happens."""
    folder = local_path(scratch) if scratch is not None else target.parent / ".tmp"
    _make_folder(folder)
    _make_folder(target.parent)
    temporary = folder / uuid.uuid4().hex
    try:
        with temporary.open("wb") as file:
            _remove_abandoned(folder, os.fstat(file.fileno()).st_mtime)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(path: Path) -> None:
    """And what is missing above it; `Path.mkdir` would call itself for each level."""
    missing = list(takewhile(lambda place: not place.is_dir(), (path, *path.parents)))
    for place in reversed(missing):
        place.mkdir(exist_ok=True)


def _remove_abandoned(folder: Path, now: float) -> None:
    """Files of runs that were killed while they wrote. now: by the disk's clock, which may be another machine's."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_ours = _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            if is_ours and now - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_S:
                with suppress(OSError):
                    os.unlink(entry.path)


def _sync_directory(target: Path) -> None:
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _retried(once: Callable[[], T], uri: str) -> T:
    attempts = LOCAL_ATTEMPTS if is_local(uri) else ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            return once()
        except (IqaError, Oversized):
            raise
        except Exception as error:  # whatever a store or its client raises gets its meaning here
            if (final := _final(error, uri)) is not None:
                raise final from error
            if attempt == attempts:
                raise FetchFailed(f"{uri}: {attempts} tries failed, the last with {failure_named(error)}") from error
        # full jitter, so that many readers that were throttled together do not come back together
        time.sleep(random.uniform(0, min(8.0, 0.25 * 2 ** (attempt - 1))))
    raise AssertionError("unreachable")


def _final(error: Exception, uri: str) -> IqaError | None:
    """What an error means if it will be the same next time; None if it may pass."""
    code = error_code(error)
    name = type(error).__name__
    if code in _CREDENTIAL_CODES or name in _CREDENTIAL_ERRORS:
        return RunError(f"{uri}: the credentials are refused ({code or error}); renew them and run the same command")
    if _is_missing(error) or {code, name} & _NO_SUCH_NAME:
        return Missing(f"{uri}: there is nothing at this place")
    is_no_name = isinstance(error, ValueError) and is_local(uri)  # a zero byte in a path
    if (
        is_no_name
        or isinstance(error, UnicodeEncodeError)
        or getattr(error, "errno", None) in {errno.ELOOP, errno.ENAMETOOLONG}
    ):
        return Missing(f"{uri}: nothing can lie at such a place")
    if isinstance(error, Shorter):
        return FetchFailed(f"{uri}: {error}; it was replaced since it was listed")
    if isinstance(error, ImportError):
        return CallerError(f"{uri}: a package that it needs is not installed ({error})")
    if isinstance(error, TypeError):
        return CallerError(f"{uri}: it cannot be opened with these --storage-options ({error})")
    status = http_status(error)
    if isinstance(error, PermissionError) or status in {401, 403}:
        return Forbidden(f"{uri}: access is denied")
    if status is not None and status not in _PASSING_STATUS and code not in _PASSING_CODES:
        return FetchFailed(f"{uri}: the store answers {failure_named(error)}")
    return None


def _is_missing(error: BaseException) -> bool:
    """Whether nothing is there. fsspec's HTTP says so of whatever goes wrong, with what it was as the cause."""
    cause = error.__cause__
    is_about_the_name = cause is None or isinstance(cause, LookupError | FileNotFoundError | ValueError)
    is_missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return is_missing and (is_about_the_name or http_status(cause) in {404, 410})
