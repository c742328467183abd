"""Inputs that reach one image by several ways -> one of these ways, so that it gets one row.

A folder is known by what the file system knows it by (device and number), so links to it, other spellings and bind
mounts are the same. An image is known by its folder and its name there. What this cannot tell is in docs/inputs.md.
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
"""Whose numbers are kept: files of one folder follow one another in a listing."""

Place = tuple[int, int]
"""Device and number of a folder."""

PlaceOf = Callable[[bytes], Place | None]


def distinct_inputs(inputs: Sequence[str]) -> list[str]:
    """Their URIs, each place once: what lies in the folder of another input is spelt as from there, by the first."""
    given = list(dict.fromkeys(map(absolute, inputs)))
    folders: dict[Place, str] = {}
    files: dict[str, str] = {}
    schemes: dict[str, str] = {}
    for uri in given:
        if is_local(uri) and (place := _place_of(_path(uri))) is not None:
            folders.setdefault(place, uri)
    return list(dict.fromkeys(_respelt(uri, folders, files, schemes) for uri in given))


def _respelt(uri: str, folders: dict[Place, str], files: dict[str, str], schemes: dict[str, str]) -> str:
    if uri.startswith(S3_SCHEMES):
        scheme, _, rest = uri.partition("://")
        return f"{schemes.setdefault(rest.partition('/')[0], scheme)}://{rest}"
    if not is_local(uri):
        return uri
    real: bytes = os.path.realpath(_path(uri))
    if _place_of(real) is None and extension(os.fsdecode(real)) != extension(uri):
        return uri  # a link to a file that is known by the link's name alone
    for above in _from_the_root(real):
        place = _place_of(above)
        if place is not None and (root := folders.get(place)) is not None:
            below = real[len(above) :].lstrip(b"/")
            return local_uri(os.path.join(_path(root), below)) if below else root
    return uri if _place_of(real) is not None else files.setdefault(local_uri(real), uri)


def lies_in(uri: str, folder: str) -> bool:
    """Whether it is the folder, or lies in it, or will, by whatever names."""
    if is_local(uri) and is_local(folder):
        uri, folder = (local_uri(os.path.realpath(_path(place))) for place in (uri, folder))
    return uri == folder or uri.startswith(folder.rstrip("/") + "/")


def without_listed(
    sources: Iterable[Source], storage: Storage, inputs: Sequence[str], options: ReadOptions, kept: Collection[str]
) -> Iterator[Source]:
    """The sources but for loose images that a list among the inputs names: their rows are there, with its columns.

    kept: URIs of those that stay all the same; looked at when each comes.
    In memory are 16 bytes for each row of these lists, read when the first loose image comes.
    """
    place_of = lru_cache(FOLDERS_KNOWN)(_place_of)
    listed: NDArray[np.bytes_] | None = None
    for source in sources:
        if source.kind is Kind.IMAGE and source.uri not in kept:
            if listed is None:
                listed = _listed(storage, inputs, options, place_of)
            if len(listed) and _has(listed, _digest(source.uri, place_of)):
                continue
        yield source


def _listed(storage: Storage, inputs: Sequence[str], options: ReadOptions, place_of: PlaceOf) -> NDArray[np.bytes_]:
    """Digests of all images that lists name, sorted."""
    found = bytearray()
    for given in inputs:
        if extension(given) not in LIST_EXTENSIONS or (entry := storage.stat(given)) is None:
            continue
        with suppress(Missing, Forbidden, FetchFailed):  # it is told where it is planned
            for uri in image_uris(storage, given, entry.size or 0, options):
                found += _digest(uri, place_of)
    return np.sort(np.frombuffer(bytes(found), "S16"))


def _has(sorted_N: NDArray[np.bytes_], digest: bytes) -> bool:
    wanted = np.frombuffer(digest, "S16")
    place = int(np.searchsorted(sorted_N, wanted)[0])
    return place < len(sorted_N) and bool(sorted_N[place] == wanted[0])


def _digest(uri: str, place_of: PlaceOf) -> bytes:
    """Of what it is known by; 16 bytes, of which no two are the same by chance."""
    if is_local(uri):
        folder, name = os.path.split(_path(absolute(uri)))
        known = b"%r/%s" % (place_of(folder) or folder, name)
    else:
        known = uri.replace("s3a://", "s3://", 1).encode("utf-8", "surrogatepass")
    return blake2b(known, digest_size=16).digest()


def _path(uri: str) -> bytes:
    return os.fsencode(local_path(uri))


def _from_the_root(path: bytes) -> Iterator[bytes]:
    """All folders above it and itself, the outermost first."""
    cuts = [at for at, byte in enumerate(path) if byte == ord("/") and at]
    yield from (b"/", *(path[:cut] for cut in cuts), path)


def _place_of(path: bytes) -> Place | None:
    """None for what is no folder, or nothing that can be looked at."""
    try:
        return (found.st_dev, found.st_ino) if os.path.isdir(path) and (found := os.stat(path)).st_ino else None
    except (OSError, ValueError):
        return None
