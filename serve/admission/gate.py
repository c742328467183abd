"""Any HTTP request -> one that may be answered, its body read and bounded; all others are refused here.

In this order: head, peer, token, size as announced, places. Only then is the body read, and given up where it grows
over the limit or comes too slowly. So whoever may not ask costs a look at the headers, and whoever sends nothing holds
nothing but one of the places for those who send.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from io import BytesIO
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.admission import head
from serve.admission.places import CLOSE, Admission, Places
from serve.admission.tokens import TOKENS, token_digest
from serve.errors import Refusal
from serve.metrics import Metrics
from serve.settings import ServeSettings

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/health", "/openapi.json"})
"""Answered without a token: they tell nothing about images, callers or models."""

LIVENESS = frozenset({"/healthz", "/health"})
"""Answered at once from what this process knows, so without a place: one that answers is not taken for dead."""

BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})

BODY_BYTES_PER_S = 16 * 1024
"""The least speed of a body, once `body_grace_s` are over: 64 MiB in 68 minutes, were there no other limit."""

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
        self,
        app: ASGIApp,
        settings: ServeSettings,
        token_digests: Sequence[str],
        paths: frozenset[str],
        metrics: Metrics,
    ) -> None:
        """paths: those that are counted by name.

        token_digests: none means that only this machine may ask, or everybody where the settings say `open`.
        """
        self._app = app
        self._settings = settings
        self._digests = tuple(token_digests)
        self._paths = paths
        self._metrics = metrics
        self._places = Places(settings, metrics)

    @property
    def open_requests(self) -> int:
        """Requests whose bodies are received, or that are answered."""
        return self._places.num_taken

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
                await refusal.response(scope["path"])(scope, receive, noted)
        finally:
            path = getattr(scope.get("route"), "path", own_path(scope))  # as the application has it, with {rubric}
            self._metrics.request(path if path in self._paths else "other", status, time.monotonic() - began)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        head.check(scope)
        headers = Headers(scope=scope)
        self._check_peer(scope, headers)
        is_bodiless = scope["method"] in BODILESS
        caller = peer_of(scope) if is_bodiless and own_path(scope) in OPEN_PATHS else self._caller(scope, headers)
        self._check_announced(headers, is_bodiless)
        if is_bodiless:
            with nullcontext() if own_path(scope) in LIVENESS else self._places.looked(caller):
                await self._app(scope, receive, send)
            return
        with self._places.taken(caller) as admission:
            deadline = asyncio.get_running_loop().time() + self._settings.request_timeout_s
            replay = _replayed(await self._body(receive, admission, deadline), receive)
            admission.begin_answer()
            scope["iqa.admission"] = admission
            await self._answered(scope, replay, send, deadline)

    async def _answered(self, scope: Scope, receive: Receive, send: Send, deadline: float) -> None:
        is_begun = False

        async def begun(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            async with asyncio.timeout_at(deadline):
                await self._app(scope, receive, begun)
        except TimeoutError:
            if is_begun:
                raise
            raise self._places.turned_away("time", "no answer in time; try again", 503, headers=None) from None

    def _check_peer(self, scope: Scope, headers: Headers) -> None:
        """Check the peer where there are no tokens: this machine, through no proxy, and no page of another site.

        Raises Refusal (403).
        """
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

    def _caller(self, scope: Scope, headers: Headers) -> str:
        """The caller whose shares a request takes: its token, or its peer. Raises Refusal (401)."""
        if not self._digests:
            return peer_of(scope)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        candidate = token_digest(given.strip())
        # all are compared, each in constant time: the answer's time tells nothing
        matches = [hmac.compare_digest(candidate, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise Refusal(401, "send `Authorization: Bearer` and an API token", {"WWW-Authenticate": "Bearer"})
        return candidate

    def _check_announced(self, headers: Headers, is_bodiless: bool) -> None:
        """Check what the headers say of the body. Raises Refusal where it is too large, compressed, or out of place."""
        length = headers.get("content-length")
        if is_bodiless and (length not in (None, "0") or "transfer-encoding" in headers):
            raise Refusal(400, "send no body with this method", CLOSE)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "send the body without Content-Encoding")
        if length is not None:
            self._places.check_size(int(length))

    async def _body(self, receive: Receive, admission: Admission, deadline: float) -> bytes:
        grace_s = self._settings.body_grace_s
        patience_ends = asyncio.get_running_loop().time() + grace_s
        body = BytesIO()  # gives what it holds away without a copy of it
        try:
            async with asyncio.timeout_at(min(patience_ends, deadline)) as patience:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the caller left before the body was there")
                    part = message.get("body", b"")
                    admission.grow(len(part))
                    body.write(part)
                    if not message.get("more_body", False):
                        return body.getvalue()
                    patience.reschedule(min(patience_ends + body.tell() / BODY_BYTES_PER_S, deadline))
        except TimeoutError:
            self._metrics.turned_away["slow body"] += 1
            raise Refusal(
                408,
                f"the body comes too slowly: {body.tell()} bytes, and {BODY_BYTES_PER_S} a second are the least",
                CLOSE,
            ) from None


def peer_of(scope: Scope) -> str:
    """The peer's address, of IPv6 the network of 2^64 addresses that one caller may well have to itself."""
    host: str = (scope.get("client") or ("",))[0]
    if ":" not in host:
        return host
    try:
        found = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


def own_path(scope: Scope) -> str:
    """The request's path without the prefix under which Serve mounts the application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/")) or "/"


def marks_of_a_proxy(scope: Scope, headers: Headers) -> Iterator[str]:
    """Signs that the peer is a proxy, by name. A proxy may leave all of them out."""
    yield from (name for name in headers if name in PROXY_HEADERS or name.startswith(PROXY_PREFIXES))
    if scope.get("http_version") == "1.0":  # nginx, unless it is told to speak another
        yield "HTTP/1.0"


def is_loopback(host: str) -> bool:
    """Whether a name or address can only be this machine.

    It decides who is served without a token, so it is strict: of names `localhost` alone, since a resolver may lead
    `x.localhost` elsewhere. `is_this_machine` of `iqa_core.endpoint.attempts` decides about a warning, and takes those
    names too.
    """
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body as one message, which is let go of, then whatever comes: the caller may still leave."""
    left = [body]
    del body

    async def replay() -> Message:
        if not left:
            return await receive()
        return {"type": "http.request", "body": left.pop(), "more_body": False}

    return replay
