"""URI -> bytes and back: ranges read whole or not at all, retries with back-off, atomic puts, create-if-absent.

A path without a scheme is local. Everything else goes through fsspec (`s3://` through s3fs). This module is the one
place that retries: botocore's own retries are turned off, so that a failing request is tried `ATTEMPTS` times and not
`ATTEMPTS` times its library's number.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from iqa_core.errors import CallerError, IqaError, RunError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

ATTEMPTS = 8
"""Tries of one request; with the waits below they span about 30 s, which outlasts a burst of throttling."""

LOCAL_ATTEMPTS = 3
"""Tries of one local read: a disk answers the same every time, a network mount may not."""

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
        "InvalidToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Answers that are about who asks, not about what is asked for: they stop the run."""


class Missing(IqaError):
    """There is nothing at this URI."""


class Forbidden(IqaError):
    """This URI may not be read with these (valid) credentials."""


class FetchFailed(IqaError):
    """Reading failed again and again; another run may succeed."""


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

    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to fsspec for every URI that is not local (endpoint_url, key, secret, …)."""

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes begin..end of the object (its whole length when end is None), in one request.

        Raises Missing and Forbidden at once, FetchFailed after ATTEMPTS tries, RunError where the credentials are at
        fault. A range that comes back short is a failed try, never a result.
        """
        if end is not None and end <= begin:
            return b""

        def once() -> bytes:
            data = self._read_once(uri, begin, end)
            if end is not None and len(data) != end - begin:
                raise OSError(f"{len(data)} of {end - begin} bytes arrived")
            return data

        return _retried(once, uri)

    def read_large(self, uri: str, begin: int, end: int) -> bytes:
        """The same as `read`, in parallel requests of PART_BYTES where the URI is remote."""
        if is_local(uri) or end - begin <= PART_BYTES:
            return self.read(uri, begin, end)
        parts = range(begin, end, PART_BYTES)
        with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
            return b"".join(pool.map(lambda start: self.read(uri, start, min(start + PART_BYTES, end)), parts))

    def put(self, uri: str, data: bytes) -> None:
        """Replace the object with these bytes, in one atomic step."""
        if is_local(uri):
            temporary = _write_temporary(local_path(uri), data)
            os.replace(temporary, local_path(uri))
            _sync_directory(local_path(uri))
            return
        filesystem, path = self._remote(uri)
        _retried(lambda: filesystem.pipe_file(path, data), uri)

    def create(self, uri: str, data: bytes) -> bool:
        """Put these bytes where nothing lies yet; False if something did (the other writer's bytes stay)."""
        if is_local(uri):
            temporary = _write_temporary(local_path(uri), data)
            try:
                os.link(temporary, local_path(uri))
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary)
            _sync_directory(local_path(uri))
            return True
        filesystem, path = self._remote(uri)

        def once() -> bool:
            try:
                filesystem.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if _response_code(error) in {"PreconditionFailed", "ConditionalRequestConflict"}:
                    return False
                raise
            return True

        return _retried(once, uri)

    def delete(self, uri: str) -> None:
        """Remove the object; nothing happens where there is none."""
        try:
            if is_local(uri):
                local_path(uri).unlink()
            else:
                filesystem, path = self._remote(uri)
                _retried(lambda: filesystem.rm_file(path), uri)
        except (FileNotFoundError, Missing):
            pass

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files directly in a folder or prefix; empty where there is none."""
        if is_local(folder):
            try:
                return sorted(entry.name for entry in os.scandir(local_path(folder)) if entry.is_file())
            except FileNotFoundError:
                return []
        filesystem, path = self._remote(folder)
        try:
            found = _retried(lambda: filesystem.ls(path.rstrip("/") + "/", detail=True, refresh=True), folder)
        except Missing:
            return []
        return sorted(item["name"].rsplit("/", 1)[1] for item in found if item["type"] == "file")

    def stat(self, uri: str) -> Entry | None:
        """The file or object at exactly this URI; None for a folder or nothing."""
        if is_local(uri):
            path = local_path(uri)
            return _local_entry(uri, path) if path.is_file() else None
        filesystem, path = self._remote(uri)
        try:
            info = _retried(lambda: filesystem.info(path, refresh=True), uri)
        except Missing:
            return None
        return _remote_entry(uri, info) if info["type"] == "file" else None

    def walk(self, folder: str) -> Iterator[Entry]:
        """Every file or object under a folder or prefix, sorted by URI.

        Locally, links are followed to files but not to folders; a dangling link is an entry without a size; what is
        neither file nor link (a pipe, a socket) is left out, since reading it may never end.
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
        filesystem, path = self._remote(folder)
        root = path.rstrip("/") + "/"
        found = _retried(lambda: filesystem.find(root, detail=True), folder)
        scheme = folder.split("://", 1)[0]
        for name in sorted(found):
            yield _remote_entry(f"{scheme}://{name.lstrip('/')}", found[name])

    def _read_once(self, uri: str, begin: int, end: int | None) -> bytes:
        if is_local(uri):
            with local_path(uri).open("rb") as file:
                file.seek(begin)
                return file.read() if end is None else file.read(end - begin)
        filesystem, path = self._remote(uri)
        if begin == 0 and end is None:
            # s3fs would first ask for the size, to read in parallel: one request more for every image of a list
            whole: bytes = filesystem.cat_file(path, **({"max_concurrency": 1} if _is_s3(filesystem) else {}))
            return whole
        part: bytes = filesystem.cat_file(path, start=begin, end=end)
        return part

    def _remote(self, uri: str) -> tuple[AbstractFileSystem, str]:
        from fsspec.core import url_to_fs

        try:
            filesystem, path = url_to_fs(uri, **_with_defaults(uri, self.options))
        except (ValueError, ImportError) as error:
            raise CallerError(f"{uri}: {error}") from error
        return filesystem, path


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path behind a local URI; `file://` URIs are percent-decoded, plain paths are taken as they are."""
    if uri.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    return Path(uri)


def absolute(uri: str) -> str:
    """The URI without a trailing slash; a relative local path made absolute."""
    if is_local(uri):
        return local_uri(os.fsencode(os.path.abspath(local_path(uri))))
    return uri.rstrip("/")


def join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def local_uri(path: bytes) -> str:
    """The path as text; a name that is no UTF-8 becomes a percent-encoded `file://` URI, since tables hold UTF-8."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(path)


