"""Addresses at which nothing can answer, and faults that no other try mends, against real sockets; what can change is
tried again."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from iqa_core.client import AsyncRewardClient, EndpointUnavailable, RequestRefused, RewardClient
from iqa_core.endpoint.attempts import LONGEST_WAIT_S, MAX_ANSWER_BYTES, retry_after_s
from iqa_core.errors import CallerError
from tests.accepting import accepting
from tests.tls import self_signed

pytestmark = pytest.mark.slow

HTML = (
    b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
    b"<html><head><title>x</title></head><body><h1>hello</h1>there</body></html>"
)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:8123", "has no scheme; write http://127.0.0.1:8123"),
        ("localhost:8123/", "has no scheme; write http://localhost:8123/"),
        ("//host:8123", "has no scheme; write http://host:8123"),
        ("http:/host:8123", "has no scheme; write http://host:8123"),
        ("", "has no scheme"),
        ("ftp://host/x", "has the scheme ftp; http and https are spoken"),
        ("ray://host:10001", "has the scheme ray"),
        ("http://", "names no host"),
        ("http:///v2", "names no host"),
        ("http://:8000", "names no host"),
        ("http://host:port", "is none"),
        ("http://host:99999", "is none"),
        ("http://host:0", "names no host and port"),
        ("http://::1:8000", "in brackets"),
        ("http://[::1:8000", "in brackets"),
        ("http://a host:8000", "names no host"),
        ("http://.example.org", "is none"),
        (f"http://{'a' * 64}.example.org", "is none"),
        ("http://user:hush-hush@host:8000", "has a user in it; the token is the second argument"),
        ("user:hush-hush@host:8000", "has no scheme"),
        ("http://user:hu/hush@host:8000", "is none"),
        ("http://host:8000/?token=hush-hush", "has something behind its path"),
        ("http://host:8000/v1/assess", "ends in /v1/assess"),
        ("http://host:8000/iqa/v1/", "ends in /v1"),
    ],
)
@pytest.mark.parametrize("client", [RewardClient, AsyncRewardClient])
def test_an_address_at_which_nothing_can_answer_is_refused_unasked(
    client: Callable[[str], object], address: str, said: str
) -> None:
    with pytest.raises(CallerError) as caught:
        client(address)
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("address", ["HTTP://127.0.0.1:8000", "https://[::1]:8000/iqa/", " http://h_1.example.org\n"])
def test_other_addresses_are_taken(address: str) -> None:
    RewardClient(address).close()


def test_a_token_that_no_header_may_have_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with RewardClient("http://h", "correct-horse\n") as client:  # as a file has it
        assert client.headers["Authorization"] == "Bearer correct-horse"
    for token in ("hush\nhush", "hush-hüsh", "hush\x7fhush"):
        monkeypatch.setenv("IQA_API_TOKEN", token)
        with pytest.raises(CallerError, match="characters that no HTTP header may have") as caught:
            RewardClient("http://h")
        assert "hush" not in str(caught.value)


@contextmanager
def answering(say: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[int]]]:
    """A port at which each caller is answered so, and a list as long as the number of callers."""
    calls: list[int] = []

    def answer(connection: socket.socket) -> None:
        calls.append(1)
        with suppress(OSError), connection:
            say(connection)

    with accepting(answer) as port:
        yield port, calls


def saying(text: bytes) -> Callable[[socket.socket], None]:
    def say(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(text)

    return say


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an authority that nobody knows, with its key."""
    return self_signed(tmp_path_factory.mktemp("tls"), "127.0.0.1")


