"""Encoded images -> what they are, and their pixels, by processes that are killed when an image takes too much.

An image that ends its decoder twice, or takes more time or memory than it may, is rejected as `corrupt`; nothing else
is touched by it. A caller that gives up ends the decoder that is at its image. When an image waits for one, another
takes the place of each that has ended.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from iqa_core.images.preparing import PREPARED_BYTES, Probe
from iqa_core.records import ImageLimits, PreparedShape, Preparer, Reason, Rejection
from serve.decoding.decoder import ANSWER, EXCEEDED, PIXELS, PREPARE, PROBE, PROBED, QUESTION, REJECTED
from serve.decoding.groups import Probed
from serve.decoding.template import Template

T = TypeVar("T")

DEATHS_PER_IMAGE = 2
"""Decoders that end with an image before it is rejected: one may be the machine's fault, two are the image's."""

FAILED_IN_A_ROW = 16
"""Images in a row that end their decoders, from which on not the images are suspected but the machine."""

PIXELS_PER_TIMEOUT = 25_000_000
"""Pixels that have the time limit once, rounded up: so many take 0.6 to 1.5 s, by format."""

WALL_SECONDS = 6.0
"""Seconds by the clock for each second of the CPU that an image may take (decoders share cores); then comes SIGKILL."""

SPARE = 1.25
"""Factor on the memory that decoding an image holds: the limit counts memory that is asked for, used or not."""

SMALL_BYTES = 64 * 1024
"""Size up to which an image is sent in one piece with its question: to copy it takes less than another call."""

MAX_JSON_BYTES = 16 * 1024


class DecodersDown(Exception):
    """No process that decodes can be started, or none of them works."""


class _Exceeded(Exception):
    """The image took more time or memory than it may."""


class _Died(Exception):
    """The decoder is gone, or says what no decoder says."""


_FOUND = TypeAdapter(Probe)
_REJECTION = TypeAdapter(Rejection)

_Answer: TypeAlias = Probe | NDArray[np.uint8] | Rejection


@dataclass(frozen=True, slots=True)
class _Question:
    kind: bytes
    image: bytes
    preparer: Preparer
    timeout_s: float
    """Seconds of the CPU."""
    memory_bytes: int
    """Memory beside the image itself."""
    shape: PreparedShape | None = None
    """Size of the pixels that are asked for; None where the header is."""

    @property
    def parts(self) -> tuple[bytes, ...]:
        """What is sent, call by call."""
        head = QUESTION.pack(self.kind, self.timeout_s, self.memory_bytes, len(self.image))
        return (head + self.image,) if len(self.image) <= SMALL_BYTES else (head, self.image)

    @property
    def max_answer_bytes(self) -> int:
        return max(MAX_JSON_BYTES, 3 * self.shape.height * self.shape.width if self.shape else 0)


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

    async def answer(self, question: _Question) -> _Answer:
        """Raises _Exceeded and _Died; after these nothing may be asked any more."""
        loop = asyncio.get_running_loop()
        answer = np.empty(ANSWER.size + question.max_answer_bytes, np.uint8)  # costs nothing until it is filled
        place, end, filled = answer.data, ANSWER.size, 0
        try:
            for part in question.parts:
                await loop.sock_sendall(self.connection, part)
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
        return _checked(question, kind, answer[ANSWER.size : end], (height, width))


class Decoders:
    """The processes that decode, `count` at most; each image has one for itself. Lives in one event loop.

    Whoever asks while all are busy waits, in the order of asking.
    """

    def __init__(self, template: Template, count: int, timeout_s: float) -> None:
        """timeout_s: of the CPU, for each PIXELS_PER_TIMEOUT of an image."""
        self._template = template
        self._count = count
        self._timeout_s = timeout_s
        self._all: list[_Decoder] = []
        self._idle: list[_Decoder] = []
        self._waiting: deque[tuple[Preparer, asyncio.Future[_Decoder]]] = deque()
        self._num_places = 0
        """Decoders that are there, start or end."""
        self._num_starting = 0
        self._failed_in_a_row = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finalizer = weakref.finalize(self, _let_go, template, self._all)
        self._finalizer.atexit = False  # they end with this process anyway

    async def ready(self, preparer: Preparer) -> None:
        """Check that there is a decoder, and start one where there is none. Raises DecodersDown where that fails."""
        for decoder in [one for one in self._idle if not one.is_there]:
            self._idle.remove(decoder)
            self._begin_end(decoder)
        if not self._all:
            self._put_back(await self._free(preparer))

    async def probe(self, data: bytes, preparer: Preparer) -> Probed | Rejection:
        """What an image will cost, or why it costs nothing. Raises DecodersDown."""
        found = await self._answer(_Question(PROBE, data, preparer, self._timeout_s, probing_bytes(data, preparer)))
        if isinstance(found, Rejection):
            return found
        assert isinstance(found, Probe)
        return Probed.of(data, found)

    async def prepare(self, image: Probed, preparer: Preparer) -> NDArray[np.uint8] | Rejection:
        """What the assessor takes, (H, W, 3), or why there is nothing to take. Raises DecodersDown."""
        timeout_s = self._timeout_s * math.ceil(image.header.width * image.header.height / PIXELS_PER_TIMEOUT)
        memory_bytes = int(SPARE * image.peak_bytes)
        found = await self._answer(_Question(PREPARE, image.data, preparer, timeout_s, memory_bytes, image.shape))
        assert not isinstance(found, Probe)
        return found

    async def _answer(self, question: _Question) -> _Answer:
        for _ in range(DEATHS_PER_IMAGE):
            try:
                return await self._asked(question)
            except _Exceeded:
                break
            except _Died:
                pass
        else:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= FAILED_IN_A_ROW:
                raise DecodersDown(f"{self._failed_in_a_row} images in a row ended the processes that decode")
        return Rejection(Reason.CORRUPT, "decoding it crashed or exceeded its time or memory")

    async def _asked(self, question: _Question) -> _Answer:
        decoder = await self._free(question.preparer)
        try:
            async with asyncio.timeout(WALL_SECONDS * question.timeout_s):
                answer = await decoder.answer(question)
        except BaseException as error:  # if only that the caller is gone: what it held is free when the process is
            exit_code = await asyncio.shield(self._begin_end(decoder))
            if isinstance(error, TimeoutError) or (isinstance(error, _Died) and exit_code == -signal.SIGPROF):
                raise _Exceeded from None
            raise
        self._failed_in_a_row = 0
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
        """Start as many decoders as are waited for, up to `count` in all."""
        wanted = len(self._waiting) - self._num_starting
        for _ in range(min(wanted, self._count - self._num_places)):
            self._num_places += 1
            self._num_starting += 1
            self._keep(asyncio.ensure_future(self._start(self._waiting[0][0])))

    async def _start(self, preparer: Preparer) -> None:
        try:
            decoder = _Decoder(*await self._template.fork(preparer), preparer)
        except Exception as error:  # whatever it is, those that wait are to hear of it
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
        """End a decoder; the task gives its exit code once it is gone."""
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


def _checked(question: _Question, kind: bytes, content: NDArray[np.uint8], size: tuple[int, int]) -> _Answer:
    """What a decoder may say; size: height and width. Raises _Exceeded, and _Died on all else."""
    shape = question.shape
    if kind == EXCEEDED:
        raise _Exceeded
    if kind == PIXELS and shape and size == (shape.height, shape.width) and len(content) == 3 * size[0] * size[1]:
        return content.reshape(*size, 3)
    try:
        if kind == REJECTED:
            return _REJECTION.validate_json(content.tobytes(), strict=True)
        if kind == PROBED and not shape:
            found = _FOUND.validate_json(content.tobytes(), strict=True)
            if _is_within(question.preparer.limits, found):
                return found
    except ValidationError:
        pass
    raise _Died


def probing_bytes(data: bytes, preparer: Preparer) -> int:
    """Memory for a look at a header, beside the image: a BMP in runs is expanded to see whether it is whole."""
    is_in_runs = data.startswith(b"BM") and data[30:31] in (b"\1", b"\2")
    return 4 * len(data) + (4 * preparer.limits.max_pixels if is_in_runs else 0)


def _is_within(limits: ImageLimits, found: Probe) -> bool:
    """Whether a header can be so under these limits."""
    width, height = found.header.width, found.header.height
    is_inside = width * height <= limits.max_pixels and 3 * found.shape.width * found.shape.height <= PREPARED_BYTES
    counts = (width, height, found.shape.width, found.shape.height, found.header.frames, found.peak_bytes)
    return min(counts) > 0 <= found.shape.tokens and is_inside


def _let_go(template: Template, decoders: list[_Decoder]) -> None:
    for decoder in decoders:
        decoder.connection.close()
    template.end_soon(decoder.pid for decoder in decoders)
