"""Works of one request, which end together, and work that many requests share."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context

import pytest

from serve.sharing.side_by_side import SingleFlight, all_of
from tests.clock import settled


def test_what_is_ending_is_waited_for_and_not_cut_short() -> None:
    """A decoder is killed before its caller's share is given back, also where others of the request only waited."""
    ended = []

    async def at_work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.shield(asyncio.sleep(0.05))
            ended.append("killed")

    async def test() -> None:
        request = asyncio.ensure_future(all_of([asyncio.sleep(10), at_work(), asyncio.sleep(10)]))
        await settled()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert ended == ["killed"]

    asyncio.run(test())


def test_the_first_that_fails_ends_the_others() -> None:
    async def fails() -> None:
        raise ValueError("first")

    async def test() -> None:
        other = asyncio.ensure_future(asyncio.sleep(10))

        async def waits() -> None:
            await other

        with pytest.raises(ValueError, match="first"):
            await all_of([waits(), fails()])
        assert other.cancelled()

    asyncio.run(test())


def test_work_that_many_ask_for_is_done_once_at_a_time_and_outlives_whoever_leaves() -> None:
    begun: list[asyncio.Future[int]] = []

    async def work() -> int:
        begun.append(asyncio.get_running_loop().create_future())
        return await begun[-1]

    async def test() -> None:
        shared = SingleFlight(work)
        asked = [asyncio.ensure_future(shared()) for _ in range(4)]
        await settled()
        asked[0].cancel()
        await settled()
        begun[0].set_result(7)
        assert await asyncio.gather(*asked[1:]) == [7] * 3
        failing = [asyncio.ensure_future(shared()) for _ in range(2)]
        await settled()
        begun[1].set_exception(ValueError("asked to"))
        assert [str(one) for one in await asyncio.gather(*failing, return_exceptions=True)] == ["asked to"] * 2
        assert len(begun) == 2

    asyncio.run(test())


def test_shared_work_is_nobodys_and_who_waits_for_it_is_told_when_it_is_cancelled() -> None:
    """Serve cancels what was called in the context of a request that hung up: others who wait have not left."""
    request: ContextVar[str] = ContextVar("request")
    begun: list[asyncio.Future[int]] = []

    async def work() -> int:
        assert request not in copy_context()
        begun.append(asyncio.get_running_loop().create_future())
        return await begun[-1]

    async def test() -> None:
        request.set("of the first who asks")
        shared = SingleFlight(work)
        leaves, *stay = [asyncio.ensure_future(shared()) for _ in range(3)]
        await settled()
        leaves.cancel()
        begun[0].cancel()
        left, *told = await asyncio.gather(leaves, *stay, return_exceptions=True)
        assert isinstance(left, asyncio.CancelledError)
        assert [str(one) for one in told] == ["what many wait for was cancelled"] * 2
        again = asyncio.ensure_future(shared())
        await settled()
        begun[1].set_result(7)
        assert await again == 7

    asyncio.run(test())
