"""Images -> scores from an endpoint, over HTTP: typed, synchronous and asynchronous, without Ray and without torch.

    from iqa_core.client import RewardClient
    client = RewardClient("http://127.0.0.1:8000")
    best = client.rank(["a.png", "b.png", "c.png", "d.png"], prompt="a hall with a red sofa").best

Images are sent as the bytes they are, or as PNG: compressing one anew before its quality is judged changes the answer.
Prompts go to the slot `prompt` of the endpoint's rubric, and a rubric without it leaves them aside. `rubric=` is the id
of one where an endpoint has several; without it the first is asked.
A call is tried again after 429, 503 and a connection that was refused or broke (assessing twice harms nothing), a few
times after 500, 502 and 504, which is what a proxy says when the process behind it dies, and never where that changes
nothing (see attempts). An answer is taken only where all of it is what an endpoint says (see answers). Needs the extra
`client` (httpx2).
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import httpx2

from iqa_core.endpoint.answers import Description as Description  # what callers get
from iqa_core.endpoint.answers import Ranking as Ranking
from iqa_core.endpoint.answers import Score as Score
from iqa_core.endpoint.answers import descriptions_of, models_of, ranking_of, scores_of
from iqa_core.endpoint.attempts import (
    Attempts,
    Endpoint,
    HttpAnswer,
    token_of,
    took_too_long,
    warn_of_plain_http,
    within,
)
from iqa_core.endpoint.attempts import EndpointUnavailable as EndpointUnavailable  # what callers catch
from iqa_core.endpoint.attempts import RequestRefused as RequestRefused
from iqa_core.errors import CallerError
from iqa_core.images.in_memory import ImageLike as ImageLike  # what callers give
from iqa_core.images.in_memory import as_file, listed
from iqa_core.records import Rejection

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

IMAGES_PER_REQUEST = 64
BYTES_PER_REQUEST = 32 * 2**20
"""Half of what an endpoint takes unless it is told otherwise."""

MAX_TEXT = 16_384
"""Characters of all texts of an image that an endpoint reads; its slots together take no more."""

BODY_BYTES_PER_S = 2**14
"""Least speed of a body, as an endpoint has it."""

PATIENCE_S = 300.0
"""How long one request is tried again: longer than a replica takes to load a large model."""


Prompts: TypeAlias = str | Sequence[str | None] | None
"""One for all images, one for each, or none."""
Texts: TypeAlias = Mapping[str, str | None]
"""Slot of the endpoint's rubric -> an image's text."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One image to send, and what is said of it."""

    data: bytes
    prompt: str | None
    """None where no image of the call has one."""
    texts: Texts | None

    @property
    def num_bytes(self) -> int:
        return len(self.data) + len(self.prompt or "") + sum(len(text or "") for text in (self.texts or {}).values())

    def as_json(self) -> dict[str, Any]:
        given = {**({} if self.prompt is None else {"prompt": self.prompt}), **(self.texts or {})}
        texts = {slot: text and _sendable(text) for slot, text in given.items()}
        if sum(map(len, filter(None, texts.values()))) > MAX_TEXT:
            share = MAX_TEXT // len(texts)  # more than a slot takes where there are no more texts than slots
            texts = {slot: text and text[:share] for slot, text in texts.items()}
        return {"data": base64.b64encode(self.data).decode(), "texts": texts}


