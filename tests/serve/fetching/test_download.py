"""What a server may say around an image, and how much of it."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from serve.fetching.download import MAX_HEAD_BYTES, MAX_HEADERS, BadAnswer, download, host_header
from serve.uri_rules import FetchableUri
from tests.serve.sites import Say, always, saying

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def got(say: Say, *addresses: str) -> tuple[int, int | None, bytes]:
    """Status, announced length and body of what is answered so."""

    async def get(url: str) -> tuple[int, int | None, bytes]:
        uri = FetchableUri.parse(f"{url}/made/a.png")
        assert uri is not None
        async with asyncio.timeout(120), download(uri, addresses or [uri.host], None) as answer:
            return answer.status, answer.length, b"".join([block async for block in answer.blocks()])

    with saying(say) as url:
        return asyncio.run(get(url))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimageand more", (200, 5, b"image")),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", (200, None, b"to the end")),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", (200, None, b"to the end")),
        (CHUNKED + b"2\r\nim\r\n3;a=b\r\nage\r\n0\r\nX-Sum: 1\r\n\r\n", (200, None, b"image")),
        (CHUNKED + b"0\r\n\r\n", (200, None, b"")),
        (b"HTTP/1.1 404 Not here\r\nContent-Length: 0\r\n\r\n", (404, 0, b"")),
        (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n", (204, None, b"")),
    ],
)
def test_a_body_is_read_as_its_head_says(answer: bytes, expected: tuple[int, int | None, bytes]) -> None:
    assert got(always(answer)) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"image",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimag",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nimage",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nimage",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"5" * 5000 + b"\r\n\r\nimage",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        CHUNKED + b"5\r\nimage",
        CHUNKED + b"5\r\nimage\r\n",
        CHUNKED + b"5\r\nimageand more\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nimage\r\n0\r\n\r\n",
        CHUNKED + b"0x5\r\nimage\r\n0\r\n\r\n",
        CHUNKED + b"f" * 5000 + b"\r\nimage",
        CHUNKED + b"5;" + b"a" * 20 * MAX_HEAD_BYTES + b"\r\nimage\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n" + b"X-A: b\r\n" * MAX_HEAD_BYTES + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 55_000_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1_000_000,
        b"HTTP/1.1 " + b"2" * 55_000_000,
        b"HTTP/1.1 103 Hints\r\n\r\n" * 100_000,
    ],
    ids=lambda answer: f"{answer[:40]!r} {len(answer)}",
)
def test_what_is_no_strict_http_or_too_much_of_it_ends_at_once(answer: bytes) -> None:
    began = time.thread_time()
    with pytest.raises((BadAnswer, ConnectionResetError)):
        got(always(answer))
    assert time.thread_time() - began < 1


def test_a_body_of_tiny_chunks_is_given_up_while_it_costs_nothing() -> None:
    """20 MB in chunks of a byte would keep the event loop for minutes."""
    tiny, fair = CHUNKED + b"1\r\nx\r\n" * 200_000, CHUNKED + (b"200\r\n" + bytes(512) + b"\r\n") * 4000 + b"0\r\n\r\n"
    began = time.thread_time()
    with pytest.raises(BadAnswer, match="chunks of less than"):
        got(always(tiny))
    assert time.thread_time() - began < 1
    assert got(always(fair))[2] == bytes(512 * 4000)


def test_a_host_whose_first_address_does_not_answer_is_asked_at_the_next() -> None:
    assert got(always(b"HTTP/1.1 200 OK\r\n\r\nx"), "::1", "127.0.0.2", "127.0.0.1")[2] == b"x"
    with pytest.raises(ConnectionRefusedError):
        got(always(b""), "::1", "127.0.0.2")


def test_no_name_is_looked_up() -> None:
    with pytest.raises(socket.gaierror):
        got(always(b""), "localhost")


def test_the_port_is_named_where_it_is_not_the_schemes_own() -> None:
    for uri, expected in (
        ("https://h:443/", "h"),
        ("https://h:80/", "h:80"),
        ("http://[2001:db8::1]:81/", "[2001:db8::1]:81"),
    ):
        found = FetchableUri.parse(uri)
        assert found is not None
        assert host_header(found) == expected
