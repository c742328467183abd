"""Members -> tars, byte for byte as archivers write them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

Entry = tuple[str, bytes] | tarfile.TarInfo
"""Name and content, or a member without content (a link, a folder, a pipe)."""


def tar_bytes(entries: Iterable[Entry], format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                name, data = entry
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, entries: Iterable[Entry], format: int = tarfile.USTAR_FORMAT) -> Path:
    path.write_bytes(tar_bytes(entries, format))
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, to
    return header
