"""Threads for work: shared by callers, and busy for as long as they work."""

from __future__ import annotations

import asyncio
import threading

import pytest

from serve.sharing.threads import Threads
from tests.clock import eventually


def test_one_caller_keeps_half_of_them_busy_also_after_it_left() -> None:
    async def test() -> None:
        threads = Threads(4, "work")
        at_work: list[str] = []
        release = threading.Event()

        def work() -> None:
            at_work.append(threading.current_thread().name)
            release.wait(60)

        asked = [asyncio.create_task(threads.run("a", work)) for _ in range(6)]
        await eventually(lambda: len(at_work) == 2)
        assert await threads.run("b", lambda: "at once") == "at once"
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        assert threads._turns.free == 2, "two work on for nobody"
        release.set()
        assert await threads.run("a", lambda: "then") == "then"
        await eventually(lambda: threads._turns.free == 4)
        assert len(at_work) == 2, "who left before its turn came is not worked for"

    asyncio.run(test())


def test_what_it_raises_is_raised() -> None:
    async def test() -> None:
        threads = Threads(1, "work")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await threads.run("a", lambda: 1 // 0)

    asyncio.run(test())
