"""What one request may hold at the gate, and what one caller."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from serve.admission.places import Admission, Places
from serve.errors import Refusal
from serve.metrics import Metrics
from serve.settings import ServeSettings


def places(**settings: int) -> tuple[Places, Metrics]:
    metrics = Metrics()
    chosen = {"max_requests": 4, "max_body_bytes": 1024, "max_pending_bytes": 4096, **settings}
    return Places(ServeSettings.model_validate(chosen), metrics), metrics


def refused(status: int, work: object) -> Refusal:
    with pytest.raises(Refusal) as raised:
        work()  # type: ignore[operator]
    assert raised.value.status == status
    return raised.value


def test_bytes_count_as_they_come_up_to_the_bound_of_one_request_and_the_half_of_a_caller() -> None:
    shared, metrics = places(max_requests=8)
    with ExitStack() as open_requests:
        first, second, third = (open_requests.enter_context(shared.taken("a")) for _ in range(3))
        first.grow(1000)
        first.grow(24)
        refused(413, lambda: first.grow(1))
        second.grow(1024)
        assert refused(429, lambda: third.grow(1)).headers == {"Retry-After": "1", "Connection": "close"}
        with shared.taken("b") as other:
            other.grow(1024)
            assert other.num_bytes == 1024
        second.leave()
        third.grow(1024)
    assert shared._bytes.free == 4096
    assert metrics.turned_away == {"bytes": 1}


def test_a_place_is_among_those_received_and_then_among_those_answered() -> None:
    shared, metrics = places()
    with ExitStack() as open_requests:

        def take(caller: str) -> Admission:
            return open_requests.enter_context(shared.taken(caller))

        received = [take("a"), take("a")]
        assert "Connection" in refused(429, lambda: take("a")).headers
        received[0].begin_answer()
        take("a").begin_answer()
        assert shared.num_taken == 3
        assert refused(429, received[1].begin_answer).headers == {"Retry-After": "1"}, "its body is read: no need to"
        refused(429, lambda: take("a"))  # its answer would find no place
        take("b").begin_answer()
    assert shared.num_taken == 0
    assert metrics.turned_away == {"places": 3}


def test_a_request_that_fails_leaves_nothing_behind() -> None:
    shared, _ = places()

    async def fails() -> None:
        with shared.taken("a") as admission:
            admission.grow(10)
            admission.begin_answer()
            await asyncio.sleep(60)

    async def test() -> None:
        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(test())
    assert (shared.num_taken, shared._bytes.free) == (0, 4096)
