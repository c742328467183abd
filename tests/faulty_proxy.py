"""A HTTP proxy before an S3 server that throttles, fails, cuts, shortens, loses and delays, and counts what it did."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Fault(StrEnum):
    """What may happen to a request."""

    THROTTLE = "throttle"
    """503 SlowDown; the server does not see the request."""
    FAIL = "fail"
    """500 InternalError; the server does not see the request."""
    CUT = "cut"
    """The connection ends in mid-body: of the request if it has one, else of the answer, which declared all of it."""
    SHORT = "short"
    """Half of the answer's body, in an answer that is well-formed: nothing but a known length shows it."""
    LOSE = "lose"
    """The server does what it was asked, and the connection ends without an answer."""
    DELAY = "delay"
    """A fifth of a second to a second."""


SPOILING = tuple(fault for fault in Fault if fault is not Fault.DELAY)

ERROR_XML = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}, says the proxy</Message></Error>'
)

HOP_BY_HOP = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came to the proxy, and what became of it."""

    method: str
    path: str
    """Percent-decoded, with its query: `/bucket/key?list-type=2…`."""
    fault: Fault | None
    code: str | None
    """The error that a rule answered with."""

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Rule:
    """Requests that match get this error, after the first `after` of them."""

    pattern: re.Pattern[str]
    code: str
    status: int
    after: int


class FaultyProxy:
    """Settings may be changed while it runs."""

    def __init__(self, upstream: str, seed: int = 0) -> None:
        self.rate = 0.1
        """Share of requests with a fault."""
        self.faults: Sequence[Fault] = tuple(Fault)
        """They take turns."""
        self.methods: Collection[str] = ("GET", "HEAD", "PUT", "POST", "DELETE")
        self.paths = ""
        """Regular expression: only paths in which it is found are faulted."""
        self.lost_headers: frozenset[str] = frozenset()
        """Of requests, in lower case: they do not reach the server, as of a store that does not know them."""
        self.seen: list[Seen] = []
        self.bytes_sent = 0
        """Of bodies of answers."""
        self._rules: list[Rule] = []
        self._next = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.upstream = urlsplit(upstream).netloc
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def refuse(self, pattern: str, code: str = "AccessDenied", status: int = 403, after: int = 0) -> None:
        """From now on: this error for requests like `GET /bucket/key?query` in which the pattern is found."""
        with self._lock:
            self._rules.append(Rule(re.compile(pattern), code, status, after))

    def relent(self) -> None:
        """Forget what was to be refused."""
        with self._lock:
            self._rules.clear()

    def clear(self) -> None:
        """Forget what was seen."""
        with self._lock:
            self.seen, self.bytes_sent = [], 0

    def requests(self, pattern: str = "") -> list[str]:
        """`METHOD /path?query` of what came and matches, in order."""
        return [seen.line for seen in self.seen if re.search(pattern, seen.line)]

    def answered(self, pattern: str = "") -> list[str]:
        """Of those, the ones whose answer no fault spoiled."""
        return [seen.line for seen in self.seen if seen.fault not in SPOILING and re.search(pattern, seen.line)]

    def fault_counts(self) -> Counter[Fault]:
        return Counter(seen.fault for seen in self.seen if seen.fault is not None)

    def refusals(self) -> Counter[str]:
        return Counter(seen.code for seen in self.seen if seen.code is not None)

    def judge(self, method: str, path: str) -> tuple[Fault | None, Rule | None, float]:
        """What becomes of a request, and how long a delay would be."""
        line = f"{method} {path}"
        with self._lock:
            rule = self._applying(line)
            is_candidate = rule is None and method in self.methods and re.search(self.paths, path) is not None
            has_fault = is_candidate and self._random.random() < self.rate
            fault = self.faults[self._next % len(self.faults)] if has_fault else None
            self._next += has_fault
            self.seen.append(Seen(method, path, fault, rule.code if rule else None))
            return fault, rule, self._random.uniform(0.2, 1)

    def count_bytes(self, number: int) -> None:
        with self._lock:
            self.bytes_sent += number

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _applying(self, line: str) -> Rule | None:
        for rule in self._rules:
            if rule.pattern.search(line):
                if rule.after == 0:
                    return rule
                rule.after -= 1
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        proxy = self.server.proxy
        fault, rule, delay_s = proxy.judge(self.command, unquote(self.path))
        length = int(self.headers.get("Content-Length", 0))
        if fault is Fault.CUT and length:
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if rule is not None:
            self._refuse(rule.status, rule.code)
        elif fault is Fault.THROTTLE:
            self._refuse(503, "SlowDown")
        elif fault is Fault.FAIL:
            self._refuse(500, "InternalError")
        else:
            time.sleep(delay_s if fault is Fault.DELAY else 0)
            self._forward(body, fault)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        upstream = HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            lost = self.server.proxy.lost_headers
            headers = {name: value for name, value in self.headers.items() if name.lower() not in lost}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        is_empty = not data
        if fault is Fault.LOSE or (fault in {Fault.CUT, Fault.SHORT} and is_empty):
            self.close_connection = True
            return
        sent = data[: len(data) // 2] if fault in {Fault.CUT, Fault.SHORT} else data
        declared = str(len(sent if fault is Fault.SHORT else data))
        if self.command == "HEAD":
            declared = answer.getheader("Content-Length", "0")
        self._answer(answer.status, answer.getheaders(), declared, sent)
        self.close_connection = self.close_connection or fault is Fault.CUT

    def _refuse(self, status: int, code: str) -> None:
        body = ERROR_XML.format(code=code).encode()
        headers = [("Content-Type", "application/xml")]
        self._answer(status, headers, str(len(body)), b"" if self.command == "HEAD" else body)

    def _answer(self, status: int, headers: list[tuple[str, str]], declared: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", declared)
        self.end_headers()
        self.wfile.write(body)
        self.server.proxy.count_bytes(len(body))

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
