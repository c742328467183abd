"""A sum that may be held at once: callers wait for their part in the order in which they came, and give it back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Hold:
    """A part of a budget that is held."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self._budget = budget
        self.amount = amount

    def shrink_to(self, amount: int) -> None:
        """Give back all but this much (in all, if more was asked than is held: nothing happens)."""
        if amount < self.amount:
            self._budget.give_back(self.amount - amount)
            self.amount = amount


class Budget:
    """Lives in one event loop. An amount above the whole is taken for the whole: it goes alone."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self.free = whole
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, amount: int) -> AsyncIterator[Hold]:
        hold = Hold(self, min(amount, self._whole))
        await self._take(hold.amount)
        try:
            yield hold
        finally:
            hold.shrink_to(0)

    def give_back(self, amount: int) -> None:
        self.free += amount
        self._wake()

    async def _take(self, amount: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn came, and the caller left, in the same moment
                self.give_back(amount)
            turn.cancel()
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if not turn.done() and amount > self.free:
                return
            self._waiting.popleft()
            if not turn.done():
                self.free -= amount
                turn.set_result(None)
