"""Calls of many callers -> batches bounded by tokens and images -> each caller's own results.

No timer: while one batch is assessed, the next gathers. So a lone caller waits for nobody, and many callers fill
batches to the bound. Whose images go next is decided fairly, by tokens: a thousand images of one caller do not stand
before one of another.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.model.results import Outcome
from serve.sharing.fair_queue import FairQueue, Turn
from serve.sharing.shares import Hold, Shares

Assess = Callable[[Sequence[Any]], Awaitable[list[Outcome]]]


@dataclass(frozen=True, slots=True)
class Busy:
    """Takes the place of an image's result: too many images wait already, of its caller or of all."""


@dataclass(slots=True)
class _Part:
    """What one caller has in one call, as far as no batch has taken it yet."""

    room: Hold
    num_images: int

    def leave(self) -> None:
        """One image less."""
        self.num_images -= 1
        self.room.shrink_to(self.num_images)


@dataclass(slots=True)
class _Image:
    """One image in the queue."""

    prepared: Any
    is_alone: bool
    part: _Part
    result: asyncio.Future[Outcome] = field(repr=False)


class Batcher:
    """A queue in front of one assessor. Lives in one event loop."""

    def __init__(self, assess: Assess, max_tokens: int, max_images: int, max_waiting: int) -> None:
        """assess: called with one batch at a time. max_tokens: of one batch; a single image may exceed it.
        max_images: of one batch. max_waiting: images that no batch has taken yet, of all callers; half of them at most
        of one."""
        self._assess = assess
        self._max_tokens = max_tokens
        self._max_images = max_images
        self._room = Shares(max_waiting)
        self._queue: FairQueue[_Image] = FairQueue()
        self._is_running = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_waiting(self) -> int:
        """Images that no batch has taken yet."""
        return len(self._queue)

    async def submit(
        self, images: Sequence[Any], tokens: Sequence[int], callers: Sequence[str], is_alone: bool = False
    ) -> list[Outcome | Busy]:
        """One result per image, in order; Busy for all images of a caller who has no room for them.

        A cancelled call's images leave the queue. is_alone: each image becomes a batch of its own, so that a process
        that dies of it is known to have. Raises whatever assessing raised.
        """
        parts = {caller: self._part(caller, count) for caller, count in Counter(callers).items()}
        turns = [
            self._turn(caller, cost, parts[caller], image, is_alone)
            for image, cost, caller in zip(images, tokens, callers, strict=True)
        ]
        self._start()
        try:
            results = iter(await asyncio.gather(*(turn.item.result for turn in turns if turn)))
            return [next(results) if turn else Busy() for turn in turns]
        finally:
            for turn in turns:
                if turn:
                    self._queue.discard(turn)
                    turn.item.part.room.shrink_to(0)

    def _part(self, caller: str, num_images: int) -> _Part | None:
        room = self._room.taken_at_once(caller, num_images)
        return _Part(room, num_images) if room else None

    def _turn(self, caller: str, tokens: int, part: _Part | None, image: Any, is_alone: bool) -> Turn[_Image] | None:
        result = asyncio.get_running_loop().create_future()
        return self._queue.push(caller, tokens, _Image(image, is_alone, part, result)) if part else None

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

    def _next(self) -> list[_Image]:
        batch = self._queue.serve_batch(
            self._max_tokens, self._max_images, lambda image: not image.result.done(), lambda image: image.is_alone
        )
        for image in batch:
            image.part.leave()
        return batch


def _settle(batch: Sequence[_Image], outcomes: Sequence[Outcome | Exception]) -> None:
    for one, outcome in zip(batch, outcomes, strict=True):
        if one.result.done():
            continue
        if isinstance(outcome, Exception):
            one.result.set_exception(outcome)
        else:
            one.result.set_result(outcome)
