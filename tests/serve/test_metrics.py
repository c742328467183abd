"""What processes count -> one page: counts add up, and a process that is gone has no gauges on it."""

from __future__ import annotations

import asyncio

from serve.metrics import Counts, Histogram, Metrics


def lines(page: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))


def test_counts_of_all_processes_add_up() -> None:
    async def test() -> None:
        counts = Counts()
        for source, rewards in (("a", [1.5, 4.5]), ("b", [4.5]), ("a", [])):
            metrics = Metrics()
            for reward in rewards:
                metrics.image(reward)
            metrics.image("corrupt")
            await counts.add(source, metrics, {"waiting_images": len(rewards)})
        page = lines(await counts.page())
        assert page['iqa_images_total{outcome="scored"}'] == "3.0"
        assert page['iqa_images_total{outcome="corrupt"}'] == "3.0"
        assert page["iqa_reward_sum"] == "10.5"
        assert page["iqa_waiting_images"] == "1.0", "the latest of each process"

    asyncio.run(test())


def test_several_rubrics_are_counted_apart() -> None:
    async def test() -> None:
        counts = Counts()
        for rubric, reward in (("a", 1.5), ("b", 4.5), ("b", 5.0)):
            metrics = Metrics()
            metrics.image(reward, rubric)
            metrics.image("corrupt", "a")
            await counts.add("one", metrics, {})
        page = lines(await counts.page())
        assert page['iqa_images_total{outcome="scored",rubric="b"}'] == "2.0"
        assert page['iqa_images_total{outcome="corrupt",rubric="a"}'] == "3.0"
        assert (page['iqa_reward_sum{rubric="a"}'], page['iqa_reward_sum{rubric="b"}']) == ("1.5", "9.5")
        assert page['iqa_reward_bucket{le="+Inf",rubric="b"}'] == "2.0"

    asyncio.run(test())


def test_what_was_taken_is_counted_no_more_and_comes_back_where_it_was_not_delivered() -> None:
    metrics = Metrics()
    metrics.request("/v1/assess", 200, 0.1)
    taken = metrics.taken()
    assert (metrics, taken.requests["/v1/assess", 200]) == (Metrics(), 1)
    metrics.request("/v1/assess", 200, 0.2)
    metrics.merge(taken)
    assert metrics.requests["/v1/assess", 200] == sum(metrics.latency_s.counts) == 2


def test_a_bucket_holds_what_lies_at_or_under_its_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert histogram.cumulated() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
