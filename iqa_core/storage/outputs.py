"""A path that a command is to write to -> nothing, or CallerError before anything has run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from iqa_core.errors import CallerError

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable of a driver that `ray job submit` has started."""

PACKAGES = "/runtime_resources/working_dir_files/"
"""Part of the path of the working directory that Ray copies for a submitted job, and deletes after it."""

PROBE_BYTES = 2**16
"""Bytes written to a temporary file as a probe: on a full disk an empty file can still be made."""


def require_lasting(given: str, flag: str = "--output") -> None:
    """Raises CallerError for an empty path, and in a submitted job for a local path that is deleted with the job."""
    if not given:
        raise CallerError(f"{flag} is empty, which would be the current folder; name it")
    is_uri = "://" in given and not given.startswith("file://")
    if is_uri or SUBMITTED not in os.environ:
        return
    path = given.removeprefix("file://")
    if not os.path.isabs(path) or PACKAGES in os.path.realpath(path):
        raise CallerError(
            f"{flag} {given}: in a submitted job this lies in Ray's copy of the working directory, which is deleted "
            "after the job; give an absolute path on a disk that all nodes share, or a URI such as s3://bucket/folder"
        )


def local_output(given: str) -> Path:
    """A flag's value as a path of this machine. Raises CallerError for a URI, which would become a folder `s3:`."""
    if "://" in given:
        raise CallerError(f"--output {given}: this is written to this machine alone; give a path")
    require_lasting(given)
    return Path(given)


def require_folder(path: Path, flag: str = "--output") -> None:
    """Raises CallerError where the folder cannot be made or written into."""
    _require_room(_nearest(path, flag), path, flag)


def require_file(path: Path, flag: str = "--output") -> None:
    """Raises CallerError where a file can neither be created nor replaced."""
    if _nearest(path, flag) == path and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise CallerError(f"{flag} {path}: it is {what}; give the name of a file")
    _require_room(_nearest(path.parent, flag), path, flag)


def _nearest(path: Path, flag: str) -> Path:
    """The path if it exists, else its closest parent that does."""
    try:
        there = next(place for place in (path, *path.parents) if place.exists() or place.is_symlink())
        is_dangling = not there.exists()
    except OSError as error:
        raise CallerError(f"{flag} {path}: nothing can lie at such a place ({error.strerror})") from None
    if is_dangling:
        raise CallerError(f"{flag} {path}: {there} is a link to nothing; remove it, or give another place")
    return there


def _require_room(folder: Path, path: Path, flag: str) -> None:
    if not folder.is_dir():
        raise CallerError(f"{flag} {path}: {folder} is a file; give a folder")
    try:
        # a file is written, since permissions do not show a read-only or a full disk
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
    except OSError as error:
        raise CallerError(f"{flag} {path}: {folder} cannot be written to ({error.strerror})") from None
