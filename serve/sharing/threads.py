"""Work that would keep the event loop from its other callers -> threads, of which no caller has more than half."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serve.sharing.shares import Shares

T = TypeVar("T")


class Threads:
    """Threads that callers share. Lives in one event loop."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._turns = Shares(count)

    async def run(self, caller: str, work: Callable[[], T]) -> T:
        """What the work returns, or raises.

        A caller who leaves leaves the thread at work: others have it when that is done, and no sooner.
        """
        loop = asyncio.get_running_loop()
        turn = await self._turns.taken(caller, 1)
        running = self._executor.submit(work)
        try:
            return await asyncio.wrap_future(running)
        finally:
            if running.done():
                turn.shrink_to(0)
            else:
                running.add_done_callback(lambda _: loop.call_soon_threadsafe(turn.shrink_to, 0))
