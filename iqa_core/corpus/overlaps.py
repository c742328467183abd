"""Inputs that overlap -> sources in which each image comes once, so that it gets one row.

A folder is identified by its device and inode, so links to it, other spellings and bind mounts are the same folder. An
image is identified by its folder and its name there. What this cannot tell apart is in docs/inputs.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.readers.lists import image_uris
from iqa_core.corpus.sources import LIST_EXTENSIONS, Kind, Source, extension
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing
from iqa_core.storage.storage import Storage
from iqa_core.storage.stores import S3_SCHEMES
from iqa_core.storage.uris import absolute, is_local, local_path, local_uri

FOLDERS_KNOWN = 65_536
"""Folders whose device and inode are kept: files of one folder follow one another in a listing."""

FolderId = tuple[int, int]
"""Device and inode of a folder."""

FolderIdOf = Callable[[bytes], FolderId | None]
"""A path -> its folder id, None for what is no folder."""


def distinct_inputs(inputs: Sequence[str]) -> list[str]:
    """Absolute URIs of the inputs, each file and folder once, in order.

    An input inside another input's folder is spelt as a path below that folder, by the folder's first spelling.
    """
    given = list(dict.fromkeys(map(absolute, inputs)))
    folders: dict[FolderId, str] = {}
    files: dict[str, str] = {}
    schemes: dict[str, str] = {}
    for uri in given:
        if is_local(uri) and (found := _folder_id(_path(uri))) is not None:
            folders.setdefault(found, uri)
    return list(dict.fromkeys(_respelt(uri, folders, files, schemes) for uri in given))


def _respelt(uri: str, folders: dict[FolderId, str], files: dict[str, str], schemes: dict[str, str]) -> str:
    if uri.startswith(S3_SCHEMES):
        scheme, _, rest = uri.partition("://")
        return f"{schemes.setdefault(rest.partition('/')[0], scheme)}://{rest}"
    if not is_local(uri):
        return uri
    real: bytes = os.path.realpath(_path(uri))
    if _folder_id(real) is None and extension(os.fsdecode(real)) != extension(uri):
        return uri  # a link whose own extension says what the file is
    for above in _from_the_root(real):
        found = _folder_id(above)
        if found is not None and (root := folders.get(found)) is not None:
            below = real[len(above) :].lstrip(b"/")
            return local_uri(os.path.join(_path(root), below)) if below else root
    return uri if _folder_id(real) is not None else files.setdefault(local_uri(real), uri)


def lies_in(uri: str, folder: str) -> bool:
    """Whether a URI, which need not exist yet, is the folder or lies below it; links are followed."""
    if is_local(uri) and is_local(folder):
        uri, folder = (local_uri(os.path.realpath(_path(place))) for place in (uri, folder))
    return uri == folder or uri.startswith(folder.rstrip("/") + "/")


def without_listed(
    sources: Iterable[Source], storage: Storage, inputs: Sequence[str], options: ReadOptions, kept: Collection[str]
) -> Iterator[Source]:
    """The sources without the loose images that a list among the inputs names: the list gives them their rows.

    kept: URIs of images that stay in any case; looked up when each comes.
    Memory: 16 bytes for each row of these lists, which are read when the first loose image comes.
    """
    folder_id_of = lru_cache(FOLDERS_KNOWN)(_folder_id)
    listed: NDArray[np.bytes_] | None = None
    for source in sources:
        if source.kind is Kind.IMAGE and source.uri not in kept:
            if listed is None:
                listed = _listed(storage, inputs, options, folder_id_of)
            if len(listed) and _has(listed, _digest(source.uri, folder_id_of)):
                continue
        yield source


def _listed(
    storage: Storage, inputs: Sequence[str], options: ReadOptions, folder_id_of: FolderIdOf
) -> NDArray[np.bytes_]:
    """Sorted digests of all images that the lists among the inputs name."""
    found = bytearray()
    for given in inputs:
        if extension(given) not in LIST_EXTENSIONS or (entry := storage.stat(given)) is None:
            continue
        with suppress(Missing, Forbidden, FetchFailed):  # planning reports it
            for uri in image_uris(storage, given, entry.size or 0, options):
                found += _digest(uri, folder_id_of)
    return np.sort(np.frombuffer(bytes(found), "S16"))


def _has(sorted_N: NDArray[np.bytes_], digest: bytes) -> bool:
    wanted = np.frombuffer(digest, "S16")
    place = int(np.searchsorted(sorted_N, wanted)[0])
    return place < len(sorted_N) and bool(sorted_N[place] == wanted[0])


def _digest(uri: str, folder_id_of: FolderIdOf) -> bytes:
    """16 bytes that identify an image: by folder and name where it is local, else by its URI."""
    if is_local(uri):
        folder, name = os.path.split(_path(absolute(uri)))
        known = b"%r/%s" % (folder_id_of(folder) or folder, name)
    else:
        known = uri.replace("s3a://", "s3://", 1).encode("utf-8", "surrogatepass")
    return blake2b(known, digest_size=16).digest()


def _path(uri: str) -> bytes:
    return os.fsencode(local_path(uri))


def _from_the_root(path: bytes) -> Iterator[bytes]:
    """All folders above a path, the outermost first, and the path itself."""
    cuts = [at for at, byte in enumerate(path) if byte == ord("/") and at]
    yield from (b"/", *(path[:cut] for cut in cuts), path)


def _folder_id(path: bytes) -> FolderId | None:
    """Device and inode; None for what is no folder, or cannot be looked at."""
    try:
        return (found.st_dev, found.st_ino) if os.path.isdir(path) and (found := os.stat(path)).st_ino else None
    except (OSError, ValueError):
        return None
