"""URI -> bytes and back: ranges read whole or not at all, retries with back-off, atomic puts, create-if-absent.

A path without a scheme is local (see local); everything else lies in a `Store` (see stores). Requests are retried (see
retrying), and the errors of every disk, store and client become the few of failures.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from types import UnionType
from typing import Any

from fsspec import available_protocols

from iqa_core.errors import CallerError, IqaError, RunError
from iqa_core.storage.entries import Entry, Listed
from iqa_core.storage.failures import (
    FetchFailed,
    Forbidden,
    Missing,
    NoSuchStorage,
    Oversized,
    failure_named,
    final_meaning,
    http_status,
)
from iqa_core.storage.local import (
    create_local,
    delete_local,
    local_names,
    put_local,
    read_local,
    stat_local,
    walk_local,
)
from iqa_core.storage.outputs import require_file, require_folder
from iqa_core.storage.retrying import retried
from iqa_core.storage.stores import S3Store, Store, open_store
from iqa_core.storage.uris import canonical, is_local, join, local_path

Kinds = type | UnionType
NO_KINDS: Mapping[str, Kinds] = {}

PART_BYTES = 16 * 2**20
"""Size of one request when a large range of a remote object is read in parallel."""

PARALLEL_PARTS = 8
"""Requests in flight for one large range."""


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
            return read_local(uri, begin, end, max_bytes)
        store, path = self._remote(uri)
        return retried(lambda: store.get(path, begin, end, max_bytes), uri)

    async def blocks(self, uri: str, announce: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
        """An object of S3 as it arrives, in one try; announce: is given its size first, and may raise Oversized.

        Raises what `read` raises. It ends when the caller's task does; close it (`aclosing`) where it is left early.
        """
        try:
            store, path = await asyncio.to_thread(_opened, canonical(uri), self.options)  # the first call imports s3fs
            assert isinstance(store, S3Store)
            async with aclosing(store.blocks(path, announce)) as blocks:
                async for block in blocks:
                    yield block
        except (IqaError, Oversized):
            raise
        except Exception as error:  # as in `retried`
            raise final_meaning(error, uri) or FetchFailed(
                f"{uri}: reading failed with {failure_named(error)}"
            ) from error

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
            put_local(uri, data, scratch)
            return
        store, path = self._remote(uri)
        retried(lambda: store.put(path, data), uri)

    def create(self, uri: str, data: bytes, scratch: str | None = None) -> bool:
        """Put these bytes where nothing lies yet; False if something else did (the other writer's bytes stay).

        Raises FetchFailed or Forbidden where it cannot be written, CallerError on a disk without hard links.
        """
        if is_local(uri):
            return create_local(uri, data, scratch)
        store, path = self._remote(uri)

        def once() -> bool:
            try:
                store.create(path, data)
            except FileExistsError:
                return False
            return True

        # a try whose answer was lost may have put the object: the next try finds these bytes there
        return retried(once, uri) or self.read(uri) == data

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
        """Whether the store refuses to `create` where an object lies: tried on a probe, which is deleted again."""
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
            delete_local(uri)
            return
        store, path = self._remote(uri)
        with suppress(Missing):
            retried(lambda: store.delete(path), uri)

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files directly in a folder or prefix; empty where there is none.

        Raises FetchFailed or Forbidden where it cannot be listed.
        """
        if is_local(folder):
            return local_names(folder)
        try:
            return sorted(listed.path.rsplit("/", 1)[1] for listed in self._listed(folder, is_recursive=False))
        except Missing:
            return []

    def stat(self, uri: str) -> Entry | None:
        """The file or object at exactly this URI; None for a folder or nothing."""
        if is_local(uri):
            return stat_local(uri)
        store, path = self._remote(uri)
        listed = retried(lambda: store.stat(path), uri)
        return None if listed is None else Entry(uri, listed.size, listed.etag)

    def walk(self, folder: str) -> Iterator[Entry]:
        """Every file or object under a folder or prefix, sorted by URI, as a stream.

        Locally, links are followed to files but not to folders; a dangling link is an entry without a size; what is
        neither file nor link (a pipe, a socket) is left out, since reading it may never end.
        Raises CallerError where a store lists in another order, since listings are merged as they come.
        """
        if is_local(folder):
            yield from walk_local(folder)
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
        """Objects page by page; each page is retried by itself, since of 1,000 pages some will fail."""
        store, path = self._remote(folder)
        token: str | None = None
        while True:
            found, token = retried(partial(store.page, path, is_recursive, token), folder)
            yield from found
            if token is None:
                return

    def _remote(self, uri: str) -> tuple[Store, str]:
        """The store of a URI, and the URI's path in it.

        Raises NoSuchStorage, CallerError where a package is missing or the options do not fit, and what `read` raises:
        to open a chain such as `zip://a.png::s3://…`, its container is read.
        """
        uri = canonical(uri)
        scheme = uri.split("://", 1)[0]
        if any(link not in available_protocols() for link in scheme.split("::")):
            raise NoSuchStorage(f"{uri}: there is no storage of the kind {scheme}://")
        return retried(lambda: _opened(uri, self.options), uri)


def _opened(uri: str, options: Mapping[str, Any]) -> tuple[Store, str]:
    """The store of a URI, opened once. An error that is no OSError precedes any request, so it is permanent."""
    try:
        return open_store(uri, options)
    except OSError:
        raise
    except Exception as error:  # of any class, as in `retried`
        raise final_meaning(error, uri) or CallerError(
            f"{uri}: it cannot be opened, or not with these --storage-options ({error})"
        ) from error
