"""Images of many callers: who shares a batch with whom, and what each gets back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from iqa_core.records import Assessment
from serve.model.batching import Batcher, Busy
from serve.model.results import Outcome
from tests.clock import settled


def assessment(number: int) -> Assessment:
    return Assessment(np.full(1, number, np.float32), np.zeros(1, np.float32), (np.full(5, 0.2, np.float32),))


class Recorder:
    """Notes the batches, and answers each image with its own number."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, images: Sequence[Any]) -> list[Outcome]:
        self.batches.append(list(images))
        await self.open.wait()
        if -1 in images:
            raise RuntimeError("asked to")
        return [assessment(number) for number in images]


async def submit(
    batcher: Batcher, images: list[int], tokens: list[int] | None = None, caller: str = "a", is_alone: bool = False
) -> list[Outcome | Busy]:
    return await batcher.submit(images, tokens or [1] * len(images), [caller] * len(images), is_alone)


def numbers(results: Sequence[Outcome | Busy]) -> list[float]:
    return [float(result.scores_K[0]) for result in results if isinstance(result, Assessment)]


def run(test: Any) -> None:
    asyncio.run(test)


def test_callers_who_come_together_share_a_batch_and_get_their_own_results() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=100, max_images=1000, max_waiting=100)
        answers = await asyncio.gather(*(submit(batcher, [i, i + 100]) for i in range(8)))
        assert [numbers(answer) for answer in answers] == [[i, i + 100] for i in range(8)]
        assert len(recorder.batches) == 1

    run(test())


def test_a_batch_is_bounded_by_tokens_but_for_a_single_image() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=10, max_images=1000, max_waiting=100)
        assert numbers(await submit(batcher, [1, 2, 3, 4], [4, 4, 4, 50])) == [1, 2, 3, 4]
        assert recorder.batches == [[1, 2], [3], [4]]

    run(test())


def test_a_batch_is_bounded_by_images_too() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=10, max_images=2, max_waiting=100)
        assert numbers(await submit(batcher, [1, 2, 3, 4, 5], [1, 1, 1, 9, 1])) == [1, 2, 3, 4, 5]
        assert recorder.batches == [[1, 2], [3, 4], [5]]

    run(test())


def test_while_one_batch_is_assessed_the_next_gathers() -> None:
    async def test() -> None:
        recorder = Recorder()
        recorder.open.clear()
        batcher = Batcher(recorder, max_tokens=100, max_images=1000, max_waiting=100)
        first = asyncio.create_task(submit(batcher, [0]))
        await settled()
        others = [asyncio.create_task(submit(batcher, [i])) for i in range(1, 6)]
        await settled()
        recorder.open.set()
        await asyncio.gather(first, *others)
        assert recorder.batches == [[0], [1, 2, 3, 4, 5]]

    run(test())


def test_a_suspect_is_assessed_alone() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=100, max_images=1000, max_waiting=100)
        await asyncio.gather(submit(batcher, [1]), submit(batcher, [2], is_alone=True), submit(batcher, [3, 4]))
        assert recorder.batches == [[1], [2], [3, 4]]

    run(test())


def test_the_images_of_a_caller_who_left_are_not_assessed() -> None:
    async def test() -> None:
        recorder = Recorder()
        recorder.open.clear()
        batcher = Batcher(recorder, max_tokens=1, max_images=1000, max_waiting=100)
        first = asyncio.create_task(submit(batcher, [0]))
        gone = asyncio.create_task(submit(batcher, [1, 2]))
        stays = asyncio.create_task(submit(batcher, [3]))
        await settled()
        gone.cancel()
        recorder.open.set()
        await asyncio.gather(first, stays)
        assert recorder.batches == [[0], [3]]

    run(test())


def test_a_full_queue_turns_callers_away_and_recovers() -> None:
    async def test() -> None:
        recorder = Recorder()
        recorder.open.clear()
        batcher = Batcher(recorder, max_tokens=1, max_images=1000, max_waiting=8)
        first = asyncio.create_task(submit(batcher, [0]))
        await settled()
        waiting = [asyncio.create_task(submit(batcher, [i], caller="a")) for i in range(1, 5)]
        await settled()
        assert await submit(batcher, [5, 6], caller="a") == [Busy(), Busy()], "four of eight are one caller's half"
        mixed = asyncio.create_task(batcher.submit([5, 6, 7], [1, 1, 1], ["a", "b", "b"]))
        await settled()
        assert batcher.num_waiting == 6, "another's images have room in the same call"
        recorder.open.set()
        busy, *others = await mixed
        assert (busy, numbers(others)) == (Busy(), [6, 7])
        await asyncio.gather(first, *waiting)
        assert numbers(await submit(batcher, list(range(20)))) == [*range(20)]  # more than may wait, but none does
        assert batcher.num_waiting == 0

    run(test())


def test_one_image_does_not_wait_for_a_thousand_of_another_caller() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=4, max_images=1000, max_waiting=4000)
        thousand = asyncio.create_task(submit(batcher, list(range(1000))))
        await asyncio.sleep(0)
        await asyncio.gather(submit(batcher, [-2, -3], caller="b"), submit(batcher, [-4], [4], caller="c"))
        await thousand
        assert recorder.batches[:3] == [[0, -2, 1, -3], [-4], [2, 3, 4, 5]]
        assert all(len(batch) == 4 for batch in recorder.batches[2:-1]), "batches stay full"
        assert [number for batch in recorder.batches for number in batch if number >= 0] == [*range(1000)]

    run(test())


def test_callers_who_keep_asking_have_equal_tokens() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=12, max_images=1000, max_waiting=4000)
        await asyncio.gather(
            submit(batcher, [1] * 120, [1] * 120, caller="small"),
            submit(batcher, [6] * 20, [6] * 20, caller="large"),
        )
        assert all(sum(batch) == 12 for batch in recorder.batches), "the tokens are the numbers"
        half_way = [number for batch in recorder.batches[:10] for number in batch]
        assert abs(half_way.count(1) - 6 * half_way.count(6)) <= 12

    run(test())


def test_room_in_the_queue_comes_back_however_a_call_ends() -> None:
    async def test() -> None:
        recorder = Recorder()
        recorder.open.clear()
        batcher = Batcher(recorder, max_tokens=2, max_images=1000, max_waiting=8)
        calls = [asyncio.create_task(submit(batcher, [-1, 1, 2], caller=caller)) for caller in "ab"]
        await settled()
        calls[1].cancel()
        recorder.open.set()
        await asyncio.wait(calls)
        assert (batcher.num_waiting, batcher._room.free) == (0, 8)

    run(test())


def test_a_failure_reaches_those_of_its_batch_only() -> None:
    async def test() -> None:
        batcher = Batcher(Recorder(), max_tokens=1, max_images=1000, max_waiting=100)
        bad, good = await asyncio.gather(submit(batcher, [-1]), submit(batcher, [7]), return_exceptions=True)
        assert isinstance(bad, RuntimeError)
        assert isinstance(good, list)
        assert numbers(good) == [7]

    run(test())
