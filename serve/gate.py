"""Any HTTP request -> one that may be answered, its body read and bounded; all others are refused here.

In this order: head, peer, token, size as announced, places. Only then is the body read, and given up where it grows
over the limit or does not arrive in time. So whoever may not ask costs a look at the headers.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import head
from serve.errors import Refusal, come_back
from serve.settings import ServeSettings
from serve.tally import Tally
from serve.tokens import TOKENS, token_digest

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/health", "/openapi.json"})
"""Answered without a token: they tell nothing about images, callers or models."""

OWN_MACHINE_ONLY = "without API tokens this endpoint serves its own machine only"
WAYS_OUT = f"start it with {TOKENS}"

PROXY_HEADERS = frozenset(
    "forwarded via x-real-ip x-client-ip x-cluster-client-ip true-client-ip cf-connecting-ip fastly-client-ip".split()
)
PROXY_PREFIXES = ("x-forwarded", "x-original-forwarded", "x-envoy-")

SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, token_digests: Sequence[str], paths: frozenset[str], tally: Tally
    ) -> None:
        """paths: those that are counted by name; token_digests: none means that only this machine may ask, or everybody
        where the settings say `open`."""
        self._app = app
        self._settings = settings
        self._digests = tuple(token_digests)
        self._paths = paths
        self._tally = tally
        self.open_requests = 0
        self._open_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        status = 499  # of a caller who left before the answer began

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *SAFE_HEADERS]}
            await send(message)

        try:
            try:
                await self._admitted(scope, receive, noted)
            except Refusal as refusal:
                await refusal.response(scope, receive, noted)
        finally:
            path = own_path(scope)
            self._tally.request(path if path in self._paths else "other", status, time.monotonic() - began)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        head.check(scope)
        headers = Headers(scope=scope)
        self._check_peer(scope, headers)
        if own_path(scope) not in OPEN_PATHS:
            self._check_token(headers)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        announced = self._announced_bytes(headers)
        with self._place(announced):
            is_begun = False

            async def begun(message: Message) -> None:
                nonlocal is_begun
                is_begun = True
                await send(message)

            try:
                async with asyncio.timeout(self._settings.request_timeout_s):
                    body = await self._body(receive)
                    await self._app(scope, _replayed(body, receive), begun)
            except TimeoutError:
                if is_begun:
                    raise
                raise come_back(503, "no answer in time; try again", self._settings.retry_after_s) from None

    def _check_peer(self, scope: Scope, headers: Headers) -> None:
        """Without tokens only this machine is served: nobody through a proxy on it, and no web page of another site."""
        if self._digests or self._settings.open:
            return
        peer = scope.get("client")
        if peer is None or not is_loopback(peer[0]):
            raise Refusal(403, f"{OWN_MACHINE_ONLY}; {WAYS_OUT}")
        if marks := list(marks_of_a_proxy(scope, headers)):
            raise Refusal(403, f"{OWN_MACHINE_ONLY}, and {marks[0]} says that a proxy passed this on; {WAYS_OUT}")
        host = headers.get("host", "")
        origin = headers.get("origin")
        if not is_loopback(urlsplit(f"//{host}").hostname or "") or (origin and urlsplit(origin).netloc != host):
            raise Refusal(403, f"{OWN_MACHINE_ONLY}, by its own name and from its own pages; {WAYS_OUT}")

    def _check_token(self, headers: Headers) -> None:
        if not self._digests:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        candidate = token_digest(given.strip())
        # all are compared, each in constant time: the answer's time tells nothing
        matches = [hmac.compare_digest(candidate, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise Refusal(401, "send `Authorization: Bearer` and an API token", {"WWW-Authenticate": "Bearer"})

    def _announced_bytes(self, headers: Headers) -> int:
        """What the body will hold at most. Raises Refusal when that is too much, or compressed."""
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "send the body without Content-Encoding")
        length = headers.get("content-length")
        if length is None:
            return self._settings.max_body_bytes
        if not (length.isascii() and length.isdigit()):
            raise Refusal(400, "Content-Length is no number")
        if int(length[:20]) > self._settings.max_body_bytes:
            raise self._too_large()
        return int(length)

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the caller left before the body was there")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._settings.max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> Refusal:
        limit = self._settings.max_body_bytes
        return Refusal(413, f"the body is over {limit} bytes; send fewer images at once", {"Connection": "close"})

    @contextmanager
    def _place(self, num_bytes: int) -> Iterator[None]:
        """A place among the requests being answered, and room for a body; held until the answer is out."""
        is_full = self.open_requests >= self._settings.max_requests
        is_fat = self.open_requests and self._open_bytes + num_bytes > self._settings.max_pending_bytes
        if is_full or is_fat:
            raise come_back(429, "too many requests at once; try again", self._settings.retry_after_s)
        self.open_requests += 1
        self._open_bytes += num_bytes
        try:
            yield
        finally:
            self.open_requests -= 1
            self._open_bytes -= num_bytes


def own_path(scope: Scope) -> str:
    """Without the prefix under which Serve mounts the application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/")) or "/"


def marks_of_a_proxy(scope: Scope, headers: Headers) -> Iterator[str]:
    """What says that the peer passes on what somebody else asks. A proxy may well leave all of it out."""
    yield from (name for name in headers if name in PROXY_HEADERS or name.startswith(PROXY_PREFIXES))
    if scope.get("http_version") == "1.0":  # nginx, unless it is told to speak another
        yield "HTTP/1.0"


def is_loopback(host: str) -> bool:
    """Whether a name or address can only be this machine."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then whatever comes: the caller may still leave."""
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
