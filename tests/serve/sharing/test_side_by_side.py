"""Works of one request, which end together."""

from __future__ import annotations

import asyncio

import pytest

from serve.sharing.side_by_side import all_of
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
