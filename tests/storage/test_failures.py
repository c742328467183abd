"""What goes wrong with one request -> one name for it, whichever client met it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from iqa_core.storage.failures import failure_named
from iqa_core.storage.stores import open_store
from tests.accepting import accepting

ANSWERS = {
    "cut": b"",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
    "garbage": b"\0\1garbage\r\n\r\n",
    "busy": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@pytest.fixture
def host() -> Iterator[str]:
    """A server that answers each path in its way; what is not in ANSWERS is reset."""
    with accepting(_answer) as port:
        yield f"127.0.0.1:{port}"


def _answer(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        request = connection.recv(4096).decode("latin-1")
        name = request.split(" ")[1].rpartition("/")[2] if request.startswith("GET ") else ""
        if not name:  # a greeting of TLS
            connection.sendall(b"no TLS is spoken here")
        elif name in ANSWERS:
            connection.sendall(ANSWERS[name])
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def failed(uri: str, host: str = "") -> str:
    """What one request comes to, in words. host: of the S3 that is asked."""
    keys = {"key": "a", "secret": "b", "endpoint_url": f"http://{host}"} if host else {}
    store, path = open_store(uri, keys)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # of whatever class: that is the point
        store.get(path, 0, None, None)
    return failure_named(caught.value)


@pytest.mark.slow
def test_a_failure_has_one_name_whether_it_is_met_by_http_or_s3(host: str) -> None:
    for name, word in (
        ("cut", "a cut connection"),
        ("reset", "a cut connection"),
        ("half", "a cut connection"),
        ("garbage", "an answer that is no HTTP"),
        ("busy", "HTTP 503"),
    ):
        assert (failed(f"http://{host}/{name}"), failed(f"s3://bucket/{name}", host)) == (word, word)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        closed = f"127.0.0.1:{nobody.getsockname()[1]}"
        assert failed(f"http://{closed}/a") == failed("s3://bucket/a", closed) == "a refused connection"


def test_an_unknown_host_and_a_broken_handshake_are_named(host: str) -> None:
    assert failed("http://nowhere.invalid/a.png") == "a host name that is not known"
    assert failed(f"https://{host}/a.png") == "a TLS failure"
