"""Images -> scores from an endpoint, over HTTP: typed, synchronous and asynchronous, without Ray and without torch.

    from iqa_core.client import RewardClient
    client = RewardClient("http://127.0.0.1:8000")
    best = client.rank(["a.png", "b.png", "c.png", "d.png"]).best

Images are sent as the bytes they are, or as PNG: compressing one anew before its quality is judged changes the answer.
A call is tried again after 429, 503 and a connection that broke (assessing twice harms nothing), a few times after
500, 502 and 504, which is what a proxy says when the process behind it dies, and never after another 4xx. Needs the
extra `client` (httpx2).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from iqa_core.errors import CallerError, RunError
from iqa_core.images.in_memory import Picture, as_file, listed
from iqa_core.records import Rejection

if TYPE_CHECKING:
    from types import TracebackType

ImageLike = bytes | bytearray | memoryview | str | Path | Picture
"""Encoded bytes, a path, a Pillow image, an array (H, W, 3) uint8, or a torch tensor."""

IMAGES_PER_REQUEST = 64
BYTES_PER_REQUEST = 32 * 2**20
"""Half of what an endpoint takes unless it is told otherwise."""

PATIENCE_S = 300.0
"""How long one request is tried again: longer than a replica takes to load a large model."""

LONGEST_WAIT_S = 10.0
RETRIED = frozenset({429, 503})
PROXY_FAULTS = frozenset({500, 502, 504})
PROXY_FAULT_TRIES = 5
"""Besides the first; busy answers and lost connections are not counted. What dies of every try is at fault itself."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the endpoint says of one image."""

    reward: float | None
    """1 (worst) to 5 (best); None when the image was rejected: never a made-up number."""
    scores: dict[str, float]
    """Per dimension, 1 to 5; empty when rejected."""
    std: dict[str, float]
    """Spread per dimension, 0 (sure) to 2."""
    reason: str | None
    detail: str | None
    fingerprint: str
    """Of the model that gave it."""
    probs: dict[str, list[float]] | None = None
    """Probabilities of the five levels, worst to best, where they were asked for."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The images of one prompt, best first."""

    order: list[int]
    """Places of the images that have a reward."""
    best: int | None
    scores: list[Score]
    """In the order in which the images were given."""


class RequestRefused(CallerError):
    """The endpoint refused the request (4xx): sending it again changes nothing."""


class EndpointUnavailable(RunError):
    """The endpoint did not answer in the time there was, however often it was asked."""


