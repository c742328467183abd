"""A budget that is never exceeded, and comes back whole."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.budget import Budget


@settings(max_examples=40)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=20))
def test_never_more_than_the_whole_is_held_and_all_of_it_comes_back(asked: list[int]) -> None:
    async def test() -> None:
        budget = Budget(10)
        held = 0

        async def hold(amount: int) -> None:
            nonlocal held
            async with budget.held(amount) as mine:
                held += mine.amount
                assert held <= 10
                await asyncio.sleep(0)
                held -= mine.amount - mine.amount // 2
                mine.shrink_to(mine.amount // 2)
                await asyncio.sleep(0)
                held -= mine.amount

        await asyncio.gather(*(hold(amount) for amount in asked))
        assert budget.free == 10

    asyncio.run(test())


def test_one_who_leaves_the_line_holds_up_nobody() -> None:
    async def test() -> None:
        budget = Budget(10)
        entered: list[int] = []

        async def hold(amount: int, seconds: float) -> None:
            async with budget.held(amount):
                entered.append(amount)
                await asyncio.sleep(seconds)

        tasks = [asyncio.create_task(hold(*each)) for each in ((8, 60), (5, 60), (2, 60))]
        await asyncio.sleep(0.01)
        assert entered == [8]  # the turn of the last is after the larger one
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        assert entered == [8, 2]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert budget.free == 10

    asyncio.run(test())
