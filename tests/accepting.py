"""A port of loopback, and what is done with each connection to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def accepting(welcome: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port; welcome gets each connection, one after the other, and closes it.

    The thread that accepts ends before its socket is closed, whatever is raised meanwhile. Else it may be about to
    accept at a file descriptor that is another socket's by then, and answer what that one was asked.
    """

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            welcome(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
