"""URIs and local paths -> their canonical form, and the paths behind local ones."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

_FILE = re.compile(r"file:(?://localhost(?=/)|(?=/(?!/)))", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.:-]*(?=://)", re.IGNORECASE)
_WINDOWS = re.compile(r"(^|/)[a-z]:[\\/]|\\", re.IGNORECASE)

SCRATCH = ".tmp"
"""Name of the folder in which files lie until they are whole."""


def canonical(uri: str) -> str:
    """The URI with its scheme in lower case; `file:/path` and `file://localhost/path` as `file:///path`."""
    if match := _FILE.match(uri):
        return f"file://{uri[match.end() :]}"
    match = _SCHEME.match(uri)
    return f"{match[0].lower()}{uri[match.end() :]}" if match else uri


def windows_hint(uri: str) -> str:
    """The end of a message about a URI where nothing lies: a hint if it looks like a Windows path, else empty."""
    return "; a Windows path leads nowhere here" if _WINDOWS.search(uri) else ""


def is_local(uri: str) -> bool:
    """Whether it is a plain path or a `file:` URI."""
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
    """URI of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def scratch_of(output: str) -> str:
    """Folder of an output in which local files lie until they are whole: on the same disk, outside its tables."""
    return join(output, SCRATCH)


def local_uri(path: bytes) -> str:
    """The path as text; a name that is no UTF-8 becomes a percent-encoded `file://` URI, since tables hold UTF-8."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return "file://" + quote_from_bytes(path)