def speaking_tls(certificate: Path) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def say(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            saying(HTML % b"200 OK")(secured)

    return say


def both(url: str, patience_s: float = 60) -> Iterator[str]:
    """What the client that waits and the one that does not raise."""

    async def models() -> None:
        async with AsyncRewardClient(url, patience_s=patience_s) as client:
            await client.models()

    with RewardClient(url, patience_s=patience_s) as client, pytest.raises(CallerError) as caught:
        client.models()
    yield str(caught.value)
    with pytest.raises(CallerError) as caught:
        asyncio.run(models())
    yield str(caught.value)


def test_a_name_that_does_not_exist_is_told_at_once() -> None:
    for said in both("http://no-such-host.invalid:8000"):
        assert said == "http://no-such-host.invalid:8000 cannot be asked: no name server knows that name"


def test_tls_is_told_apart_from_plain_http(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iqa_core.endpoint.attempts.PROBE_S", 60)
    with answering(speaking_tls(certificate)) as (port, _):
        for said in both(f"http://127.0.0.1:{port}"):
            assert said.endswith("cannot be asked: it speaks TLS; write https://")
        for said in both(f"https://localhost:{port}"):
            assert "its certificate is not trusted" in said
            assert "SSL_CERT_FILE" in said
    with answering(saying(HTML % b"400 Bad Request")) as (port, calls):
        for said in both(f"https://127.0.0.1:{port}"):
            assert "no TLS can be spoken with it (WRONG_VERSION_NUMBER); does it want http://?" in said
    assert len(calls) == 2


MODELS = [{"fingerprint": "f", "dimensions": [{"name": "layout"}]}]
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"


@pytest.mark.parametrize("text", [TLS_ALERT, b"220 mail.example.org\r\n\r\n"])
def test_what_speaks_another_language_is_told_at_once(text: bytes) -> None:
    with answering(saying(text)) as (port, calls):
        for said in both(f"http://127.0.0.1:{port}"):
            assert said.endswith("cannot be asked: what answers there speaks no HTTP")
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HTML % b"200 OK", "is no such endpoint: 'hello there"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is no such endpoint: it has no models: '{}'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is no such endpoint"),
        (HTML % b"404 Not Found", "refuses with 404: 'hello there', which the endpoint itself does not say"),
        (HTML % b"413 Payload Too Large", "give the client a smaller images_per_request"),
        (HTML % b"405 Method Not Allowed", "refuses with 405: 'hello there'"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://h/v1/models\r\nContent-Length: 0\r\n\r\n",
            "refuses with 301: it is at https://h/v1/models; give the client that address",
        ),
    ],
)
def test_what_is_no_endpoint_is_told_in_words(answer: bytes, said: str) -> None:
    with answering(saying(answer)) as (port, calls):
        for found in both(f"http://127.0.0.1:{port}"):
            assert said in found
            assert "<" not in found
    assert len(calls) == 2


