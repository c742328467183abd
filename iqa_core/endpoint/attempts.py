"""The address of an endpoint, and what came of one try -> when to try again, or an error that says why that is no use.

Only what can change is tried again: 429, 503, a few times what a proxy says of a dead process, refused and broken
connections, time run out. What cannot is told at once, with the way out. An endpoint that has answered before is given
time whatever is amiss: its name or certificate will come back.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx2

from iqa_core.errors import CallerError, RunError

T = TypeVar("T")

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 10.0
RETRIED = frozenset({429, 503})
PROXY_FAULTS = frozenset({500, 502, 504})
PROXY_FAULT_TRIES = 5
"""Tries after the first; busy answers and lost connections do not count. A request that fails each time is at fault."""

MAX_ANSWER_BYTES = 8 * 2**20
"""Far more than an endpoint says of a thousand images."""

PROBE_S = 2.0
UNKNOWN_NAMES = frozenset(getattr(socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL"))
"""What is said of a name that does not exist, by the systems that know the word; of a name server that does not answer,
EAI_AGAIN is."""

_WARNED: set[str] = set()

HUNG_UP = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)

WAYS_OUT = {
    401: "the token is the second argument, or IQA_API_TOKEN",
    404: "is this the endpoint's address, with its route prefix if it has one?",
    413: "give the client a smaller images_per_request",
}


class RequestRefused(CallerError):
    """The endpoint refused the request (4xx), or what is at its address is none: sending it again changes nothing."""


class EndpointUnavailable(RunError):
    """The endpoint did not answer in the time there was, however often it was asked."""


@dataclass(slots=True)
class Endpoint:
    """One address, and what is known of it."""

    url: str
    """The address without a slash at its end."""
    has_answered: bool = False
    is_probed: bool = False
    is_told: bool = False
    """Whether the log says already that it does not answer yet."""

    @classmethod
    def at(cls, address: str) -> Endpoint:
        """The endpoint at an address. Raises CallerError on one at which nothing can ever answer."""
        url = address.strip()
        if fault := next(_faults(url), None):
            raise CallerError(f"the endpoint's address {_without_secrets(url)!r} {fault}")
        return cls(url.rstrip("/"))

    def speaks_tls(self) -> bool:
        """Whether TLS is spoken at an http:// address. Tried once, when it hangs up without a word; later False."""
        parts = urlsplit(self.url)
        if self.is_probed or parts.scheme.lower() != "http":
            return False
        self.is_probed = True
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection((parts.hostname or "", parts.port or 80), timeout=PROBE_S) as plain,
                anybody.wrap_socket(plain, server_hostname=parts.hostname),
            ):
                return True
        except (OSError, ValueError):
            return False


