"""A sum that is never exceeded, of which no caller has more than half, for which nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.sharing.shares import Hold, Shares
from tests.clock import settled

WHOLE = 16


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await test()

    asyncio.run(bounded())


class Crowd:
    """Callers at random: what each has asked for, holds and was granted, beside the shares themselves."""

    def __init__(self) -> None:
        self.shares = Shares(WHOLE)
        self.asked: list[tuple[str, int, asyncio.Task[Hold]]] = []
        self.holds: list[tuple[str, Hold]] = []

    async def do(self, what: str, caller: str, amount: int, which: int) -> None:
        if what == "wait":
            self.asked.append((caller, amount, asyncio.create_task(self.shares.taken(caller, amount))))
        elif what == "at once" and (hold := self.shares.taken_at_once(caller, amount)):
            assert not self.asked
            self.holds.append((caller, hold))
        elif what == "cancel" and self.asked:
            self.asked.pop(which % len(self.asked))[2].cancel()
        elif what == "give back" and self.holds:
            self.holds.pop(which % len(self.holds))[1].shrink_to(0)
        elif what == "shrink" and self.holds:
            hold = self.holds[which % len(self.holds)][1]
            hold.shrink_to(hold.amount // 2)
        elif what == "grow" and self.holds:
            self.holds[which % len(self.holds)][1].grow(amount)
        if which % 2:
            await settled()

    async def check(self) -> None:
        await settled()
        granted = [one for one in self.asked if one[2].done()]
        self.asked = [one for one in self.asked if not one[2].done()]
        self.holds += [(caller, task.result()) for caller, _, task in granted]
        held = {caller: [hold.amount for who, hold in self.holds if who == caller] for caller in "abcd"}
        assert sum(map(sum, held.values())) == WHOLE - self.shares.free <= WHOLE
        for amounts in held.values():
            parts = sorted(filter(None, amounts))
            assert sum(parts) <= WHOLE // 2 or (len(parts) == 1 and parts[0] <= WHOLE - WHOLE // 8)
        self.check_first_come(granted)
        self.check_nothing_is_idle({caller: sum(amounts) for caller, amounts in held.items()})

    def check_first_come(self, granted: list[tuple[str, int, asyncio.Task[Hold]]]) -> None:
        """Who still waits came after all of the same caller whose turn it was."""
        number = {task: int(task.get_name()) for _, _, task in [*granted, *self.asked]}
        for caller, _, task in granted:
            assert all(number[task] < number[other] for who, _, other in self.asked if who == caller)

    def check_nothing_is_idle(self, held: dict[str, int]) -> None:
        """The first of a caller who waits with no more than half of what is free has a reason to."""
        first = self.shares._queue.first()
        is_reserved = first is not None and first.passed >= WHOLE
        for caller in {caller for caller, _, _ in self.asked}:
            amount = min(next(amount for who, amount, _ in self.asked if who == caller), WHOLE - WHOLE // 8)
            is_within_half = not held[caller] or held[caller] + amount <= WHOLE // 2
            assert is_reserved or not is_within_half or amount > self.shares.free // 2


STEPS = st.tuples(
    st.sampled_from(["wait", "wait", "wait", "at once", "cancel", "give back", "give back", "shrink", "grow"]),
    st.sampled_from("aaabbcd"),
    st.integers(0, 20),
    st.integers(0, 7),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=60))
def test_whatever_comes_and_goes(steps: list[tuple[str, str, int, int]]) -> None:
    async def test() -> None:
        crowd = Crowd()
        numbers = iter(range(1000))
        asyncio.get_running_loop().set_task_factory(
            lambda loop, work, **named: asyncio.Task(work, loop=loop, name=str(next(numbers)))
        )
        for step in steps:
            await crowd.do(*step)
            await crowd.check()
        while crowd.asked or crowd.holds:  # nobody waits for ever
            assert crowd.holds
            await crowd.do("give back", "", 0, 0)
            await crowd.check()
        assert crowd.shares.free == WHOLE
        assert not crowd.shares._held
        assert not crowd.shares._queue._lines

    run(test)


def test_half_is_left_for_others_whatever_one_asks_for() -> None:
    async def test() -> None:
        shares = Shares(8)
        asked = [asyncio.create_task(shares.taken("greedy", 1)) for _ in range(100)]
        await settled()
        assert sum(task.done() for task in asked) == 4
        async with shares.held("other", 4):
            assert shares.free == 0
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        asked[0].result().shrink_to(0)

    run(test)


def test_one_large_amount_goes_alone_and_leaves_an_eighth() -> None:
    async def test() -> None:
        shares = Shares(80)
        async with shares.held("a", 1000) as hold:
            assert hold.amount == 70
            assert shares.taken_at_once("a", 1) is None
            async with shares.held("b", 10):
                assert not hold.grow(1)
            hold.shrink_to(39)
            assert hold.grow(1)
            assert not hold.grow(1)
        assert shares.free == 80

    run(test)


@pytest.mark.parametrize("whole", [1, 2, 3])
def test_the_smallest_sums_serve_one_after_the_other(whole: int) -> None:
    async def test() -> None:
        shares = Shares(whole)
        busy = 0

        async def hold(caller: str) -> None:
            nonlocal busy
            async with shares.held(caller, 1):
                busy += 1
                assert busy <= whole
                await settled()
                busy -= 1

        await asyncio.gather(*(hold(caller) for caller in "aabbcca"))
        assert shares.free == whole

    run(test)


def test_small_amounts_pass_a_large_one_until_the_whole_has_gone_by() -> None:
    async def test() -> None:
        shares = Shares(64)
        holding = await shares.taken("first", 40)
        large = asyncio.create_task(shares.taken("large", 40))
        await settled()
        passed = 0
        for number in range(1000):
            small = asyncio.create_task(shares.taken(f"small{number}", 4))
            await settled()
            if not small.done():
                break
            passed += 4
            small.result().shrink_to(0)
        assert passed == 64
        holding.shrink_to(0)
        await settled()
        assert large.done()
        assert small.done()

    run(test)


def test_a_caller_who_is_served_much_waits_for_others_and_not_for_ever() -> None:
    async def test() -> None:
        shares = Shares(1)
        order: list[str] = []

        async def hold(caller: str) -> None:
            async with shares.held(caller, 1):
                order.append(caller)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(hold("much")) for _ in range(20)]
        tasks += [asyncio.create_task(hold(caller)) for caller in ("x", "y", "x")]
        await asyncio.gather(*tasks)
        assert order[:7] == ["much", "much", "x", "y", "much", "x", "much"]

    run(test)


def test_who_leaves_in_the_moment_of_the_turn_gives_it_back() -> None:
    async def test() -> None:
        shares = Shares(2)
        holding = await shares.taken("a", 1)
        leaving, next_one = (asyncio.create_task(shares.taken("a", 1)) for _ in range(2))
        await settled()
        holding.shrink_to(0)  # its turn has come, and it is not awake yet
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        (await next_one).shrink_to(0)
        assert shares.free == 2
        assert not shares._held

    run(test)


def test_a_turn_that_comes_after_its_caller_left_goes_to_the_next() -> None:
    async def test() -> None:
        shares = Shares(2)
        holding = await shares.taken("a", 1)
        leaving, next_one = (asyncio.create_task(shares.taken("a", 1)) for _ in range(2))
        await settled()
        leaving.cancel()  # it is not awake yet
        holding.shrink_to(0)
        await settled()
        assert next_one.done()
        assert leaving.cancelled()
        next_one.result().shrink_to(0)
        assert shares.free == 2

    run(test)


def test_nothing_is_left_of_ten_thousand_callers() -> None:
    async def test() -> None:
        shares = Shares(10)
        for number in range(10_000):
            async with shares.held(f"caller{number}", 3):
                pass
        known: list[Any] = [shares._held, shares._queue._lines, shares._queue._debts]
        assert not any(known)

    run(test)
