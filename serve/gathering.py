"""Prepared images of an ingress's callers -> calls to the assessor, which carry a whole batch where there are enough.

A call to another process costs about as much as decoding an image, so images travel together: a full batch goes at
once, what is less than that waits only while MIN_CALLS are under way. So a lone caller waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serve.batching import QueueFull

T = TypeVar("T")

Send = Callable[[Sequence[Any], Sequence[int]], Awaitable[T]]

MIN_CALLS = 2
"""One that is being assessed, and one that the assessor finds when it is done."""


@dataclass(slots=True)
class _Waiting:
    """What one caller asks for."""

    images: Sequence[Any]
    tokens: Sequence[int]
    answer: asyncio.Future[Any] = field(repr=False)


class Gatherer:
    """In front of the assessor's handle. Lives in one event loop."""

    def __init__(self, send: Send[T], max_tokens: int, max_waiting: int) -> None:
        """send: one call. max_tokens: of a full batch. max_waiting: images that are not yet sent."""
        self._send = send
        self._max_tokens = max_tokens
        self._max_waiting = max_waiting
        self._waiting: list[_Waiting] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, images: Sequence[Any], tokens: Sequence[int]) -> tuple[Any, slice]:
        """The answer of the call that carried these images, and which of its images they were.

        A caller that is cancelled takes its images out, and ends a call that carries nobody else's.
        Raises QueueFull, and whatever the call raised.
        """
        num_waiting = sum(len(one.images) for one in self._waiting)
        if num_waiting + len(images) > max(self._max_waiting, len(images)):
            raise QueueFull
        mine = _Waiting(images, tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        try:
            await asyncio.sleep(0)  # those that are ready now may share the call
            self._flush()
            return await mine.answer
        finally:
            mine.answer.cancel()  # no effect on one that is done

    def _flush(self) -> None:
        self._waiting = [one for one in self._waiting if not one.answer.done()]
        while self._waiting and (len(self._calls) < MIN_CALLS or self._is_full()):
            call = asyncio.get_running_loop().create_task(self._call(self._next()))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _is_full(self) -> bool:
        return sum(sum(one.tokens) for one in self._waiting) >= self._max_tokens

    def _next(self) -> list[_Waiting]:
        """Callers who together have a batch, or a caller with more than that."""
        part: list[_Waiting] = []
        tokens = 0
        while self._waiting:
            cost = sum(self._waiting[0].tokens)
            if part and tokens + cost > self._max_tokens:
                break
            part.append(self._waiting.pop(0))
            tokens += cost
        return part

    async def _call(self, part: list[_Waiting]) -> None:
        call = asyncio.ensure_future(
            self._send([image for one in part for image in one.images], [cost for one in part for cost in one.tokens])
        )
        for one in part:
            one.answer.add_done_callback(lambda _: call.cancel() if all(w.answer.done() for w in part) else None)
        try:
            found = await call
        except asyncio.CancelledError:
            call.cancel()
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