class HttpAnswer:
    """One answer, read as far as is good for the caller."""

    def __init__(self, head: httpx2.Response, timeout_s: float) -> None:
        self.status = head.status_code
        self.headers = head.headers
        self.url = str(head.url)
        self.location = head.headers["location"] if head.has_redirect_location else ""
        self.body = bytearray()
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s

    def add(self, block: bytes) -> None:
        """Take in a block of the body.

        Raises RequestRefused for a body of more than MAX_ANSWER_BYTES, ReadTimeout for one that takes too long.
        """
        self.body += block
        if len(self.body) > MAX_ANSWER_BYTES:
            raise RequestRefused(
                f"what answers at {self.url} is no such endpoint: more than {MAX_ANSWER_BYTES} bytes, {self.words!r}"
            )
        if time.monotonic() > self._deadline:
            raise took_too_long(self._timeout_s)

    @property
    def words(self) -> str:
        """The beginning of the body, without tags."""
        text = self.body[:4000].decode("utf-8", "replace")
        text = re.sub(r"<(style|script|head)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
        return " ".join(_printable(text).split())[:200]


def within(limit_s: float, work: Callable[[], T]) -> T:
    """What one try gives, in a thread of its own, since each read of a socket has the whole of a timeout.

    Raises ReadTimeout where it takes longer; the thread then ends with its connection.
    """
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return found.result(limit_s)
    except TimeoutError:
        raise took_too_long(limit_s) from None


def took_too_long(limit_s: float) -> httpx2.ReadTimeout:
    """The error of a try without a whole answer."""
    return httpx2.ReadTimeout(f"an answer was not complete after {limit_s:g} s")


@dataclass(slots=True)
class Attempts:
    """How often, and for how long, one request is tried."""

    endpoint: Endpoint
    patience_s: float
    began: float = field(default_factory=time.monotonic)
    failed: int = 0
    proxy_faults: int = 0
    fault: str = ""
    """What was amiss in the latest try."""
    asked_to_wait_s: float = 0.0

    def accepted(self, answer: HttpAnswer, read: Callable[[Any], T]) -> T | None:
        """What `read` makes of the JSON of an answer; None where the request may get another one.

        read: raises ValueError that says why an answer is none.
        Raises RequestRefused; EndpointUnavailable of a fault that stays.
        """
        self.fault = f"status {answer.status}"
        self.asked_to_wait_s = retry_after_s(answer.headers.get("retry-after", ""))
        self.proxy_faults += answer.status in PROXY_FAULTS
        is_busy = answer.status in RETRIED
        if is_busy or (answer.status in PROXY_FAULTS and self.proxy_faults <= PROXY_FAULT_TRIES):
            return None
        content = content_of(answer, read)
        self.endpoint.has_answered = True
        return content

    def lost(self, error: httpx2.TransportError) -> None:
        """Note a try without an answer. Raises RequestRefused where no other can have one."""
        self.fault, self.asked_to_wait_s = f"{type(error).__name__}: {error}".rstrip(": "), 0.0
        if self.endpoint.has_answered:
            return
        reason = hopeless(error)
        if isinstance(error, HUNG_UP) and not reason and self.endpoint.speaks_tls():
            reason = "it speaks TLS; write https://"
        if reason:
            raise RequestRefused(f"{self.endpoint.url} cannot be asked: {reason}") from None

    def wait_s(self) -> float:
        """Seconds until the next try. Raises EndpointUnavailable when there is none."""
        doubled = min(LONGEST_WAIT_S, 0.1 * 2**self.failed) * random.uniform(0.5, 1.0)
        wait_s = max(doubled, min(self.asked_to_wait_s, LONGEST_WAIT_S))
        self.failed += 1
        waited_s = time.monotonic() - self.began
        if waited_s + wait_s > self.patience_s:
            raise EndpointUnavailable(
                f"{self.endpoint.url} gave no answer in {self.failed} tries and {waited_s:.0f} s ({self.fault}); "
                "is the endpoint running?"
            )
        if not (self.endpoint.has_answered or self.endpoint.is_told):
            self.endpoint.is_told = True
            logger.warning("%s gives no answer yet (%s); trying on", self.endpoint.url, self.fault)
        return wait_s


def content_of(answer: HttpAnswer, read: Callable[[Any], T]) -> T:
    """What `read` makes of a final answer. Raises RequestRefused or EndpointUnavailable where it is none of ours."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if answer.status == 200:
        try:
            return read(found)
        except ValueError as error:
            fault = "" if found is None else f"{error}: "
            raise RequestRefused(f"what answers at {answer.url} is no such endpoint: {fault}{answer.words!r}") from None
    try:
        message = _printable(str(found["error"]["message"]))
    except (KeyError, TypeError, IndexError):
        message = f"{answer.words!r}, which the endpoint itself does not say; a proxy does, or another program"
    if answer.status >= 500:
        raise EndpointUnavailable(f"the endpoint fails with {answer.status}: {message}")
    if answer.location:
        message = f"it is at {_printable(answer.location)}; give the client that address"
    way_out = f" ({WAYS_OUT[answer.status]})" if answer.status in WAYS_OUT else ""
    raise RequestRefused(f"the endpoint refuses with {answer.status}: {message}{way_out}")


def retry_after_s(given: str) -> float:
    """Seconds that a `Retry-After` of either form asks for, from 0 to LONGEST_WAIT_S; 0 where it is neither."""
    if re.fullmatch(r"[0-9]{1,300}", given):
        return min(float(given), LONGEST_WAIT_S)
    try:
        wait = (parsedate_to_datetime(given[:64]) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), LONGEST_WAIT_S)


def hopeless(error: httpx2.TransportError) -> str | None:
    """Why no other try can end otherwise; None where it can."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror) and cause.errno in UNKNOWN_NAMES:
            return "no name server knows that name"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}; name its authority in SSL_CERT_FILE"
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return f"no TLS can be spoken with it ({cause.reason}); does it want http://?"
    if isinstance(error, httpx2.ProxyError) and re.match(r"4(?!29)", str(error)):
        return f"the proxy of this environment refuses it ({error}); name its host in NO_PROXY"
    if isinstance(error, httpx2.RemoteProtocolError) and "illegal" in str(error):
        return "what answers there speaks no HTTP"
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return type(error).__name__
    return None