@dataclass(slots=True)
class _Attempts:
    """How often, and for how long, one request is tried."""

    ends_at: float
    failed: int = 0
    proxy_faults: int = 0

    def repeats(self, answer: httpx2.Response) -> bool:
        """Whether the request may get another answer than this one."""
        if answer.status_code in PROXY_FAULTS:
            self.proxy_faults += 1
            return self.proxy_faults <= PROXY_FAULT_TRIES
        return answer.status_code in RETRIED

    def wait_s(self, answer: httpx2.Response | None, fault: str) -> float:
        """Seconds until the next try. Raises EndpointUnavailable when there is none."""
        doubled = min(LONGEST_WAIT_S, 0.1 * 2**self.failed) * random.uniform(0.5, 1.0)
        wait_s = max(doubled, min(_retry_after_s(answer), LONGEST_WAIT_S))
        self.failed += 1
        if time.monotonic() + wait_s > self.ends_at:
            raise EndpointUnavailable(f"no answer after {self.failed} tries ({fault}); is the endpoint running?")
        return wait_s


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
        """url: of the endpoint. token: default IQA_API_TOKEN. timeout_s: of one try; patience_s: of all together."""
        token = token or os.environ.get("IQA_API_TOKEN")
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.timeout_s = timeout_s
        self.patience_s = patience_s
        self.images_per_request = images_per_request
        self.requests_at_once = requests_at_once

    def options(self) -> dict[str, Any]:
        return {"headers": self.headers, "timeout": self.timeout_s, "follow_redirects": False}

    def attempts(self) -> _Attempts:
        return _Attempts(time.monotonic() + self.patience_s)


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

    async def assess(self, images: Sequence[ImageLike], *, probs: bool = False) -> list[Score]:
        """One score per image, in order, in as many requests as it takes.

        Raises RequestRefused, EndpointUnavailable, CallerError on what is no image of ours to send.
        """
        parts = list(_parts(_all_encoded(images), self.images_per_request))
        answers = await asyncio.gather(*(self._post("/v1/assess", part, probs) for part in parts))
        return [score for answer in answers for score in scores_of(answer)]

    async def rank(self, images: Sequence[ImageLike]) -> Ranking:
        """The images of one prompt, best first."""
        return ranking_of(await self.assess(images))

    async def models(self) -> list[dict[str, Any]]:
        """What is served."""
        answer: list[dict[str, Any]] = (await self._tried("GET", "/v1/models")).json()["models"]
        return answer

    async def _post(self, path: str, part: Sequence[bytes], probs: bool) -> dict[str, Any]:
        async with self._places:
            answer = await self._tried("POST", path, files=_files(part), data={"probs": str(probs).lower()})
        found: dict[str, Any] = answer.json()
        return found

    async def _tried(self, method: str, path: str, **content: Any) -> httpx2.Response:
        attempts = self.attempts()
        while True:
            answer, fault = None, ""
            try:
                answer = await self._http.request(method, self.url + path, **content)
                if not attempts.repeats(answer):
                    return _accepted(answer)
                fault = f"status {answer.status_code}"
            except httpx2.TransportError as error:
                fault = type(error).__name__
            await asyncio.sleep(attempts.wait_s(answer, fault))


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
        self._http.close()

    def assess(self, images: Sequence[ImageLike], *, probs: bool = False) -> list[Score]:
        """One score per image, in order, in as many requests as it takes, one after another.

        Raises RequestRefused, EndpointUnavailable, CallerError on what is no image of ours to send.
        """
        scores: list[Score] = []
        for part in _parts(_all_encoded(images), self.images_per_request):
            answer = self._tried("POST", "/v1/assess", files=_files(part), data={"probs": str(probs).lower()})
            scores += scores_of(answer.json())
        return scores

    def rank(self, images: Sequence[ImageLike]) -> Ranking:
        """The images of one prompt, best first."""
        return ranking_of(self.assess(images))

    def models(self) -> list[dict[str, Any]]:
        """What is served."""
        answer: list[dict[str, Any]] = self._tried("GET", "/v1/models").json()["models"]
        return answer

    def _tried(self, method: str, path: str, **content: Any) -> httpx2.Response:
        attempts = self.attempts()
        while True:
            answer, fault = None, ""
            try:
                answer = self._http.request(method, self.url + path, **content)
                if not attempts.repeats(answer):
                    return _accepted(answer)
                fault = f"status {answer.status_code}"
            except httpx2.TransportError as error:
                fault = type(error).__name__
            time.sleep(attempts.wait_s(answer, fault))


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


def _all_encoded(images: Iterable[ImageLike]) -> list[bytes]:
    """Raises CallerError that says which image it is about."""
    found = []
    for place, image in enumerate(listed(images)):
        try:
            found.append(encoded(image))
        except CallerError as error:
            raise CallerError(f"image {place}: {error}") from None
    return found


def scores_of(answer: dict[str, Any]) -> list[Score]:
    """The typed form of an answer of /v1/assess."""
    return [
        Score(
            reward=result.get("reward"),
            scores=result.get("scores", {}),
            std=result.get("std", {}),
            reason=result.get("reason"),
            detail=result.get("detail"),
            fingerprint=answer["fingerprint"],
            probs=result.get("probs"),
        )
        for result in answer["results"]
    ]


def ranking_of(scores: Sequence[Score]) -> Ranking:
    """By reward; equal ones keep their order, and who has none is not ranked."""
    rewards = [score.reward for score in scores]
    order = sorted((i for i, found in enumerate(rewards) if found is not None), key=lambda i: -(rewards[i] or 0))
    return Ranking(order, order[0] if order else None, list(scores))


def _parts(images: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for image in images:
        if part and (len(part) == most or size + len(image) > BYTES_PER_REQUEST):
            yield part
            part, size = [], 0
        part.append(image)
        size += len(image)
    if part:
        yield part


def _files(part: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{place}", data, "application/octet-stream")) for place, data in enumerate(part)]


def _accepted(answer: httpx2.Response) -> httpx2.Response:
    if answer.status_code == 200:
        return answer
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    if answer.status_code < 500:
        raise RequestRefused(f"the endpoint refuses with {answer.status_code}: {message}")
    raise EndpointUnavailable(f"the endpoint fails with {answer.status_code}: {message}")


def _retry_after_s(answer: httpx2.Response | None) -> float:
    given = "" if answer is None else answer.headers.get("retry-after", "")
    return float(given) if given.isdigit() else 0.0
