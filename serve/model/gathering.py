"""Prepared images of an ingress's callers -> calls to the assessor, which carry a whole batch where there are enough.

A call to another process costs about as much as decoding an image, so images travel together: a full batch goes at
once, a smaller one waits while MIN_CALLS are under way. So a lone caller waits for nobody. Who goes next is decided
fairly, by tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serve.sharing.fair_queue import FairQueue
from serve.sharing.shares import Hold, Shares

T = TypeVar("T")

Send = Callable[[Sequence[Any], Sequence[int], Sequence[str]], Awaitable[T]]

MIN_CALLS = 2
"""Calls that are sent though they are small: one to be assessed, and one that the assessor finds when it is done."""


class QueueFull(Exception):
    """Too many images wait, of this caller or of all."""


@dataclass(slots=True)
class _Waiting:
    """What one caller asks for."""

    caller: str
    images: Sequence[Any]
    tokens: Sequence[int]
    room: Hold
    answer: asyncio.Future[Any] = field(repr=False)


class Gatherer:
    """A queue in front of the assessor's handle. Lives in one event loop."""

    def __init__(self, send: Send[T], max_tokens: int, max_images: int, room: Shares) -> None:
        """send: one call, with images, tokens and caller of each. max_tokens, max_images: of a full batch. room: of
        images that are not yet sent; gatherers may share it."""
        self._send = send
        self._max_tokens = max_tokens
        self._max_images = max_images
        self._room = room
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, caller: str, images: Sequence[Any], tokens: Sequence[int]) -> tuple[Any, slice]:
        """The answer of the call that carried these images, and which of its images they were.

        A caller that is cancelled takes its images out, and ends a call that carries nobody else's.
        Raises QueueFull, and whatever the call raised.
        """
        room = self._room.taken_at_once(caller, len(images))
        if room is None:
            raise QueueFull
        mine = _Waiting(caller, images, tokens, room, asyncio.get_running_loop().create_future())
        turn = self._waiting.push(caller, sum(tokens), mine, len(images))
        try:
            await asyncio.sleep(0)  # those that are ready now may share the call
            self._flush()
            return await mine.answer
        finally:
            mine.answer.cancel()  # no effect on one that is done
            self._waiting.discard(turn)
            room.shrink_to(0)

    def _flush(self) -> None:
        while self._is_due() and (part := self._next()):
            call = asyncio.get_running_loop().create_task(self._call(part))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _is_due(self) -> bool:
        is_full = self._waiting.total_cost >= self._max_tokens or self._waiting.total_count >= self._max_images
        return len(self._calls) < MIN_CALLS or is_full

    def _next(self) -> list[_Waiting]:
        """Callers who together have a batch, or a caller with more than that."""
        part = self._waiting.serve_batch(self._max_tokens, self._max_images, lambda one: not one.answer.done())
        for one in part:
            one.room.shrink_to(0)
        return part

    async def _call(self, part: list[_Waiting]) -> None:
        images = [image for one in part for image in one.images]
        tokens = [cost for one in part for cost in one.tokens]
        callers = [one.caller for one in part for _ in one.images]
        call = asyncio.ensure_future(self._send(images, tokens, callers))
        for one in part:
            one.answer.add_done_callback(lambda _: call.cancel() if all(w.answer.done() for w in part) else None)
        try:
            found = await call
        except asyncio.CancelledError:
            call.cancel()
            for one in part:
                one.answer.cancel()  # no effect on one that is done
            raise
        except Exception as error:
            for one in part:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        begin = 0
        for one in part:
            end = begin + len(one.images)
            if not one.answer.done():
                one.answer.set_result((found, slice(begin, end)))
            begin = end

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._flush()