def test_a_proxy_that_refuses_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy")
    with answering(saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        for said in both("https://endpoint.example.org"):
            assert "the proxy of this environment refuses it (403 Forbidden); name its host in NO_PROXY" in said


@pytest.mark.parametrize("is_there", [False, True])
def test_what_can_change_is_tried_again_and_said_once(is_there: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Refused connections; connections that end without a word, where plain HTTP may be spoken."""
    with answering(lambda connection: connection.close()) as (port, calls):
        url = f"http://127.0.0.1:{port}" if is_there else "http://127.0.0.1:1"
        with RewardClient(url, patience_s=1.5) as client, pytest.raises(EndpointUnavailable) as caught:
            client.models()
    # closed before or after the request has arrived
    faults = (
        ("RemoteProtocolError", "Connection reset") if is_there else ("ConnectError: [Errno 111] Connection refused",)
    )
    assert any(fault in str(caught.value) for fault in faults)
    assert str(caught.value).startswith(f"{url} gave no answer in ")
    assert len(calls) >= 3 * is_there
    assert [record.levelno for record in caplog.records if record.name == "iqa_core.endpoint.attempts"] == [
        logging.WARNING
    ]


def test_an_endpoint_that_has_answered_is_given_time_whatever_is_amiss() -> None:
    answers = [TLS_ALERT, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + json.dumps({"models": MODELS}).encode()]
    turn = [1, 0, 1]

    def say(connection: socket.socket) -> None:
        saying(answers[turn.pop(0)])(connection)

    with answering(say) as (port, _), RewardClient(f"http://127.0.0.1:{port}") as client:
        assert client.models() == MODELS
        assert client.models() == MODELS
    assert turn == []


def test_what_an_endpoint_asks_to_wait_is_kept_to_within_reason() -> None:
    before, long_past = datetime.now(UTC), datetime(1994, 11, 6, tzinfo=UTC)
    later = before.replace(microsecond=0) + timedelta(seconds=8)
    wait_s = retry_after_s(format_datetime(later, usegmt=True))
    assert (later - datetime.now(UTC)).total_seconds() <= wait_s <= (later - before).total_seconds()
    assert retry_after_s(format_datetime(later + timedelta(days=1), usegmt=True)) == LONGEST_WAIT_S
    for given in (
        format_datetime(long_past, usegmt=True),
        "",
        "-5",
        "nan",
        "inf",
        "1e9",
        "soon",
        "\u00b2",
        "0x10",
        "1.5",
    ):
        assert retry_after_s(given) == 0
    for given in (
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 99 Foo 99999",
        "9" * 5000,
        "Mon, 06 Nov 1994 08:49:37 -0000",
    ):
        assert 0 <= retry_after_s(given) <= LONGEST_WAIT_S
    assert [retry_after_s(given) for given in ("0", "7", "10", "9" * 300)] == [0, 7, 10, LONGEST_WAIT_S]


@pytest.mark.parametrize("odd", [b"-5", b"nan", b"\xb2", b"9" * 4000, b"Sun, 06 Nov 1994 08:49:37 GMT", b"soon"])
def test_busy_answers_that_close_the_connection_are_waited_out(odd: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iqa_core.endpoint.attempts.LONGEST_WAIT_S", 0.02)
    head = b"HTTP/1.1 %s\r\nConnection: close\r\n"
    busy = head + b"Retry-After: " + odd + b"\r\nContent-Length: 4\r\n\r\nbusy"
    answers = [
        busy % b"429 Too Many",
        busy % b"503 Busy",
        head % b"200 OK" + b"\r\n" + json.dumps({"models": MODELS}).encode(),
    ]

    def say(connection: socket.socket) -> None:
        saying(answers.pop(0))(connection)

    with answering(say) as (port, calls), RewardClient(f"http://127.0.0.1:{port}") as client:
        assert client.models() == MODELS
    assert len(calls) == 3


def test_an_answer_without_an_end_is_cut_off() -> None:
    """Whether it is long, packed, deep, or drips."""
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    packed = gzip.compress(bytes(5_000_000))
    with answering(saying(head + b"\r\n" + b"[" * (MAX_ANSWER_BYTES + 1))) as (port, calls):
        for said in both(f"http://127.0.0.1:{port}"):
            assert f"is no such endpoint: more than {MAX_ANSWER_BYTES} bytes, '[[[[" in said
            assert len(said) < 500
    assert len(calls) == 2
    for body, shown in ((b"[" * 1_000_000, "'[[["), (packed, "\ufffd")):
        say = saying(head + b"Content-Encoding: gzip\r\n\r\n" + body)
        with answering(say) as (port, _), pytest.raises(RequestRefused) as caught:
            RewardClient(f"http://127.0.0.1:{port}").models()
        assert "is no such endpoint" in str(caught.value)
        assert shown in str(caught.value)
        assert len(str(caught.value)) < 500

    def drip(connection: socket.socket) -> None:
        connection.sendall(head + b"\r\n")
        for _ in range(3000):
            connection.sendall(b" ")
            time.sleep(0.02)

    def drip_head(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(3000):
            connection.sendall(b"x")
            time.sleep(0.02)

    async def asynchronously(url: str) -> None:
        async with AsyncRewardClient(url, timeout_s=1, patience_s=1) as client:
            await client.models()

    incomplete = r"ReadTimeout: an answer was not complete after 1 s"
    for way in (drip, drip_head):
        with answering(way) as (port, _):
            client = RewardClient(f"http://127.0.0.1:{port}", timeout_s=1, patience_s=1)
            with pytest.raises(EndpointUnavailable, match=incomplete):
                client.models()
            client.close()  # ends what still reads
            with pytest.raises(EndpointUnavailable, match=incomplete):
                asyncio.run(asynchronously(f"http://127.0.0.1:{port}"))


def test_what_an_endpoint_says_is_shown_without_what_a_terminal_obeys() -> None:
    message = json.dumps({"error": {"message": "\x1b[2J" + "x" * 100_000}}).encode()
    with answering(saying(b"HTTP/1.1 422 No\r\nConnection: close\r\n\r\n" + message)) as (port, _):
        for said in both(f"http://127.0.0.1:{port}"):
            assert "\x1b" not in said
            assert len(said) < 600


def test_plain_http_to_another_machine_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    local = ("http://127.0.0.2:8000", "http://[::1]:8000", "http://localhost:8000", "http://iqa.localhost")
    for url in ("http://images.example.org:8000", "https://images.example.org", *local) * 3:
        AsyncRewardClient(url)
    [warned] = [record for record in caplog.records if record.name == "iqa_core.endpoint.attempts"]
    assert warned.levelno == logging.WARNING
    assert warned.getMessage().startswith("http://images.example.org:8000 is no address of this machine")
