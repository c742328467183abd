"""Encoded images -> what they are, and their pixels, by processes that are killed when an image takes too much.

An image that ends its decoder twice, or takes more time or memory than it may, is rejected as `corrupt`; nothing else
is touched by it. A caller that gives up ends the decoder that is at its image. When an image waits for one, another
takes the place of each that has ended.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from iqa_core.images.preparing import Probe
from iqa_core.records import PreparedShape, Preparer, Reason, Rejection
from serve.decoder import ANSWER, EXCEEDED, PIXELS, PREPARE, PROBE, PROBED, QUESTION, REJECTED
from serve.decoding import Probed
from serve.template import Template

T = TypeVar("T")

DEATHS_PER_IMAGE = 2
"""One may be another's fault (a machine without memory); two in fresh processes are the image's."""

WALL_SECONDS = 4.0
"""Per second of the CPU that an image may take, until its decoder is killed from outside: several share a core."""

SMALL_BYTES = 64 * 1024
"""Of an image that goes in one piece with its question: to copy it takes less than another call."""

MAX_JSON_BYTES = 16 * 1024


class DecodersDown(Exception):
    """No process that decodes is there, and none can be started."""


class _Exceeded(Exception):
    """The image took more time or memory than it may."""


class _Died(Exception):
    """The decoder is gone, or says what no decoder says."""


_FOUND = TypeAdapter(Probe)
_REJECTION = TypeAdapter(Rejection)


@dataclass(frozen=True, slots=True, eq=False)
class _Decoder:
    """One process. What it says comes from where hostile bytes are read: it is checked, and never unpickled."""

    connection: socket.socket
    pid: int
    preparer: Preparer

    @property
    def is_there(self) -> bool:
        """Whether it may be asked; it never speaks by itself."""
        try:
            self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def ask(self, question: bytes, image: bytes, max_bytes: int) -> tuple[bytes, NDArray[np.uint8], int, int]:
        """Kind, bytes, height and width of the answer. Raises _Died.

        max_bytes: of the answer.
        """
        loop = asyncio.get_running_loop()
        answer = np.empty(ANSWER.size + max_bytes, np.uint8)  # unlike a bytearray it costs nothing until it is filled
        place, end, filled = answer.data, ANSWER.size, 0
        try:
            if len(image) <= SMALL_BYTES:
                await loop.sock_sendall(self.connection, question + image)
            else:
                await loop.sock_sendall(self.connection, question)
                await loop.sock_sendall(self.connection, image)
            while filled < end:
                received = await loop.sock_recv_into(self.connection, place[filled:])
                filled += received
                if filled >= ANSWER.size:
                    kind, num_bytes, height, width = ANSWER.unpack_from(place)
                    end = ANSWER.size + num_bytes
                if not received or filled > end or end > len(answer):
                    raise _Died
        except OSError:
            raise _Died from None
        return kind, answer[ANSWER.size : end], height, width


class Decoders:
    """At most `count` processes; each image has one for itself. Lives in one event loop.

    Whoever asks while all are busy waits, in the order of asking.
    """

    def __init__(self, template: Template, count: int, timeout_s: float) -> None:
        """timeout_s: of the CPU, for one image."""
        self._template = template
        self._count = count
        self._timeout_s = timeout_s
        self._all: list[_Decoder] = []
        self._idle: list[_Decoder] = []
        self._waiting: deque[tuple[Preparer, asyncio.Future[_Decoder]]] = deque()
        self._num_places = 0
        """Of decoders that are there, start or end."""
        self._num_starting = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finalizer = weakref.finalize(self, _let_go, template, self._all)
        self._finalizer.atexit = False  # they end with this process anyway

    async def ready(self, preparer: Preparer) -> None:
        """Raises DecodersDown where none is there and none can be started."""
        for decoder in [one for one in self._idle if not one.is_there]:
            self._idle.remove(decoder)
            self._begin_end(decoder)
        if not self._all:
            self._put_back(await self._free(preparer))

    async def probe(self, data: bytes, preparer: Preparer) -> Probed | Rejection:
        """What an image will cost, or why it costs nothing. Raises DecodersDown."""
        answer = await self._answer(PROBE, data, preparer, 4 * len(data), None)
        if not isinstance(answer, Probe):
            assert isinstance(answer, Rejection)
            return answer
        return Probed(data, answer.header, answer.shape, answer.peak_bytes)

    async def prepare(self, image: Probed, preparer: Preparer) -> NDArray[np.uint8] | Rejection:
        """What the assessor takes, (H, W, 3), or why there is nothing to take. Raises DecodersDown."""
        answer = await self._answer(PREPARE, image.data, preparer, image.peak_bytes + 2 * len(image.data), image.shape)
        assert not isinstance(answer, Probe)
        return answer

    async def _answer(
        self, kind: bytes, data: bytes, preparer: Preparer, memory_bytes: int, shape: PreparedShape | None
    ) -> Probe | NDArray[np.uint8] | Rejection:
        for _ in range(DEATHS_PER_IMAGE):
            try:
                return await self._asked(kind, data, preparer, memory_bytes, shape)
            except _Exceeded:
                break
            except _Died:
                pass
        return Rejection(Reason.CORRUPT, "decoding it crashed or exceeded its time or memory")

    async def _asked(
        self, kind: bytes, data: bytes, preparer: Preparer, memory_bytes: int, shape: PreparedShape | None
    ) -> Probe | NDArray[np.uint8] | Rejection:
        question = QUESTION.pack(kind, self._timeout_s, memory_bytes, len(data))
        max_bytes = max(MAX_JSON_BYTES, 3 * shape.height * shape.width if shape else 0)
        decoder = await self._free(preparer)
        try:
            async with asyncio.timeout(WALL_SECONDS * self._timeout_s):
                answer = _checked(await decoder.ask(question, data, max_bytes), shape)
        except BaseException as error:  # if only that the caller is gone: what it held is free when the process is
            exit_code = await asyncio.shield(self._begin_end(decoder))
            if isinstance(error, TimeoutError) or (isinstance(error, _Died) and exit_code == -signal.SIGPROF):
                raise _Exceeded from None
            raise
        self._put_back(decoder)
        return answer

    async def _free(self, preparer: Preparer) -> _Decoder:
        while self._idle:
            decoder = self._idle.pop()
            if decoder.is_there and decoder.preparer == preparer:
                return decoder
            self._begin_end(decoder)
        turn: asyncio.Future[_Decoder] = asyncio.get_running_loop().create_future()
        self._waiting.append((preparer, turn))
        self._grow()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._put_back(turn.result())  # the turn came, and the caller left, in the same moment
            raise

    def _put_back(self, decoder: _Decoder) -> None:
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        if not self._waiting:
            self._idle.append(decoder)
        elif self._waiting[0][0] == decoder.preparer:
            self._waiting.popleft()[1].set_result(decoder)
        else:  # another model has taken over
            self._begin_end(decoder)

    def _grow(self) -> None:
        """As many more as wait, where there is room."""
        wanted = len(self._waiting) - self._num_starting
        for _ in range(min(wanted, self._count - self._num_places)):
            self._num_places += 1
            self._num_starting += 1
            self._keep(asyncio.ensure_future(self._start(self._waiting[0][0])))

    async def _start(self, preparer: Preparer) -> None:
        try:
            decoder = _Decoder(*await self._template.fork(preparer), preparer)
        except OSError as error:
            self._num_places -= 1
            if not self._num_places:
                self._turn_away(DecodersDown(f"no process that decodes can be started: {error}"))
        else:
            self._all.append(decoder)
            self._put_back(decoder)
        finally:
            self._num_starting -= 1

    def _turn_away(self, error: DecodersDown) -> None:
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)

    def _begin_end(self, decoder: _Decoder) -> asyncio.Task[int]:
        """Its exit code, once it is gone."""
        self._all.remove(decoder)
        decoder.connection.close()
        return self._keep(asyncio.ensure_future(self._end(decoder)))

    async def _end(self, decoder: _Decoder) -> int:
        try:
            return await self._template.end(decoder.pid)
        finally:
            self._num_places -= 1
            self._grow()

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _checked(
    answer: tuple[bytes, NDArray[np.uint8], int, int], shape: PreparedShape | None
) -> Probe | NDArray[np.uint8] | Rejection:
    """What a decoder may say; shape: of the pixels that were asked for. Raises _Exceeded, and _Died on all else."""
    kind, content, height, width = answer
    if kind == EXCEEDED:
        raise _Exceeded
    if kind == PIXELS and shape and (height, width, len(content)) == (shape.height, shape.width, 3 * height * width):
        return content.reshape(height, width, 3)
    try:
        if kind == REJECTED:
            return _REJECTION.validate_json(content.tobytes(), strict=True)
        if kind == PROBED and not shape:
            return _FOUND.validate_json(content.tobytes(), strict=True)
    except ValidationError:
        pass
    raise _Died


def _let_go(template: Template, decoders: list[_Decoder]) -> None:
    for decoder in decoders:
        decoder.connection.close()
    template.end_soon(decoder.pid for decoder in decoders)
