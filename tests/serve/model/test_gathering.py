"""Images of many callers -> calls to the assessor: full ones, mixed ones, and each caller's own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from serve.model.gathering import Gatherer, QueueFull
from serve.sharing.shares import Shares
from tests.clock import settled


class Recorder:
    """Notes the calls, and answers each with its images once it may."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, str]]] = []
        self.open = asyncio.Event()

    async def __call__(self, images: Sequence[Any], tokens: Sequence[int], callers: Sequence[str]) -> list[Any]:
        self.calls.append(list(zip(images, callers, strict=True)))
        assert len(tokens) == len(images)
        await self.open.wait()
        return list(images)


async def mine(gatherer: Gatherer, caller: str, images: list[int], tokens: int = 1) -> list[int]:
    answer, which = await gatherer.ask(caller, images, [tokens] * len(images))
    found: list[int] = answer[which]
    return found


def test_each_gets_its_own_and_nobody_waits_behind_all_of_another() -> None:
    async def test() -> None:
        recorder = Recorder()
        gatherer = Gatherer(recorder, max_tokens=100, max_images=1000, room=Shares(1000))
        asked = []
        for number in range(2):
            asked.append(asyncio.create_task(mine(gatherer, "a", [number])))
            await settled()
        asked += [asyncio.create_task(mine(gatherer, "a", [number, number], 15)) for number in range(2, 5)]
        await settled()
        asked.append(asyncio.create_task(mine(gatherer, "b", [5])))
        asked.append(asyncio.create_task(mine(gatherer, "a", [6], 60)))
        await settled()
        recorder.open.set()
        assert await asyncio.gather(*asked) == [[0], [1], [2, 2], [3, 3], [4, 4], [5], [6]]
        assert (5, "b") in recorder.calls[2], "a full call goes at once"
        assert len(recorder.calls) == 4

    asyncio.run(test())


def test_half_of_those_who_wait_may_be_one_callers_and_room_comes_back() -> None:
    async def test() -> None:
        recorder = Recorder()
        gatherer = Gatherer(recorder, max_tokens=1000, max_images=1000, room=Shares(8))
        under_way = []
        for number in (1, 2):
            under_way.append(asyncio.create_task(mine(gatherer, "x", [number])))
            await settled()
        under_way.append(asyncio.create_task(mine(gatherer, "y", [3])))
        waiting = [asyncio.create_task(mine(gatherer, "a", [4, 5])) for _ in range(2)]
        await settled()
        with pytest.raises(QueueFull):
            await mine(gatherer, "a", [6])
        others = asyncio.create_task(mine(gatherer, "b", [6, 7, 8]))
        await settled()
        assert gatherer._room.free == 0
        waiting[0].cancel()
        await settled()
        assert gatherer._room.free == 2
        recorder.open.set()
        await asyncio.gather(*under_way, waiting[1], others)
        assert gatherer._room.free == 8
        sent = [image for call in recorder.calls for image, _ in call]
        assert sorted(sent) == [1, 2, 3, 4, 5, 6, 7, 8], "who left is not sent"

    asyncio.run(test())


def test_a_call_is_full_by_its_images_too() -> None:
    async def test() -> None:
        recorder = Recorder()
        gatherer = Gatherer(recorder, max_tokens=1000, max_images=4, room=Shares(1000))
        asked = []
        for number in range(2):
            asked.append(asyncio.create_task(mine(gatherer, "a", [number])))
            await settled()
        asked += [asyncio.create_task(mine(gatherer, "a", [number, number])) for number in range(2, 5)]
        await settled()
        assert [len(call) for call in recorder.calls] == [1, 1, 4], "two more are no full call"
        recorder.open.set()
        assert await asyncio.gather(*asked) == [[0], [1], [2, 2], [3, 3], [4, 4]]

    asyncio.run(test())


def test_callers_of_a_call_that_is_ended_from_elsewhere_do_not_wait_for_ever() -> None:
    async def ended(images: Sequence[Any], tokens: Sequence[int], callers: Sequence[str]) -> list[Any]:
        raise asyncio.CancelledError

    async def test() -> None:
        room = Shares(8)
        gatherer = Gatherer(ended, max_tokens=1000, max_images=1000, room=room)
        asked = [asyncio.create_task(mine(gatherer, caller, [1])) for caller in "ab"]
        done, _ = await asyncio.wait(asked, timeout=30)
        assert (len(done), room.free) == (2, 8)

    asyncio.run(test())
