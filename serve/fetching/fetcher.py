"""Allowed URIs of one request -> their bytes, or the rejection that takes an image's place.

Over HTTP the name is resolved once, every address it has must be public, and the connection goes to that very address:
a name that points into the network of the endpoint, or changes its mind in between, leads nowhere. A rule that names an
address itself (http://10.0.0.5/) has said what it wants. Redirects are not followed.

All of it runs in the event loop: a fetch holds no thread, and ends where its clock or its caller says so.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from starlette.types import Receive

from iqa_core.corpus.fetching import unread
from iqa_core.errors import IqaError
from iqa_core.records import Reason, Rejection
from iqa_core.storage.failures import FetchFailed, Forbidden, Missing, Oversized, failure_named
from iqa_core.storage.storage import Storage
from serve.admission.places import Admission
from serve.fetching.download import BadAnswer, download
from serve.fetching.public_addresses import Names, NotPublic
from serve.protocol.bodies import EncodedImage
from serve.settings import ServeSettings
from serve.sharing.shares import Shares
from serve.sharing.side_by_side import all_of, while_there
from serve.uri_rules import FetchableUri, UriRule, allowed

NOT_ALLOWED = Rejection(Reason.FORBIDDEN, "this endpoint does not fetch that URI; send the image itself")

S3_OPTIONS = {"config_kwargs": {"retries": {"total_max_attempts": 4}}}
"""A few tries by botocore itself, which waits without a thread and can be ended."""


class Allowance:
    """Bytes that the images of one request may have together, the request's body among them.

    What an image announces is set aside at once, so that of images that do not fit together some do; the request's
    admission grows with what arrives.
    """

    def __init__(self, admission: Admission, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._admission = admission
        self._free = max_bytes - admission.num_bytes
        self._held = self._most_held = 0

    @contextmanager
    def part(self) -> Iterator[ImageAllowance]:
        """One image's part of the allowance, given back unless the image is kept."""
        part = ImageAllowance(self)
        try:
            yield part
        finally:
            if not part.is_kept:
                self._free += part.set_aside
                self._held -= part.arrived

    def set_aside(self, num_bytes: int) -> None:
        """Reserve bytes for an image. Raises Oversized where not so many are left."""
        if num_bytes > self._free:
            raise Oversized(num_bytes)
        self._free -= num_bytes

    def hold(self, num_bytes: int) -> None:
        """Count bytes that have arrived. Raises Refusal (429) where the caller holds too many."""
        self._held += num_bytes
        if self._held > self._most_held:
            self._admission.grow(self._held - self._most_held)
            self._most_held = self._held


@dataclass(slots=True)
class ImageAllowance:
    """The bytes of one image, as part of its request's allowance."""

    whole: Allowance
    set_aside: int = 0
    arrived: int = 0
    is_kept: bool = False

    def announce(self, num_bytes: int) -> None:
        """Set aside what the image will hold in all. Raises Oversized where that does not fit."""
        if num_bytes > self.set_aside:
            self.whole.set_aside(num_bytes - self.set_aside)
            self.set_aside = num_bytes

    def add(self, num_bytes: int) -> None:
        """Count bytes that have arrived. Raises Refusal (429) where the caller holds too many."""
        self.arrived += num_bytes
        self.whole.hold(num_bytes)


