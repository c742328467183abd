"""Calls of many callers -> batches bounded by tokens -> each caller's own results.

No timer: while one batch is assessed, the next gathers. So a lone caller waits for nobody, and many callers fill
batches to the bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from iqa_core.records import Assessment, Rejection

Assess = Callable[[Sequence[Any]], Awaitable[list[Assessment | Rejection]]]


class QueueFull(Exception):
    """More images wait than are allowed to."""


@dataclass(slots=True)
class _Waiting:
    """One image in the queue."""

    prepared: Any
    tokens: int
    is_alone: bool
    result: asyncio.Future[Assessment | Rejection] = field(repr=False)


class Batcher:
    """A queue in front of one assessor. Lives in one event loop."""

    def __init__(self, assess: Assess, max_tokens: int, max_waiting: int) -> None:
        """assess: called with one batch at a time. max_tokens: of one batch; a single image may exceed it."""
        self._assess = assess
        self._max_tokens = max_tokens
        self._max_waiting = max_waiting
        self._queue: deque[_Waiting] = deque()
        self._is_running = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_waiting(self) -> int:
        """Images that no batch has taken yet."""
        return len(self._queue)

    async def submit(
        self, images: Sequence[Any], tokens: Sequence[int], is_alone: bool = False
    ) -> list[Assessment | Rejection]:
        """One result per image, in order. A cancelled caller's images leave the queue.

        is_alone: each image becomes a batch of its own, so that a process that dies of it is known to have.
        Raises QueueFull before anything is queued, and whatever assessing raised.
        """
        if len(self._queue) + len(images) > max(self._max_waiting, len(images)):
            raise QueueFull
        loop = asyncio.get_running_loop()
        waiting = [
            _Waiting(image, cost, is_alone, loop.create_future()) for image, cost in zip(images, tokens, strict=True)
        ]
        self._queue.extend(waiting)
        self._start()
        try:
            return list(await asyncio.gather(*(one.result for one in waiting)))
        finally:
            for one in waiting:
                one.result.cancel()  # no effect on those that are done

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            task = asyncio.get_running_loop().create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        # first the callers that are ready now: they may share the first batch
        await asyncio.sleep(0)
        while batch := self._next():
            try:
                results = await self._assess([one.prepared for one in batch])
            except Exception as error:
                _settle(batch, [error] * len(batch))
            else:
                _settle(batch, results)
        self._is_running = False

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        tokens = 0
        while self._queue:
            first = self._queue[0]
            if first.result.done():  # its caller is gone
                self._queue.popleft()
                continue
            if batch and (tokens + first.tokens > self._max_tokens or first.is_alone or batch[0].is_alone):
                break
            batch.append(self._queue.popleft())
            tokens += first.tokens
        return batch


def _settle(batch: Sequence[_Waiting], outcomes: Sequence[Assessment | Rejection | Exception]) -> None:
    for one, outcome in zip(batch, outcomes, strict=True):
        if one.result.done():
            continue
        if isinstance(outcome, Exception):
            one.result.set_exception(outcome)
        else:
            one.result.set_result(outcome)
