"""Images of many callers: who shares a batch with whom, and what each gets back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from iqa_core.records import Assessment, Rejection
from serve.batching import Batcher, QueueFull


def assessment(number: int) -> Assessment:
    return Assessment(np.full(1, number, np.float32), np.zeros(1, np.float32), np.zeros((1, 5), np.float32))


class Recorder:
    """Notes the batches, and answers each image with its own number."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, images: Sequence[Any]) -> list[Assessment | Rejection]:
        self.batches.append(list(images))
        await self.open.wait()
        if -1 in images:
            raise RuntimeError("asked to")
        return [assessment(number) for number in images]


def numbers(results: list[Assessment | Rejection]) -> list[float]:
    return [float(result.scores_K[0]) for result in results if isinstance(result, Assessment)]


def run(test: Any) -> None:
    asyncio.run(test)


def test_callers_who_come_together_share_a_batch_and_get_their_own_results() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=100, max_waiting=100)
        answers = await asyncio.gather(*(batcher.submit([i, i + 100], [1, 1]) for i in range(8)))
        assert [numbers(answer) for answer in answers] == [[i, i + 100] for i in range(8)]
        assert len(recorder.batches) == 1

    run(test())


def test_a_batch_is_bounded_by_tokens_but_for_a_single_image() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=10, max_waiting=100)
        assert numbers(await batcher.submit([1, 2, 3, 4], [4, 4, 4, 50])) == [1, 2, 3, 4]
        assert recorder.batches == [[1, 2], [3], [4]]

    run(test())


def test_while_one_batch_is_assessed_the_next_gathers() -> None:
    async def test() -> None:
        recorder = Recorder()
        recorder.open.clear()
        batcher = Batcher(recorder, max_tokens=100, max_waiting=100)
        first = asyncio.create_task(batcher.submit([0], [1]))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(batcher.submit([i], [1])) for i in range(1, 6)]
        await asyncio.sleep(0.01)
        recorder.open.set()
        await asyncio.gather(first, *others)
        assert recorder.batches == [[0], [1, 2, 3, 4, 5]]

    run(test())


def test_a_suspect_is_assessed_alone() -> None:
    async def test() -> None:
        recorder = Recorder()
        batcher = Batcher(recorder, max_tokens=100, max_waiting=100)
        await asyncio.gather(
            batcher.submit([1], [1]), batcher.submit([2], [1], is_alone=True), batcher.submit([3, 4], [1, 1])
        )
        assert recorder.batches == [[1], [2], [3, 4]]

    run(test())


def test_the_images_of_a_caller_who_left_are_not_assessed() -> None:
    async def test() -> None:
        recorder = Recorder()
        recorder.open.clear()
        batcher = Batcher(recorder, max_tokens=1, max_waiting=100)
        first = asyncio.create_task(batcher.submit([0], [1]))
        gone = asyncio.create_task(batcher.submit([1, 2], [1, 1]))
        stays = asyncio.create_task(batcher.submit([3], [1]))
        await asyncio.sleep(0.01)
        gone.cancel()
        recorder.open.set()
        await asyncio.gather(first, stays)
        assert recorder.batches == [[0], [3]]

    run(test())


def test_a_full_queue_turns_callers_away_and_recovers() -> None:
    async def test() -> None:
        recorder = Recorder()
        recorder.open.clear()
        batcher = Batcher(recorder, max_tokens=1, max_waiting=2)
        first = asyncio.create_task(batcher.submit([0], [1]))
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(batcher.submit([1, 2], [1, 1]))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull):
            await batcher.submit([3], [1])
        recorder.open.set()
        await asyncio.gather(first, waiting)
        assert numbers(await batcher.submit([4, 5, 6], [1, 1, 1])) == [4, 5, 6]  # more than may wait, but none does

    run(test())


def test_a_failure_reaches_those_of_its_batch_only() -> None:
    async def test() -> None:
        batcher = Batcher(Recorder(), max_tokens=1, max_waiting=100)
        bad, good = await asyncio.gather(batcher.submit([-1], [1]), batcher.submit([7], [1]), return_exceptions=True)
        assert isinstance(bad, RuntimeError)
        assert isinstance(good, list)
        assert numbers(good) == [7]

    run(test())