class Fetcher:
    """What an ingress fetches for its callers. Lives in one event loop."""

    def __init__(self, settings: ServeSettings, storage: Storage | None = None) -> None:
        """storage: for s3; default: by the credentials of this process."""
        self._settings = settings
        self._turns = Shares(settings.max_fetches)
        self._storage = storage or Storage(S3_OPTIONS)
        self._rules = tuple(UriRule.parse(prefix) for prefix in settings.uri_allow)
        self._names = Names()
        speaks_tls = any(rule.scheme == "https" for rule in self._rules)
        self._tls = ssl.create_default_context() if speaks_tls else None  # 30 ms, for the system's authorities

    async def bytes_of(
        self, images: Sequence[EncodedImage], admission: Admission, receive: Receive
    ) -> list[bytes | Rejection]:
        """One result per image, in order. What is fetched counts like the body of the request, and beside it.

        Raises Refusal where the caller holds too much (429), or has left (400).
        """
        if all(image.uri is None for image in images):
            return [image.data or b"" for image in images]
        allowance = Allowance(admission, self._settings.max_body_bytes)
        return await while_there(receive, all_of(self._image(image, admission, allowance) for image in images))

    async def _image(self, image: EncodedImage, admission: Admission, allowance: Allowance) -> bytes | Rejection:
        if image.uri is None:
            return image.data or b""
        found = allowed(image.uri, self._rules)
        if found is None:
            return NOT_ALLOWED  # nothing is asked of the network, name servers included
        async with self._turns.held(admission.caller, 1):
            with allowance.part() as part:
                data = await self._fetched(found, part)
                part.is_kept = isinstance(data, bytes)
                return data

    async def _fetched(self, uri: FetchableUri, part: ImageAllowance) -> bytes | Rejection:
        try:
            async with asyncio.timeout(self._settings.uri_timeout_s):
                return await (self._object(uri, part) if uri.scheme == "s3" else self._answer(uri, part))
        except Oversized:
            return self._too_large(part)
        except NotPublic:
            return NOT_ALLOWED
        except (Missing, Forbidden, FetchFailed) as error:
            return unread(error, "s3://")
        except TimeoutError:
            return _failed(f"it is not there within {self._settings.uri_timeout_s:g} s")
        except BadAnswer:
            return _failed("the server's answer is cut, or no HTTP that is read here")
        except (OSError, ValueError, IqaError) as error:
            return _failed(failure_named(error))

    async def _answer(self, uri: FetchableUri, part: ImageAllowance) -> bytes | Rejection:
        addresses = await self._names.addresses(uri.host, uri.port)
        async with download(uri, addresses, self._tls) as answer:
            if answer.status != 200:
                return _refusal(answer.status)
            self._announce(answer.length or 0, part)
            return await self._whole(answer.blocks(), part)

    async def _object(self, uri: FetchableUri, part: ImageAllowance) -> bytes:
        # what was allowed, not what was sent: a bucket's name may be written in capitals
        place = f"s3://{uri.host}{uri.target}"
        async with aclosing(self._storage.blocks(place, lambda size: self._announce(size, part))) as blocks:
            return await self._whole(blocks, part)

    async def _whole(self, blocks: AsyncIterator[bytes], part: ImageAllowance) -> bytes:
        parts: list[bytes] = []
        async for block in blocks:
            self._announce(part.arrived + len(block), part)
            part.add(len(block))
            parts.append(block)
        return b"".join(parts)

    def _announce(self, num_bytes: int, part: ImageAllowance) -> None:
        if num_bytes > self._settings.max_image_bytes:
            raise Oversized(num_bytes)
        part.announce(num_bytes)

    def _too_large(self, part: ImageAllowance) -> Rejection:
        image, request = self._settings.max_image_bytes, part.whole.max_bytes
        return Rejection(
            Reason.TOO_LARGE,
            f"an image may have {image} bytes, and all that is sent and fetched for one request {request}",
        )


def _failed(why: str) -> Rejection:
    return Rejection(Reason.FETCH_FAILED, f"it cannot be fetched: {why}")


def _refusal(status: int) -> Rejection:
    if status in (404, 410):
        return Rejection(Reason.MISSING, f"the server answers {status}")
    if status in (401, 403):
        return Rejection(Reason.FORBIDDEN, f"the server answers {status}")
    if 300 <= status < 400:
        return Rejection(Reason.FETCH_FAILED, f"the server answers {status}; redirects are not followed")
    return Rejection(Reason.FETCH_FAILED, f"the server answers {status}")
