"""A request's head -> nothing, where all of it is plain and small; else the refusal: 400, 414 or 431.

Called before anything is computed from it: by the gate, and, where Serve is told so, by `Guard` in front of Serve.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import Refusal

Header = tuple[bytes, bytes]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 2**15
"""Names and values together, as nginx has it."""
MAX_PATH_BYTES = 2048
MAX_QUERY_BYTES = 2048
"""No path of ours has a query."""
ONCE = (b"host", b"origin", b"content-length", b"content-type", b"content-encoding", b"authorization")

LENGTH = re.compile(rb"[0-9]{1,19}")
PORT = rb"(?::([0-9]{0,5}))?"
HOST = re.compile(rb"(?:[a-z0-9_](?:[a-z0-9._-]{0,253}[a-z0-9_.])?|\[([0-9a-f:.]{2,45})\])" + PORT, re.IGNORECASE)
ORIGIN = re.compile(rb"null|[a-z][a-z0-9+.-]{0,31}://(.{1,300})", re.IGNORECASE)
REQUEST_ID = b"x-request-id"
ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class Guard:
    """ASGI middleware in front of Serve's own proxy, which sends `X-Request-ID` back and writes it into its log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            check(scope)
        except Refusal as refusal:
            await refusal.response(scope["path"])(scope, receive, send)
            return
        await self._app({**scope, "headers": with_safe_id(scope["headers"])}, receive, send)


def in_front() -> list[Middleware]:
    """The guard, for Serve: `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.admission.head:in_front`."""
    return [Middleware(Guard)]


def with_safe_id(headers: Iterable[Header]) -> list[Header]:
    """The headers, without an `X-Request-ID` that is no short token: Serve then makes one."""
    kept = list(headers)
    ids = [value for name, value in kept if name == REQUEST_ID]
    if not ids or (len(ids) == 1 and ID.fullmatch(ids[0])):
        return kept
    return [(name, value) for name, value in kept if name != REQUEST_ID]


def check(scope: Scope) -> None:
    """Check a request's head. Raises Refusal, which names the header and its bound, and never shows a value."""
    headers = scope["headers"]
    _check_sizes(scope, headers)
    names = Counter(name for name, _ in headers)
    for name in ONCE:
        if names[name] > 1:
            raise Refusal(400, f"{name.decode()} is there {names[name]} times")
    if b"content-length" in names and b"transfer-encoding" in names:
        raise Refusal(400, "content-length and transfer-encoding exclude each other")
    _check_values(dict(headers))


def _check_sizes(scope: Scope, headers: Sequence[Header]) -> None:
    if len(headers) > MAX_HEADERS:
        raise Refusal(431, f"{len(headers)} headers are more than {MAX_HEADERS}")
    if (num_bytes := sum(len(name) + len(value) for name, value in headers)) > MAX_HEADER_BYTES:
        raise Refusal(431, f"{num_bytes} bytes of headers are more than {MAX_HEADER_BYTES}")
    if (num_bytes := len(scope.get("raw_path") or scope["path"].encode())) > MAX_PATH_BYTES:
        raise Refusal(414, f"a path of {num_bytes} bytes is longer than {MAX_PATH_BYTES}")
    if (num_bytes := len(scope.get("query_string", b""))) > MAX_QUERY_BYTES:
        raise Refusal(414, f"a query of {num_bytes} bytes is longer than {MAX_QUERY_BYTES}; questions go into the body")


def _check_values(values: Mapping[bytes, bytes]) -> None:
    if not LENGTH.fullmatch(values.get(b"content-length", b"0")):
        raise Refusal(400, "Content-Length is no number of 1 to 19 digits")
    if not _is_host(values.get(b"host", b"localhost")):  # HTTP/1.0 needs none
        raise Refusal(400, "Host is neither a name nor an address, with a port or without; IPv6 goes into brackets")
    if b"origin" in values and not _is_origin(values[b"origin"]):
        raise Refusal(400, "Origin is neither null nor scheme://host:port")


def _is_host(value: bytes) -> bool:
    found = HOST.fullmatch(value)
    if found is None or int(found[2] or 0) > 65_535:
        return False
    try:
        return found[1] is None or bool(ipaddress.IPv6Address(found[1].decode()))
    except ValueError:
        return False


def _is_origin(value: bytes) -> bool:
    found = ORIGIN.fullmatch(value)
    return found is not None and (found[1] is None or _is_host(found[1]))
