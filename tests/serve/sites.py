"""Web servers that say what they are told, on a loopback port each."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.accepting import accepting

Say = Callable[[socket.socket, bytes], None]
"""(connection, head of the request) -> what is said on it; it is closed then."""


@contextmanager
def saying(say: Say, certificate: Path | None = None) -> Iterator[str]:
    """The base URL of a server that answers each connection so, all at once.

    certificate: a PEM file with its key, for https.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        tls.load_cert_chain(certificate)

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if certificate is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (block := connection.recv(65_536)):
                    head += block
                say(connection, head)

    def begin(connection: socket.socket) -> None:
        threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with accepting(begin) as port:
        yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"


def always(answer: bytes) -> Say:
    def say(connection: socket.socket, head: bytes) -> None:
        connection.sendall(answer)

    return say
