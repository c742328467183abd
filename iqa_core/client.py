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
import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import httpx2

from iqa_core.endpoint.answers import Description as Description  # what callers get
from iqa_core.endpoint.answers import Ranking as Ranking
from iqa_core.endpoint.answers import Score as Score
from iqa_core.endpoint.answers import ranking_of
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
from iqa_core.endpoint.groundings import Grounding as Grounding
from iqa_core.endpoint.requests import MODELS, Asked, Box, Request, Texts, assessing, describing, grounding, in_parts
from iqa_core.errors import CallerError
from iqa_core.images.in_memory import ImageLike as ImageLike  # what callers give
from iqa_core.images.in_memory import as_file, listed
from iqa_core.records import Rejection

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

IMAGES_PER_REQUEST = 64
BODY_BYTES_PER_S = 2**14
"""Least speed of a body, as an endpoint has it."""

PATIENCE_S = 300.0
"""How long one request is tried again: longer than a replica takes to load a large model."""


Prompts: TypeAlias = str | Sequence[str | None] | None
"""One for all images, one for each, or none."""
Boxes: TypeAlias = Sequence[Iterable[Iterable[float]]] | None
"""A list for each image, or none."""


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
        return await self._together(assessing(part, probs, rubric) for part in in_parts(asked, self.images_per_request))

    async def rank(
        self, images: Sequence[ImageLike], prompt: str | None = None, *, rubric: str | None = None
    ) -> Ranking:
        """The images of one prompt, best first."""
        return ranking_of(await self.assess(images, prompt, rubric=rubric))

    async def ground(
        self,
        images: Sequence[ImageLike],
        boxes: Boxes = None,
        *,
        dimensions: Sequence[str] | None = None,
        grid: int = 2,
        prompts: Prompts = None,
        texts: Sequence[Texts] | None = None,
        rubric: str | None = None,
    ) -> list[Grounding]:
        """Where each image is worst, and what its boxes score, in order.

        boxes: of each image a list of x, y, width and height, in pixels of the image as it is shown. dimensions: by
        default those that the rubric marks as local. grid: cells along each side. Other arguments and errors: as
        `assess`; raises RequestRefused where the model cannot be asked so, too.
        """
        asked = _with_boxes(_all_asked(images, prompts, texts), boxes)
        parts = in_parts(asked, self.images_per_request)
        return await self._together(grounding(part, dimensions, grid, rubric) for part in parts)

    async def describe(
        self, images: Sequence[ImageLike], question: str, *, max_tokens: int | None = None
    ) -> list[Description]:
        """One answer to the question per image, in order; only where a written rubric is served.

        max_tokens: after which an answer is cut; default: the rubric's `max_new_tokens`. Raises as `assess` does.
        """
        parts = in_parts(_all_asked(images, None, None), self.images_per_request)
        return await self._together(describing(part, question, max_tokens) for part in parts)

    async def models(self) -> list[dict[str, Any]]:
        """What is served."""
        return await self._tried(MODELS)

    async def _together(self, requests: Iterable[Request[list[T]]]) -> list[T]:
        asked = [asyncio.ensure_future(self._placed(request)) for request in requests]
        try:
            return [one for part in await asyncio.gather(*asked) for one in part]
        finally:
            for one in asked:  # with one refused, none of the others is asked on
                one.cancel()

    async def _placed(self, request: Request[T]) -> T:
        async with self._places:
            return await self._tried(request)

    async def _tried(self, asked: Request[T]) -> T:
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

    async def _answer(self, asked: Request[Any]) -> HttpAnswer:
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
        parts = in_parts(_all_asked(images, prompts, texts), self.images_per_request)
        return [score for part in parts for score in self._tried(assessing(part, probs, rubric))]

    def rank(self, images: Sequence[ImageLike], prompt: str | None = None, *, rubric: str | None = None) -> Ranking:
        """The images of one prompt, best first."""
        return ranking_of(self.assess(images, prompt, rubric=rubric))

    def ground(
        self,
        images: Sequence[ImageLike],
        boxes: Boxes = None,
        *,
        dimensions: Sequence[str] | None = None,
        grid: int = 2,
        prompts: Prompts = None,
        texts: Sequence[Texts] | None = None,
        rubric: str | None = None,
    ) -> list[Grounding]:
        """Where each image is worst, and what its boxes score, in order.

        boxes: of each image a list of x, y, width and height, in pixels of the image as it is shown. dimensions: by
        default those that the rubric marks as local. grid: cells along each side. Other arguments and errors: as
        `assess`; raises RequestRefused where the model cannot be asked so, too.
        """
        asked = _with_boxes(_all_asked(images, prompts, texts), boxes)
        parts = in_parts(asked, self.images_per_request)
        return [one for part in parts for one in self._tried(grounding(part, dimensions, grid, rubric))]

    def describe(
        self, images: Sequence[ImageLike], question: str, *, max_tokens: int | None = None
    ) -> list[Description]:
        """One answer to the question per image, in order; only where a written rubric is served.

        max_tokens: after which an answer is cut; default: the rubric's `max_new_tokens`. Raises as `assess` does.
        """
        parts = in_parts(_all_asked(images, None, None), self.images_per_request)
        return [one for part in parts for one in self._tried(describing(part, question, max_tokens))]

    def models(self) -> list[dict[str, Any]]:
        """What is served."""
        return self._tried(MODELS)

    def _tried(self, asked: Request[T]) -> T:
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

    def _answer(self, asked: Request[Any]) -> HttpAnswer:
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


def _all_asked(images: Iterable[ImageLike], prompts: Prompts, texts: Sequence[Texts] | None) -> list[Asked]:
    """Raises CallerError that says which image it is about, or that there is not one text for each."""
    encoded = _all_encoded(images)
    each = [prompts] * len(encoded) if prompts is None or isinstance(prompts, str) else [one or "" for one in prompts]
    for what, found in {"prompts": each, "texts": texts}.items():
        if found is not None and len(found) != len(encoded):
            raise CallerError(f"{len(found)} {what} for {len(encoded)} images; give one for each")
    own: Sequence[Texts | None] = [None] * len(encoded) if texts is None else texts
    return list(map(Asked, encoded, each, own))


def _with_boxes(asked: Sequence[Asked], boxes: Boxes) -> list[Asked]:
    """The images with their boxes. Raises CallerError that says which box is none."""
    if boxes is None:
        return [*asked]
    if len(boxes) != len(asked):
        raise CallerError(f"{len(boxes)} lists of boxes for {len(asked)} images; give one for each")
    return [
        replace(image, boxes=tuple(_box(box, f"image {place}: box {number}") for number, box in enumerate(own)))
        for place, (image, own) in enumerate(zip(asked, boxes, strict=True))
    ]


def _box(box: Iterable[float], where: str) -> Box:
    try:
        x, y, width, height = map(float, box)
        if all(map(math.isfinite, (x, y, width, height))):
            return x, y, width, height
    except (TypeError, ValueError, OverflowError):
        pass
    raise CallerError(f"{where} is {box!s:.80}, not x, y, width and height")


def _all_encoded(images: Iterable[ImageLike]) -> list[bytes]:
    found = []
    for place, image in enumerate(listed(images)):
        try:
            found.append(encoded(image))
        except CallerError as error:
            raise CallerError(f"image {place}: {error}") from None
    return found