def warn_of_plain_http(url: str) -> None:
    """Say once per process and address that others can read what is sent there."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme.lower() != "http" or is_this_machine(host) or url in _WARNED:
        return
    _WARNED.add(url)
    logger.warning(
        "%s is no address of this machine, and http:// lets others on the way read images and token; write https://",
        url,
    )


def is_this_machine(host: str) -> bool:
    """Whether a name or address means this machine: what lies under `.localhost` too, and an address with its zone.

    It decides about a warning. The endpoint's gate, which decides who is served, is stricter.
    """
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return f".{host.lower().rstrip('.')}".endswith(".localhost")


def token_of(given: str | None) -> str | None:
    """The token without the line break at the end of a file. Raises CallerError on one that no header may have."""
    token = (given or "").strip()
    if not token.isascii() or not token.isprintable():
        raise CallerError("the token has characters that no HTTP header may have: other than ASCII's, or a line break")
    return token or None


def _faults(url: str) -> Iterator[str]:
    """Why nothing can answer at an address; the first one says most."""
    if "://" not in url:
        place = re.sub(r"^(https?:)?/*", "", _without_secrets(url), flags=re.IGNORECASE)
        yield f"has no scheme; write http://{place}, or https:// where TLS is spoken"
    try:
        parts = urlsplit(url)
        port = parts.port
        httpx2.URL(url)
        (parts.hostname or "").encode("idna")
    except (ValueError, httpx2.InvalidURL) as error:
        said = "" if "@" in url else f": {error}"  # of which a part may be the password
        yield f"is none{said}; write http://HOST:PORT, an IPv6 address in brackets"
        return
    if parts.scheme.lower() not in ("http", "https"):
        yield f"has the scheme {parts.scheme}; http and https are spoken"
    if not parts.hostname or port == 0 or re.search(r"\s", url):
        yield "names no host and port; write http://HOST:PORT, an IPv6 address in brackets"
    yield from _beside_the_address(parts)


def _beside_the_address(parts: SplitResult) -> Iterator[str]:
    if "@" in parts.netloc:
        yield f"has a user in it; {WAYS_OUT[401]}"
    if parts.query or parts.fragment:
        yield "has something behind its path; leave it out"
    if found := re.search(r"/v1(/[a-z]+)?/?$", parts.path):
        yield f"ends in {found[0].rstrip('/')}; leave that out"


def _without_secrets(url: str) -> str:
    return re.sub(r"\?.*|#.*", "", re.sub(r"^([a-z+.-]*://)?.*@", r"\1…@", url, flags=re.IGNORECASE | re.DOTALL))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _printable(text: str) -> str:
    """The beginning of a text from elsewhere, without what a terminal would obey."""
    return "".join(mark if mark.isprintable() else " " for mark in text[:500])