@dataclass(frozen=True)
class _Request(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    content: Mapping[str, Any]
    """What httpx2 takes as a body."""
    read: Callable[[Any], T]
    """Raises ValueError where it is no such answer."""


MODELS = _Request("GET", "/v1/models", {}, models_of)


class _Settings:
    """What both clients are given."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 120,
        patience_s: float = PATIENCE_S,
        images_per_request: int = IMAGES_PER_REQUEST,
        requests_at_once: int = 4,
    ) -> None:
        """url: of the endpoint. token: default IQA_API_TOKEN. timeout_s: of one try, and one more for each 16 KiB that
        it sends; patience_s: of all together.

        Raises CallerError on an address at which nothing can ever answer.
        """
        self.endpoint = Endpoint.at(url)
        token = token_of(token or os.environ.get("IQA_API_TOKEN"))
        warn_of_plain_http(self.endpoint.url)
        # an answer is taken as it is sent: unpacked, 8 MiB can be 8 GiB
        self.headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})}
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.images_per_request = images_per_request
        self.requests_at_once = requests_at_once

    def options(self) -> dict[str, Any]:
        return {"headers": self.headers, "timeout": self.timeout_s, "follow_redirects": False}

    def limit_s(self, request: httpx2.Request) -> float:
        """Seconds of one try: `timeout_s`, and those of its body."""
        return self.timeout_s + int(request.headers.get("content-length", 0)) / BODY_BYTES_PER_S

    def attempts(self) -> Attempts:
        return Attempts(self.endpoint, self.patience_s)


class AsyncRewardClient(_Settings):
    """The asynchronous client; use it as a context manager, or call `aclose`."""

    async def __aenter__(self) -> AsyncRewardClient:
        self._http = httpx2.AsyncClient(**self.options())
        self._places = asyncio.Semaphore(self.requests_at_once)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def assess(
        self,
        images: Sequence[ImageLike],
        prompts: Prompts = None,
        *,
        texts: Sequence[Texts] | None = None,
        probs: bool = False,
        rubric: str | None = None,
    ) -> list[Score]:
        """One score per image, in order, in as many requests as it takes.

        prompts: of all images, or one for each; an image whose prompt is None or blank gets no score from a rubric that
        asks about it. texts: of each image, for slots of other names; slot -> text. rubric: id of one of several.
        Raises RequestRefused, EndpointUnavailable, CallerError on what is no image of ours to send.
        """
        asked = _all_asked(images, prompts, texts)
        return await self._together(_assessing(part, probs, rubric) for part in _parts(asked, self.images_per_request))

    async def rank(
        self, images: Sequence[ImageLike], prompt: str | None = None, *, rubric: str | None = None
    ) -> Ranking:
        """The images of one prompt, best first."""
        return ranking_of(await self.assess(images, prompt, rubric=rubric))

    async def describe(
        self, images: Sequence[ImageLike], question: str, *, max_tokens: int | None = None
    ) -> list[Description]:
        """One answer to the question per image, in order; only where a written rubric is served.

        max_tokens: after which an answer is cut; default: the rubric's `max_new_tokens`. Raises as `assess` does.
        """
        parts = _parts(_all_asked(images, None, None), self.images_per_request)
        return await self._together(_describing(part, question, max_tokens) for part in parts)

    async def models(self) -> list[dict[str, Any]]:
        """What is served."""
        return await self._tried(MODELS)

    async def _together(self, requests: Iterable[_Request[list[T]]]) -> list[T]:
        asked = [asyncio.ensure_future(self._placed(request)) for request in requests]
        try:
            return [one for part in await asyncio.gather(*asked) for one in part]
        finally:
            for one in asked:  # with one refused, none of the others is asked on
                one.cancel()

    async def _placed(self, request: _Request[T]) -> T:
        async with self._places:
            return await self._tried(request)

    async def _tried(self, asked: _Request[T]) -> T:
        attempts = self.attempts()
        while True:
            try:
                answer = await self._answer(asked)
            except httpx2.TransportError as error:
                await asyncio.to_thread(attempts.lost, error)
            else:
                if (found := attempts.accepted(answer, asked.read)) is not None:
                    return found
            await asyncio.sleep(attempts.wait_s())

    async def _answer(self, asked: _Request[Any]) -> HttpAnswer:
        request = self._http.build_request(asked.method, self.endpoint.url + asked.path, **asked.content)
        limit_s = self.limit_s(request)
        try:
            async with asyncio.timeout(limit_s), aclosing(await self._http.send(request, stream=True)) as head:
                answer = HttpAnswer(head, self.timeout_s)
                async for block in head.aiter_raw():
                    answer.add(block)
                return answer
        except TimeoutError:
            raise took_too_long(limit_s) from None


class RewardClient(_Settings):
    """The synchronous client; may be shared by threads, and closed or used as a context manager."""

    def __init__(self, url: str, token: str | None = None, **settings: Any) -> None:
        super().__init__(url, token, **settings)
        self._http = httpx2.Client(**self.options())

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def assess(
        self,
        images: Sequence[ImageLike],
        prompts: Prompts = None,
        *,
        texts: Sequence[Texts] | None = None,
        probs: bool = False,
        rubric: str | None = None,
    ) -> list[Score]:
        """One score per image, in order, in as many requests as it takes, one after another.

        prompts: of all images, or one for each; an image whose prompt is None or blank gets no score from a rubric that
        asks about it. texts: of each image, for slots of other names; slot -> text. rubric: id of one of several.
        Raises RequestRefused, EndpointUnavailable, CallerError on what is no image of ours to send.
        """
        parts = _parts(_all_asked(images, prompts, texts), self.images_per_request)
        return [score for part in parts for score in self._tried(_assessing(part, probs, rubric))]

    def rank(self, images: Sequence[ImageLike], prompt: str | None = None, *, rubric: str | None = None) -> Ranking:
        """The images of one prompt, best first."""
        return ranking_of(self.assess(images, prompt, rubric=rubric))

    def describe(
        self, images: Sequence[ImageLike], question: str, *, max_tokens: int | None = None
    ) -> list[Description]:
        """One answer to the question per image, in order; only where a written rubric is served.

        max_tokens: after which an answer is cut; default: the rubric's `max_new_tokens`. Raises as `assess` does.
        """
        parts = _parts(_all_asked(images, None, None), self.images_per_request)
        return [one for part in parts for one in self._tried(_describing(part, question, max_tokens))]

    def models(self) -> list[dict[str, Any]]:
        """What is served."""
        return self._tried(MODELS)

    def _tried(self, asked: _Request[T]) -> T:
        attempts = self.attempts()
        while True:
            try:
                answer = self._answer(asked)
            except httpx2.TransportError as error:
                attempts.lost(error)
            else:
                if (found := attempts.accepted(answer, asked.read)) is not None:
                    return found
            time.sleep(attempts.wait_s())

    def _answer(self, asked: _Request[Any]) -> HttpAnswer:
        request = self._http.build_request(asked.method, self.endpoint.url + asked.path, **asked.content)
        return within(self.limit_s(request), lambda: self._read(request))

    def _read(self, request: httpx2.Request) -> HttpAnswer:
        with closing(self._http.send(request, stream=True)) as head:
            answer = HttpAnswer(head, self.timeout_s)
            for block in head.iter_raw():
                answer.add(block)
            return answer


def encoded(image: ImageLike) -> bytes:
    """The bytes that are sent: those of the file, or a PNG of the pixels. Raises CallerError where there are none."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:
            way_out = "; decode it, and give the bytes" if str(image)[:5].lower() == "data:" else ""
            fault = getattr(error, "strerror", error)
            raise CallerError(f"image {str(image)[:200]} cannot be read: {fault}{way_out}") from None
    found = as_file(image, compress_level=1)  # levels of compression change nothing but the time
    if isinstance(found, Rejection):
        raise CallerError(f"an image cannot be sent, {found.reason}: {found.detail}")
    return found


def _all_asked(images: Iterable[ImageLike], prompts: Prompts, texts: Sequence[Texts] | None) -> list[_Asked]:
    """Raises CallerError that says which image it is about, or that there is not one text for each."""
    encoded = _all_encoded(images)
    each = [prompts] * len(encoded) if prompts is None or isinstance(prompts, str) else [one or "" for one in prompts]
    for what, found in {"prompts": each, "texts": texts}.items():
        if found is not None and len(found) != len(encoded):
            raise CallerError(f"{len(found)} {what} for {len(encoded)} images; give one for each")
    own: Sequence[Texts | None] = [None] * len(encoded) if texts is None else texts
    return list(map(_Asked, encoded, each, own))


def _all_encoded(images: Iterable[ImageLike]) -> list[bytes]:
    found = []
    for place, image in enumerate(listed(images)):
        try:
            found.append(encoded(image))
        except CallerError as error:
            raise CallerError(f"image {place}: {error}") from None
    return found


def _parts(images: Sequence[_Asked], most: int) -> Iterator[list[_Asked]]:
    part: list[_Asked] = []
    size = 0
    for image in images:
        if part and (len(part) == most or size + image.num_bytes > BYTES_PER_REQUEST):
            yield part
            part, size = [], 0
        part.append(image)
        size += image.num_bytes
    if part:
        yield part


def _assessing(part: Sequence[_Asked], probs: bool, rubric: str | None) -> _Request[list[Score]]:
    chosen = {} if rubric is None else {"rubric": rubric}
    content: dict[str, Any]
    if any(image.texts is not None for image in part):
        content = {"json": {"images": [image.as_json() for image in part], "probs": probs, **chosen}}
    else:
        prompts = _prompts([image.prompt for image in part])
        content = {"files": _files(part), "data": {"probs": str(probs).lower(), **chosen, **prompts}}
    return _Request("POST", "/v1/assess", content, lambda answer: scores_of(answer, len(part), probs))


def _describing(part: Sequence[_Asked], question: str, max_tokens: int | None) -> _Request[list[Description]]:
    limit = {} if max_tokens is None else {"max_tokens": str(max_tokens)}
    content = {"files": _files(part), "data": {"question": _sendable(question), **limit}}
    return _Request("POST", "/v1/describe", content, lambda answer: descriptions_of(answer, len(part)))


def _files(part: Sequence[_Asked]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{place}", image.data, "application/octet-stream")) for place, image in enumerate(part)]


def _prompts(prompts: Sequence[str | None]) -> dict[str, str | list[str]]:
    """Fields of a form, which has no null: a blank prompt says the same."""
    given = [_sendable(prompt) for prompt in prompts if prompt is not None]
    if not given:
        return {}
    return {"prompt": given[0]} if len(set(given)) == 1 else {"prompts": given}


def _sendable(text: str) -> str:
    """The text, no longer than it takes to be told too long; half a surrogate pair, which UTF-8 lacks, as letters."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]
