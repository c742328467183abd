"""An encoded image on a socket -> what it is, or its pixels as the assessor takes them, on the same socket.

An ingress starts this module once, as a template that has everything imported, and orders decoders from it: a fork
takes milliseconds, a start half a second. What they say to each other has heads of fixed size:

    ingress -> template   ORDER and the bytes of a preparer; with a fork comes the socket that the decoder is to serve
    template -> ingress   REPLY: number of the process that was forked, or exit code of the one that was ended
    ingress -> decoder    QUESTION and the encoded image
    decoder -> ingress    ANSWER and pixels (H, W, 3) or JSON

A decoder sees hostile bytes. So it has no secrets in its environment and no other connection open, and what it says is
checked (decoders.py). It ends by itself when an image takes too much of the CPU, when its connection is closed,
and with the template, which ends with its ingress. It imports neither Ray nor torch.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from PIL import AvifImagePlugin

import iqa_core.assessor.preparing.preparers  # noqa: F401  a preparer that is unpacked is made of it
from iqa_core.deadline import Clock, deadline
from iqa_core.images import preparing
from iqa_core.records import Preparer, Rejection

ORDER = struct.Struct("<ciI")
"""Kind, number of a process, bytes of a preparer."""
FORK, END = b"f", b"e"
REPLY = struct.Struct("<i")

QUESTION = struct.Struct("<cdQQ")
"""Kind, seconds of the CPU, bytes of memory beside the encoded image, bytes of that image."""
PROBE, PREPARE = b"q", b"p"
ANSWER = struct.Struct("<cQII")
"""Kind, bytes that follow, and of pixels their height and width."""
PROBED, PIXELS, REJECTED, EXCEEDED = b"s", b"x", b"r", b"m"

OWN_BYTES = 64 * 2**20
"""Memory beyond what a question grants: buffers of Python and the codecs, what the allocator keeps for later."""

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def packed(preparer: Preparer) -> bytes:
    """The bytes of a preparer, for a process that this one starts. What comes back from there is never unpacked."""
    return pickle.dumps(preparer)


def serve_orders(control: socket.socket) -> None:
    """The template: forks and ends decoders until its ingress is gone."""
    decoders: set[int] = set()
    packed_preparer, preparer = b"", None
    while True:
        order, connections, _, _ = socket.recv_fds(control, ORDER.size, 1, socket.MSG_WAITALL)
        if len(order) < ORDER.size:
            return
        kind, pid, num_bytes = ORDER.unpack(order)
        if kind == END:
            control.sendall(REPLY.pack(_ended(pid, decoders)))
            continue
        given = control.recv(num_bytes, socket.MSG_WAITALL)
        if given != packed_preparer:
            packed_preparer, preparer = given, pickle.loads(given)
            gc.collect()
            gc.freeze()  # the collector writes to whatever it looks at: what is there by now stays shared
        decoders.add(pid := _forked(control, connections[0], preparer))
        control.sendall(REPLY.pack(pid))


def _ended(pid: int, decoders: set[int]) -> int:
    """Exit code of a decoder, which is killed if it is still there; 0 if it is none of the template's.

    No number is used anew before its process was waited for here, so that it cannot be another's.
    """
    if pid not in decoders:
        return 0
    decoders.remove(pid)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _forked(control: socket.socket, connection: int, preparer: Any) -> int:
    template = os.getpid()
    pid = os.fork()
    if pid:
        os.close(connection)
        return pid
    try:
        control.close()
        _end_with(template)
        answer_questions(socket.socket(fileno=connection), preparer)
    except ConnectionError:
        pass  # the caller is gone, or out of time
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def answer_questions(connection: socket.socket, preparer: Preparer) -> None:
    """A decoder: one question after the other, until the connection is closed."""
    own_bytes = _data_bytes() + OWN_BYTES
    questions = connection.makefile("rb")
    while head := questions.read(QUESTION.size):
        _answer_one(head, questions, connection, preparer, own_bytes)


def _answer_one(
    question: bytes, questions: BinaryIO, connection: socket.socket, preparer: Preparer, own_bytes: int
) -> None:
    """Answer one question, and keep nothing of it: the next image has the memory for itself."""
    kind, timeout_s, max_bytes, num_bytes = QUESTION.unpack(question)
    _limit_data(own_bytes + num_bytes + max_bytes)
    image = questions.read(num_bytes)
    with deadline(timeout_s, Clock.CPU):
        head, body = _answer(kind, image, preparer)
    sent = connection.sendmsg([head, body])
    connection.sendall(body[sent - len(head) :])


def _answer(kind: bytes, image: bytes, preparer: Preparer) -> tuple[bytes, memoryview]:
    try:
        if kind == PREPARE:
            pixels = preparing.prepare(image, preparer)
            if isinstance(pixels, Rejection):
                return _as_json(REJECTED, asdict(pixels))
            return ANSWER.pack(PIXELS, pixels.nbytes, *pixels.shape[:2]), pixels.reshape(-1).data
        found = preparing.probe(image, preparer)
        if isinstance(found, Rejection):
            return _as_json(REJECTED, asdict(found))
        return _as_json(PROBED, asdict(found.probe))
    except MemoryError:
        return ANSWER.pack(EXCEEDED, 0, 0, 0), memoryview(b"")


def _as_json(kind: bytes, content: Any) -> tuple[bytes, memoryview]:
    text = json.dumps(content).encode()
    return ANSWER.pack(kind, len(text), 0, 0), memoryview(text)


def _end_with(template: int) -> None:
    """Have the kernel kill this process when its template ends: while it decodes, it does not see that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != template:  # it ended before
        os._exit(0)


def _data_bytes() -> int:
    """Bytes that count against RLIMIT_DATA: writable memory of this process's own, used or not; 0 if not known."""
    with suppress(FileNotFoundError):
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    return 0


def _limit_data(num_bytes: int) -> None:
    """Have allocations fail beyond this many bytes."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (num_bytes if hard < 0 else min(num_bytes, hard), hard))


def main() -> None:
    """The template, with its ingress on the standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of a group; the ingress ends by itself
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whatever the thread that started it keeps from itself
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a decoder is one of several; each thread's stack counts as memory
    with suppress(ConnectionError):
        serve_orders(socket.socket(fileno=0))


if __name__ == "__main__":
    main()
