"""Address of a cluster's head -> a driver that ends in words where the head is lost: Ray would abort it after 60 s."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from iqa_core.errors import FAILED

RAYS_OWN, RAYS_OWN_S = "RAY_gcs_rpc_server_reconnect_timeout_s", 60.0
"""Setting and default: how long a process of Ray waits for the head before it aborts."""

LOOK_EVERY_S = 5.0

GRACE_S = 15.0
"""Seconds that a driver has for its heartbeat and the chunks that it is writing; leaving a lost head never ends."""


@contextmanager
def head_watched(address: str, silent_s: float | None = None, grace_s: float = GRACE_S) -> Iterator[None]:
    """Inside, a thread asks whether the head's port takes connections: a busy head does, a lost one does not.

    A head that takes none for silent_s (default: half of what Ray waits) is lost: the thread says so and interrupts
    the main thread as Ctrl-C would. A process that is still there after grace_s ends itself.
    """
    if silent_s is None:
        silent_s = float(os.environ.get(RAYS_OWN, RAYS_OWN_S)) / 2
    left = threading.Event()
    arguments = (address, silent_s, grace_s, left)
    threading.Thread(target=_watch, args=arguments, name="head", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _watch(address: str, silent_s: float, grace_s: float, left: threading.Event) -> None:
    answered_at = time.monotonic()
    while (silence_s := time.monotonic() - answered_at) < silent_s:
        if left.wait(min(LOOK_EVERY_S, silent_s / 4)):
            return
        if _answers(address):
            answered_at = time.monotonic()
    if left.is_set():  # the head may go once its driver has left, and this thread was waiting for a processor meanwhile
        return
    text = (
        f"failed: the head of the Ray cluster, {address}, is lost: it has not answered for {silence_s:.0f} s. What is "
        "committed stays; when a cluster is there again, the same command goes on\n"
    )
    os.write(2, text.encode())
    # a shell that starts something in the background has it ignore SIGINT
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM if is_ignored else signal.SIGINT)
    if not left.wait(grace_s):
        os._exit(FAILED)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), LOOK_EVERY_S).close()
    except OSError:
        return False
    return True
