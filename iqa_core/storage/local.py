"""Local URIs -> bytes and back: atomic puts, create-if-absent by hard links, walks sorted as URIs are."""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.storage.entries import Entry
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing, check_size
from iqa_core.storage.retrying import retried
from iqa_core.storage.uris import SCRATCH, local_path, local_uri, windows_hint

ABANDONED_S = 24 * 3600.0
"""Age in seconds after which a temporary file is abandoned: it lives for seconds, while it is written and synced. A run
that is paused for a day loses that one file, says so, and ends as if the disk were full."""

_TEMPORARY = re.compile("[0-9a-f]{32}")

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""Error numbers of FAT, CIFS and some FUSE file systems where a hard link is asked for."""


def read_local(uri: str, begin: int, end: int | None, max_bytes: int | None) -> bytes:
    """Bytes begin..end of the file, see `Storage.read`."""
    return retried(lambda: _read(local_path(uri), begin, end, max_bytes), uri)


def put_local(uri: str, data: bytes, scratch: str | None) -> None:
    """Replace the file, see `Storage.put`."""
    with _writing(uri), _temporary(local_path(uri), data, scratch) as temporary:
        os.replace(temporary, local_path(uri))
        _sync_directory(local_path(uri))


def create_local(uri: str, data: bytes, scratch: str | None) -> bool:
    """Whether the file was created, see `Storage.create`. Raises CallerError on a file system without hard links."""
    with _writing(uri):
        return _create(local_path(uri), data, scratch)


def delete_local(uri: str) -> None:
    """Remove the file; nothing happens where there is none."""
    with _writing(uri):
        local_path(uri).unlink(missing_ok=True)


def local_names(folder: str) -> list[str]:
    """Sorted names of the files directly in a folder; empty where there is none. Raises FetchFailed."""
    try:
        return sorted(entry.name for entry in os.scandir(local_path(folder)) if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise FetchFailed(f"{folder}: it cannot be listed ({error.strerror})") from error


def stat_local(uri: str) -> Entry | None:
    """The file at exactly this URI; None for a folder or nothing."""
    try:
        return _entry(uri, local_path(uri)) if retried(local_path(uri).exists, uri) else None
    except Missing:
        return None


def walk_local(folder: str) -> Iterator[Entry]:
    """Every file and link to one under a folder, sorted by URI, see `Storage.walk`."""
    # `file://` URIs (names that are no UTF-8) sort behind plain paths, so they are held back to the end
    escaped = []
    for entry in _walked(os.fsencode(local_path(folder))):
        if entry.uri.startswith("file://"):
            escaped.append(entry)
        else:
            yield entry
    yield from sorted(escaped, key=lambda entry: entry.uri)


def _walked(folder: bytes) -> Iterator[Entry]:
    """Files, and links to files, under a folder.

    A stack of iterators, one per open folder, instead of recursion: a tool that followed a link into itself has left
    folders thousands deep, beyond Python's recursion limit.
    """
    stack = [iter(_scanned(folder))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif _is_folder(entry):
            stack.append(iter(_scanned(entry.path)))
        elif entry.is_symlink() or entry.is_file():
            found = _entry(local_uri(entry.path), Path(os.fsdecode(entry.path)))
            if found is not None:
                yield found


def _scanned(folder: bytes) -> list[os.DirEntry[bytes]]:
    """Entries of a folder, sorted as their URIs are. Raises CallerError where it cannot be listed."""
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


def _entry(uri: str, path: Path) -> Entry | None:
    """A regular file; None for anything else. It has no size where it cannot be looked at (a dangling link)."""
    try:
        status = path.stat()
    except OSError:
        return Entry(uri, None, "")
    return Entry(uri, status.st_size, str(status.st_mtime_ns)) if stat.S_ISREG(status.st_mode) else None


def _read(path: Path, begin: int, end: int | None, max_bytes: int | None) -> bytes:
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


def _create(path: Path, data: bytes, scratch: str | None) -> bool:
    with _temporary(path, data, scratch) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS raises this also for a link that it has just made, where its answer was lost and the request repeated
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
def _writing(uri: str) -> Iterator[None]:
    """Inside, an OSError of the disk becomes Forbidden or FetchFailed, as one of a store does."""
    try:
        yield
    except OSError as error:
        kind = Forbidden if isinstance(error, PermissionError) else FetchFailed
        raise kind(f"{uri}: it cannot be written ({error.strerror or error})") from error


@contextmanager
def _temporary(target: Path, data: bytes, scratch: str | None) -> Iterator[Path]:
    """A new file with these bytes, synced; it is deleted afterwards, whatever happens."""
    folder = local_path(scratch) if scratch is not None else target.parent / SCRATCH
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
    """Create a folder and its missing parents; `Path.mkdir` would recurse once per level."""
    missing = list(takewhile(lambda place: not place.is_dir(), (path, *path.parents)))
    for place in reversed(missing):
        place.mkdir(exist_ok=True)


def _remove_abandoned(folder: Path, now: float) -> None:
    """Delete temporary files of killed runs. now: by the disk's clock, which may be another machine's."""
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