def _walk_local(folder: bytes) -> Iterator[Entry]:
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name + (b"/" if _is_folder(entry) else b""))
    except OSError as error:
        raise CallerError(f"{local_uri(folder)}: it cannot be listed ({error.strerror})") from error
    for entry in found:
        if _is_folder(entry):
            yield from _walk_local(entry.path)
        elif entry.is_symlink() or entry.is_file():
            path = Path(os.fsdecode(entry.path))
            if path.is_file():
                yield _local_entry(local_uri(entry.path), path)
            elif not path.exists():
                yield Entry(local_uri(entry.path), None, "")


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _local_entry(uri: str, path: Path) -> Entry:
    status = path.stat()
    return Entry(uri, status.st_size, str(status.st_mtime_ns))


def _remote_entry(uri: str, info: Mapping[str, Any]) -> Entry:
    etag = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or ""
    return Entry(uri, info.get("size"), str(etag).strip('"'))


def _write_temporary(target: Path, data: bytes) -> Path:
    """The bytes in a file of their own on the same disk, outside the target's folder, and synced."""
    folder = target.parent.parent / ".tmp"
    folder.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder / uuid.uuid4().hex
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_directory(target: Path) -> None:
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_s3(filesystem: AbstractFileSystem) -> bool:
    return "s3" in filesystem.protocol


def _with_defaults(uri: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if not uri.startswith(("s3://", "s3a://")):
        return dict(options)
    config = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
    merged = {"use_listings_cache": False, **options}
    merged["config_kwargs"] = {**config, **options.get("config_kwargs", {})}
    return merged


def _retried(once: Callable[[], T], uri: str) -> T:
    attempts = LOCAL_ATTEMPTS if is_local(uri) else ATTEMPTS
    for attempt in range(attempts):
        try:
            return once()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise Missing(f"{uri}: there is no such file") from error
        except PermissionError as error:
            code = _response_code(error)
            if code in _CREDENTIAL_CODES:
                raise RunError(
                    f"{uri}: the credentials are refused ({code}); renew them and run the same command"
                ) from error
            raise Forbidden(f"{uri}: access is denied") from error
        except Exception as error:
            if _are_no_credentials(error):
                raise RunError(f"{uri}: no usable credentials ({error}); set them and run the same command") from error
            if attempt == attempts - 1:
                raise FetchFailed(f"{uri}: {attempts} tries failed, the last with {type(error).__name__}") from error
        # full jitter, so that many readers that were throttled together do not come back together
        time.sleep(random.uniform(0, min(8.0, 0.25 * 2**attempt)))
    raise AssertionError("unreachable")


def _response_code(error: BaseException | None) -> str | None:
    """The object store's own error code, wherever in the chain of causes it stands."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code"))
        error = error.__cause__
    return None


def _are_no_credentials(error: BaseException) -> bool:
    code = _response_code(error)
    names = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
    return type(error).__name__ in names or code in _CREDENTIAL_CODES
