"""A URI with a scheme -> single requests to the store behind it, each tried once; an answer that is short is an error.

S3 is spoken to request by request through s3fs: one GET per object without asking for its size first, one LIST per
thousand names, one PUT per object. Every other scheme goes through fsspec's general interface.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from fsspec import AbstractFileSystem, filesystem
from fsspec.asyn import sync
from fsspec.core import url_to_fs

from iqa_core.storage.entries import Listed
from iqa_core.storage.failures import check_size, error_code

T = TypeVar("T")

S3_SCHEMES = ("s3://", "s3a://")
WITHOUT_OPTIONS = ("http://", "https://", "file://")

S3_CONFIG = {
    "retries": {"total_max_attempts": 1},
    "connect_timeout": 10,
    "read_timeout": 60,
    "max_pool_connections": 32,
}
"""The caller retries. Timeouts in seconds. botocore's default of 10 connections would hold readers up."""

STREAMED_BYTES = 256 * 1024
"""Largest block of a streamed object: each one is a hop between two event loops, 0.1 ms."""


class Store(Protocol):
    """One request per call. Raises whatever the library raises; FileNotFoundError and PermissionError as such."""

    def get(self, path: str, begin: int, end: int | None, max_bytes: int | None) -> bytes:
        """All bytes begin..end. Raises Shorter if it ends before, Oversized if max_bytes is given and it has more."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Replace the object."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Put an object where none lies. Raises FileExistsError if one does."""
        ...

    def delete(self, path: str) -> None:
        """Remove the object."""
        ...

    def stat(self, path: str) -> Listed | None:
        """The object; None for a folder or nothing."""
        ...

    def page(self, folder: str, is_recursive: bool, token: str | None) -> tuple[list[Listed], str | None]:
        """Objects under a folder, or directly in it, and the token of the next page; sorted over all pages."""
        ...


def open_store(uri: str, options: Mapping[str, Any]) -> tuple[Store, str]:
    """The store of a URI, and the URI's path in it. Raises what fsspec raises on options that do not fit."""
    if uri.startswith(S3_SCHEMES):
        return S3Store(options, is_versioned="?versionId=" in uri), uri.split("://", 1)[1]
    found, path = file_system(uri, options)
    return FsspecStore(found), path


