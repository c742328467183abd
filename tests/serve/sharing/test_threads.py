"""Threads for work: shared by callers, and busy for as long as they work."""

from __future__ import annotations

import asyncio
import threading

import pytest

from serve.sharing.threads import Threads


def test_one_caller_keeps_half_of_them_busy_also_after_it_left() -> None:
    async def test() -> None:
        threads = Threads(4, "work")
        release = threading.Event()
        asked = [asyncio.create_task(threads.run("a", release.wait)) for _ in range(6)]
        await asyncio.sleep(0.01)
        assert await threads.run("b", lambda: "at once") == "at once"
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        assert threads._turns.free == 2, "two work on for nobody"
        release.set()
        assert await threads.run("a", lambda: "then") == "then"
        assert threads._turns.free == 4

    asyncio.run(test())


def test_what_it_raises_is_raised() -> None:
    async def test() -> None:
        threads = Threads(1, "work")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await threads.run("a", lambda: 1 // 0)

    asyncio.run(test())
