"""Stores that are no S3, through fsspec's general interface: the same promises."""

from __future__ import annotations

import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from iqa_core.errors import CallerError
from iqa_core.storage.storage import FetchFailed, Missing, Storage
from iqa_core.storage.stores import Oversized, failure_named, open_store


@pytest.fixture
def folder() -> str:
    """Of fsspec's store in memory, which is one for the whole process."""
    return f"memory://{uuid.uuid4().hex}"


def test_what_is_put_is_read_listed_and_deleted(folder: str) -> None:
    storage = Storage()
    for name in ("b/two.png", "a.png", "b/one.png"):
        storage.put(f"{folder}/{name}", name.encode())
    assert [entry.uri for entry in storage.walk(folder)] == [
        f"{folder}/{name}" for name in ("a.png", "b/one.png", "b/two.png")
    ]
    assert storage.names(f"{folder}/b") == ["one.png", "two.png"]
    assert storage.names(f"{folder}/nothing") == []
    assert storage.read(f"{folder}/a.png") == b"a.png"
    assert storage.read(f"{folder}/a.png", 1, 3) == b".p"
    found = storage.stat(f"{folder}/a.png")
    assert found is not None
    assert (found.uri, found.size) == (f"{folder}/a.png", 5)
    assert storage.stat(f"{folder}/b") is None
    storage.delete(f"{folder}/a.png")
    storage.delete(f"{folder}/a.png")
    assert storage.stat(f"{folder}/a.png") is None


def test_create_keeps_what_lies_there(folder: str) -> None:
    storage = Storage()
    assert storage.create(f"{folder}/plan.json", b"first")
    assert not storage.create(f"{folder}/plan.json", b"second")
    storage.begin(f"{folder}/plan.json", b"third", f"{folder}/.tmp")
    assert storage.read(f"{folder}/plan.json") == b"first"
    storage.begin(f"{folder}/other.json", b"first", f"{folder}/.tmp")
    assert storage.names(folder) == ["other.json", "plan.json"]


def test_reading_is_whole_or_not_at_all(folder: str) -> None:
    storage = Storage()
    storage.put(f"{folder}/x", b"12345")
    assert storage.read(f"{folder}/x", max_bytes=5) == b"12345"
    with pytest.raises(Oversized, match="5 bytes"):
        storage.read(f"{folder}/x", max_bytes=4)
    with pytest.raises(Missing):
        storage.read(f"{folder}/y")


def test_a_local_file_that_became_shorter_is_not_read(tmp_path: object) -> None:
    path = f"{tmp_path}/x"
    Storage().put(path, b"12345")
    with pytest.raises(FetchFailed, match="it has 5 bytes, 6 were expected"):
        Storage().read(path, 2, 6)


def test_a_scheme_that_nobody_speaks_names_nothing() -> None:
    with pytest.raises(Missing, match="no storage of the kind nosuch://"):
        Storage().read("nosuch://bucket/x")


def test_a_scheme_whose_library_is_absent_is_the_callers_matter() -> None:
    with pytest.raises(CallerError, match="gcsfs"):
        Storage().read("gs://bucket/x")


ANSWERS = {
    "cut": b"",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
    "garbage": b"\0\1garbage\r\n\r\n",
    "busy": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@pytest.fixture
def host() -> Iterator[str]:
    """A server that answers each path in its way; what is not in ANSWERS is reset."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _serve(server: socket.socket) -> None:
    with suppress(OSError):  # closed at the end of the test
        while True:
            connection, _ = server.accept()
            with connection:
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


def test_a_scheme_has_no_case(folder: str) -> None:
    storage = Storage()
    storage.put(f"{folder}/x", b"12345")
    assert storage.read(f"{folder}/x".replace("memory", "Memory")) == b"12345"
    assert [entry.uri for entry in storage.walk(folder.replace("memory", "MEMORY"))] == [f"{folder}/x"]
