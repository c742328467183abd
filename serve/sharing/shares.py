"""A sum that may be held at once -> parts of it for callers, none of whom ever holds more than half.

Who has to wait is served fairly (see fair_queue). An amount that is too large for the moment is overtaken by smaller
ones, until these add up to the whole; then they wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.sharing.fair_queue import FairQueue, Turn


class Hold:
    """A part of a sum that one caller holds."""

    def __init__(self, shares: Shares, caller: str, amount: int) -> None:
        self._shares = shares
        self._caller = caller
        self.amount = amount

    def shrink_to(self, amount: int) -> None:
        """Give back all but this much; nothing happens where no more is held."""
        if amount < self.amount:
            surplus, self.amount = self.amount - amount, amount
            self._shares.give_back(self._caller, surplus)

    def grow(self, amount: int) -> bool:
        """Hold this much more, if it can be had without waiting; whether it was."""
        is_taken = self._shares.take_at_once(self._caller, amount)
        self.amount += amount if is_taken else 0
        return is_taken


class Shares:
    """A sum that callers share. Lives in one event loop; remembers of a caller what it holds and waits for, no more."""

    def __init__(self, whole: int) -> None:
        """whole: at least 1; of places, bytes, processes or whatever callers share."""
        self.whole = whole
        self.free = whole
        self.half = max(1, whole // 2)
        """What one caller may hold."""
        self._most = max(self.half, whole - -(-whole // 8))
        self._held: dict[str, int] = {}
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(self._may_hold)

    @asynccontextmanager
    async def held(self, caller: str, amount: int) -> AsyncIterator[Hold]:
        """A part for as long as the context lasts, as soon as it can be had.

        A single amount above half is had only while the caller holds nothing else. Seven eighths is the most that it
        can be: above, it is taken for that much.
        """
        hold = await self.taken(caller, amount)
        try:
            yield hold
        finally:
            hold.shrink_to(0)

    async def taken(self, caller: str, amount: int) -> Hold:
        """A part as `held` gives it, to be given back by `shrink_to(0)`. Do not wait for one while holding another."""
        return self.taken_at_once(caller, amount) or await self._waited_for(caller, min(amount, self._most))

    def taken_at_once(self, caller: str, amount: int) -> Hold | None:
        """A part as `held` gives it, where it can be had without waiting; else None."""
        amount = min(amount, self._most)
        return Hold(self, caller, amount) if self.take_at_once(caller, amount) else None

    def take_at_once(self, caller: str, amount: int) -> bool:
        """Take a part where it can be had without waiting; whether it was."""
        if not self.has_room(caller, amount):
            return False
        self._take(caller, amount)
        return True

    def has_room(self, caller: str, amount: int) -> bool:
        """Whether a part could be had without waiting: nobody else waits, either."""
        return not len(self._queue) and amount <= self.free and self._is_within_half(caller, amount)

    def give_back(self, caller: str, amount: int) -> None:
        """Take a part back from a caller, and serve those who wait."""
        self.free += amount
        self._held[caller] -= amount
        if not self._held[caller]:
            del self._held[caller]
        if len(self._queue):
            self._queue.look_at(caller)
            self._serve()

    async def _waited_for(self, caller: str, amount: int) -> Hold:
        turn = self._queue.push(caller, amount, asyncio.get_running_loop().create_future())
        self._serve()
        try:
            await turn.item
        except asyncio.CancelledError:
            if turn.item.cancelled():
                self._queue.discard(turn)
                self._serve()  # it may have kept others back
            else:  # the turn came, and the caller left, in the same moment
                Hold(self, caller, turn.cost).shrink_to(0)
            raise
        return Hold(self, caller, turn.cost)

    def _take(self, caller: str, amount: int) -> None:
        if amount:
            self.free -= amount
            self._held[caller] = self._held.get(caller, 0) + amount

    def _is_within_half(self, caller: str, amount: int) -> bool:
        held = self._held.get(caller, 0)
        return held + amount <= (self.half if held else self._most)

    def _may_hold(self, turn: Turn[asyncio.Future[None]]) -> bool:
        return self._is_within_half(turn.caller, turn.cost)

    def _serve(self) -> None:
        while turn := self._next():
            if turn.item.cancelled():  # its caller is not awake yet to take it out
                self._queue.discard(turn)
                continue
            self._take(turn.caller, turn.cost)
            self._queue.serve(turn)
            turn.item.set_result(None)

    def _next(self) -> Turn[asyncio.Future[None]] | None:
        first = self._queue.first()
        if first is None or first.cost <= self.free:
            return first
        if first.passed >= self.whole:
            return None
        small = self._queue.first(at_most=self.free)
        if small:
            first.passed += small.cost
        return small