def file_system(uri: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of a URI, and the URI's path in it. Raises what fsspec raises on options that do not fit.

    The options are a bucket's: its endpoint and keys are none of the web's business, nor of a disk's.
    """
    found: tuple[AbstractFileSystem, str] = url_to_fs(uri, **({} if uri.startswith(WITHOUT_OPTIONS) else options))
    return found


class S3Store:
    """Amazon S3 and stores that speak its protocol; the methods are those of `Store`."""

    def __init__(self, options: Mapping[str, Any], is_versioned: bool) -> None:
        versioned = {"version_aware": True} if is_versioned else {}
        config = {**S3_CONFIG, **options.get("config_kwargs", {})}
        merged = {"use_listings_cache": False, **versioned, **options, "config_kwargs": config}
        self._s3 = filesystem("s3", **merged)
        if self._s3.session is None:
            self._s3.session = _session(self._s3.kwargs)
        # s3fs would try each request in two nested loops of 5, inside the caller's own
        self._s3.retries = 1

    def get(self, path: str, begin: int, end: int | None, max_bytes: int | None) -> bytes:
        """Bytes begin..end, in one request; also raises OSError where fewer arrive."""
        data: bytes = sync(self._s3.loop, self._get, path, begin, end, max_bytes)
        return data

    async def _get(self, path: str, begin: int, end: int | None, max_bytes: int | None) -> bytes:
        answer = await self._ranged(path, begin, end)
        if answer is None:
            return b""
        body = answer["Body"]
        try:
            size = _size_of(answer)
            check_size(size, end, max_bytes)
            data: bytes = await body.read()
        finally:
            body.close()
        expected = (size if end is None else end) - begin
        if len(data) != expected:
            raise OSError(f"{len(data)} of {expected} bytes arrived")
        return data

    async def _ranged(self, path: str, begin: int, end: int | None) -> Mapping[str, Any] | None:
        """The answer to a request for a range; None for the whole of an empty object, which has no first byte.

        A range is asked for even where the whole is wanted: only then does the answer give the object's length.
        """
        last = "" if end is None else end - 1
        try:
            answer: Mapping[str, Any] = await self._s3._call_s3(
                "get_object", Range=f"bytes={begin}-{last}", **self._at(path)
            )
        except OSError as error:
            if error_code(error) in {"InvalidRange", "416"} and begin == 0 and end is None:
                return None
            raise
        return answer

    async def blocks(self, path: str, announce: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
        """An object as it arrives, in the caller's event loop; announce: is given its size before anything is read.

        The requests run in the loop of s3fs, and end when the caller's task does. Raises OSError for a short answer.
        """
        answer = await self._in_loop(self._ranged(path, 0, None))
        if answer is None:
            return
        body, size, arrived = answer["Body"], _size_of(answer), 0
        try:
            announce(size)
            while block := await self._in_loop(body.read(STREAMED_BYTES)):
                arrived += len(block)
                yield block
        finally:
            self._s3.loop.call_soon_threadsafe(body.close)
        if arrived != size:
            raise OSError(f"{arrived} of {size} bytes arrived")

    async def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._s3.loop))

    def put(self, path: str, data: bytes) -> None:
        self._s3.call_s3("put_object", Body=data, **self._at(path))

    def create(self, path: str, data: bytes) -> None:
        try:
            self._s3.call_s3("put_object", Body=data, IfNoneMatch="*", **self._at(path))
        except OSError as error:
            if error_code(error) in {"PreconditionFailed", "412"}:
                raise FileExistsError(path) from error
            raise

    def delete(self, path: str) -> None:
        self._s3.call_s3("delete_object", **self._at(path))

    def stat(self, path: str) -> Listed | None:
        if "/" not in path.rstrip("/"):
            return None  # a bucket
        try:
            head = self._s3.call_s3("head_object", **self._at(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error_code(error) in {"400", "403"}:
                self.get(path, 0, 1, None)  # an answer to HEAD has no body to say why; this raises with the reason
            raise
        return Listed(path, head["ContentLength"], head.get("ETag", "").strip('"'))

    def page(self, folder: str, is_recursive: bool, token: str | None) -> tuple[list[Listed], str | None]:
        """One page of at most 1,000 objects; also raises OSError for an answer without content."""
        bucket, key, _ = self._s3.split_path(folder)
        within = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else ""}
        if not is_recursive:
            within["Delimiter"] = "/"
        if token is not None:
            within["ContinuationToken"] = token
        answer = self._s3.call_s3("list_objects_v2", **within)
        if "IsTruncated" not in answer:
            raise OSError("the answer to a listing has no content")
        found = [
            Listed(f"{bucket}/{item['Key']}", item["Size"], item.get("ETag", "").strip('"'))
            for item in answer.get("Contents", ())
            if not item["Key"].endswith("/")  # the mark of an empty folder
        ]
        return found, answer.get("NextContinuationToken")

    def _at(self, path: str) -> dict[str, str]:
        bucket, key, version = self._s3.split_path(path)
        return {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}


def _session(settings: Mapping[str, Any]) -> Any:
    """The session that s3fs would make, with a faster parser of dates: the 1,000 of a listing take botocore 100 ms."""
    from aiobotocore.session import AioSession

    session = AioSession(**settings)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_date)
    return session


def read_date(text: Any) -> datetime:
    """A date as S3 writes it in bodies (ISO 8601) or headers (HTTP), or seconds since 1970."""
    from botocore.utils import parse_timestamp

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        found: datetime = parse_timestamp(text)
        return found


class FsspecStore:
    """Any other store, through fsspec's general interface; the methods are those of `Store`."""

    def __init__(self, found: AbstractFileSystem) -> None:
        self._files = found

    def get(self, path: str, begin: int, end: int | None, max_bytes: int | None) -> bytes:
        """Bytes begin..end; also raises OSError where fewer arrive."""
        if end is None:
            end = self._files.info(path)["size"]
            check_size(end, None, max_bytes)
        data: bytes = self._files.cat_file(path, start=begin, end=end)
        if end is not None and len(data) != end - begin:
            raise OSError(f"{len(data)} of {end - begin} bytes arrived")
        return data

    def put(self, path: str, data: bytes) -> None:
        self._files.pipe_file(path, data)

    def create(self, path: str, data: bytes) -> None:
        self._files.pipe_file(path, data, mode="create")

    def delete(self, path: str) -> None:
        self._files.rm_file(path)

    def stat(self, path: str) -> Listed | None:
        self._files.invalidate_cache()
        try:
            return _listed(self._files.info(path))
        except FileNotFoundError:
            return None

    def page(self, folder: str, is_recursive: bool, token: str | None) -> tuple[list[Listed], str | None]:
        self._files.invalidate_cache()
        files = self._files
        infos = files.find(folder, detail=True).values() if is_recursive else files.ls(folder, detail=True)
        found = [listed for info in infos if (listed := _listed(info)) is not None]
        return sorted(found, key=lambda listed: listed.path), None


def _size_of(answer: Mapping[str, Any]) -> int:
    """Size of the whole object in bytes; the answer holds a range of it, or all where a server ignores ranges."""
    whole = answer.get("ContentRange", "").rpartition("/")[2]
    return int(whole) if whole.isdigit() else int(answer["ContentLength"])


def _listed(info: Mapping[str, Any]) -> Listed | None:
    """None for a folder."""
    if info["type"] != "file":
        return None
    etag = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("created") or ""
    return Listed(info["name"], info.get("size"), str(etag).strip('"'))
