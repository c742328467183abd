"""A model's preparer -> a decoder: a process forked from a template, and the socket to it (see decoder.py)."""

from __future__ import annotations

import _thread
import asyncio
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from iqa_core.records import Preparer
from serve.decoding.decoder import END, FORK, ORDER, REPLY, packed

START_TIMEOUT_S = 60.0
"""Seconds for the template to come up, or to fork, on a machine that is busy with something else."""

ENVIRONMENT = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TZ"})
"""Variables that a decoder gets of its ingress's environment, which holds tokens and credentials."""


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    control: socket.socket

    def end(self) -> None:
        """End the template, and its decoders with it."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class Template:
    """The process that decoders are forked from: started with the first of them, and anew when it is gone.

    A thread gives it one order at a time, since each may take as long as a start. Any event loop may order.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoders")
        self._running: list[_Running] = []
        self._finalizer = weakref.finalize(self, _end_all, self._running)

    def check(self, preparer: Preparer) -> None:
        """Fork a decoder and end it. Raises OSError when there can be none."""
        connection, pid = self._thread.submit(self._fork, packed(preparer)).result()
        connection.close()
        self._thread.submit(self._end, pid).result()

    async def fork(self, preparer: Preparer) -> tuple[socket.socket, int]:
        """The connection to a new decoder, and the number of its process. Raises OSError when there can be none."""
        forked = self._thread.submit(self._fork, packed(preparer))
        try:
            return await asyncio.shield(asyncio.wrap_future(forked))
        except asyncio.CancelledError:
            self._thread.submit(self._undo, forked)
            raise

    async def end(self, pid: int) -> int:
        """The exit code of a decoder, which is killed if it is still there; 0 where nobody knows."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._end, pid)

    def end_soon(self, pids: Iterable[int]) -> None:
        """Have decoders ended, without waiting for it; for finalizers.

        The garbage collector may run one inside `submit` itself, in the thread that holds its locks: so another thread
        submits, and it is started by what takes no lock.
        """
        _thread.start_new_thread(self._submit_ends, (tuple(pids),))

    def _submit_ends(self, pids: Iterable[int]) -> None:
        for pid in pids:
            with suppress(RuntimeError):  # this process is about to end, and they with it
                self._thread.submit(self._end, pid)

    def close(self) -> None:
        """End the template and all its decoders."""
        self._thread.shutdown()
        self._finalizer()

    def _fork(self, preparer: bytes) -> tuple[socket.socket, int]:
        mine, theirs = socket.socketpair()
        try:
            with theirs:
                try:
                    pid = self._order(FORK, 0, preparer, theirs)
                except ConnectionError:  # the template had ended
                    pid = self._order(FORK, 0, preparer, theirs)
        except OSError:
            mine.close()
            raise
        mine.setblocking(False)
        return mine, pid

    def _undo(self, forked: Future[tuple[socket.socket, int]]) -> None:
        if forked.exception() is None:
            connection, pid = forked.result()
            connection.close()
            self._end(pid)

    def _end(self, pid: int) -> int:
        if not self._running:
            return 0
        try:
            return self._order(END, pid, b"")
        except OSError:
            return 0

    def _order(self, kind: bytes, pid: int, preparer: bytes, connection: socket.socket | None = None) -> int:
        if not self._running:
            self._running.append(_started())
        control = self._running[0].control
        try:
            connections = [connection.fileno()] if connection else []
            socket.send_fds(control, [ORDER.pack(kind, pid, len(preparer))], connections)
            control.sendall(preparer)
            reply = control.recv(REPLY.size, socket.MSG_WAITALL)
            if len(reply) < REPLY.size:
                raise ConnectionError("the template of the decoders ended")
        except OSError:
            _end_all(self._running)
            raise
        number: int = REPLY.unpack(reply)[0]
        return number


def _started() -> _Running:
    mine, theirs = socket.socketpair()
    mine.settimeout(START_TIMEOUT_S)
    environment = {name: value for name, value in os.environ.items() if name in ENVIRONMENT}
    # one thread: a process with more is not to be forked
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path)}
    command = [sys.executable, "-P", "-m", "serve.decoding.decoder"]
    with theirs:
        try:
            process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment)
        except OSError:
            mine.close()
            raise
    return _Running(process, mine)


def _end_all(running: list[_Running]) -> None:
    while running:
        running.pop().end()
