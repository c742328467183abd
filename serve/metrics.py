"""What happened in every process of the endpoint -> one page of numbers for Prometheus.

Ingresses and replicas count for themselves and hand their counts over once a second; one small deployment adds them up.
So a scrape that reaches any ingress sees all of them, and counting costs a request nothing but an addition.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from iqa_core.levels import REWARD_BOUNDS

REPORT_EVERY_S = 1.0
FORGET_GAUGES_AFTER_S = 10.0
"""A process that has not reported for so long is gone, and its gauges count no more."""

LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
FILL = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(slots=True)
class Histogram:
    """How many values lie under each bound."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: Histogram) -> None:
        """Add what another with the same bounds has counted."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def cumulated(self) -> list[tuple[str, float]]:
        """Prometheus' buckets: upper bound and how many values lie at or under it."""
        reached = 0
        buckets = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            reached += count
            buckets.append((bound, float(reached)))
        return buckets


@dataclass(slots=True)
class Metrics:
    """Counts of one process since they were last handed over, or of all since the start."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(path, status)"""
    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(rubric, `scored` or the reason of the rejection); a rubric is named where there are several."""
    retries: Counter[str] = field(default_factory=Counter)
    """Groups of images that were sent to a replica again, by why."""
    turned_away: Counter[str] = field(default_factory=Counter)
    """Requests that met a limit of the moment (408, 429, 503), by which."""
    texts_cut: int = 0
    """Texts of images of which only the beginning was asked about."""
    latency_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_S))
    batch_images: Histogram = field(default_factory=lambda: Histogram(FILL))
    assess_s: Histogram = field(default_factory=lambda: Histogram(LATENCY_S))
    reward: dict[str, Histogram] = field(default_factory=dict)
    """By rubric."""

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests[path, status] += 1
        self.latency_s.add(seconds)

    def image(self, outcome: str | float, rubric: str = "") -> None:
        """Count an image that was answered, by its reward or the reason of its rejection."""
        if isinstance(outcome, str):
            self.images[rubric, outcome] += 1
        else:
            self.images[rubric, "scored"] += 1
            self._reward(rubric).add(outcome)

    def batch(self, num_images: int, seconds: float) -> None:
        """Count a batch that was assessed."""
        self.batch_images.add(num_images)
        self.assess_s.add(seconds)

    def merge(self, other: Metrics) -> None:
        """Add what another process has counted."""
        self.requests.update(other.requests)
        self.images.update(other.images)
        self.retries.update(other.retries)
        self.turned_away.update(other.turned_away)
        self.texts_cut += other.texts_cut
        self.latency_s.merge(other.latency_s)
        self.batch_images.merge(other.batch_images)
        self.assess_s.merge(other.assess_s)
        for rubric, histogram in other.reward.items():
            self._reward(rubric).merge(histogram)

    def _reward(self, rubric: str) -> Histogram:
        return self.reward.setdefault(rubric, Histogram(REWARD_BOUNDS))

    def taken(self) -> Metrics:
        """The counts so far; from now on they start at nothing."""
        copy, fresh = replace(self), Metrics()
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(fresh, name))
        return copy


class Counts:
    """The Serve deployment `Counts`: adds up what all others report."""

    def __init__(self) -> None:
        self._all = Metrics()
        self._gauges: dict[str, tuple[float, Mapping[str, float]]] = {}

    async def add(self, source: str, metrics: Metrics, gauges: Mapping[str, float]) -> None:
        """Add what a process has counted since its last report; its gauges replace those of that report."""
        self._all.merge(metrics)
        self._gauges[source] = (time.monotonic(), gauges)

    async def page(self) -> str:
        """Prometheus' text format."""
        oldest = time.monotonic() - FORGET_GAUGES_AFTER_S
        self._gauges = {source: seen for source, seen in self._gauges.items() if seen[0] >= oldest}
        return exposition(self._all, [gauges for _, gauges in self._gauges.values()])


def exposition(metrics: Metrics, gauges: list[Mapping[str, float]]) -> str:
    """Prometheus' text format of counts, and of gauges added up over processes."""

    class Source:
        def collect(self) -> Iterator[Metric]:
            yield from _counters(metrics)
            yield from _histograms(metrics)
            for name, text in GAUGES.items():
                values = [one[name] for one in gauges if name in one]
                yield GaugeMetricFamily(f"iqa_{name}", text, value=sum(values))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Source())
    return generate_latest(registry).decode()


GAUGES = {
    "waiting_images": "Images in front of an assessor that no batch has taken yet.",
    "open_requests": "Requests with a body that are received or answered.",
}


def _counters(metrics: Metrics) -> Iterator[Metric]:
    requests = CounterMetricFamily("iqa_requests", "Requests answered.", labels=["path", "status"])
    for (path, status), count in sorted(metrics.requests.items()):
        requests.add_metric([path, str(status)], count)
    named = _rubric_label(rubric for rubric, _ in metrics.images)
    images = CounterMetricFamily("iqa_images", "Images answered, by what became of them.", labels=[*named, "outcome"])
    for (rubric, outcome), count in sorted(metrics.images.items()):
        images.add_metric([*([rubric] if named else []), outcome], count)
    retries = CounterMetricFamily("iqa_retries", "Groups of images sent to a replica again, by why.", labels=["why"])
    for why, count in sorted(metrics.retries.items()):
        retries.add_metric([why], count)
    turned_away = CounterMetricFamily("iqa_turned_away", "Requests that met a limit, by which.", labels=["why"])
    for why, count in sorted(metrics.turned_away.items()):
        turned_away.add_metric([why], count)
    cut = CounterMetricFamily("iqa_texts_cut", "Texts asked about up to slot_chars only.", value=metrics.texts_cut)
    yield from (requests, images, retries, turned_away, cut)


def _histograms(metrics: Metrics) -> Iterator[Metric]:
    for name, text, histogram in (
        ("request_seconds", "Time to answer a request.", metrics.latency_s),
        ("batch_images", "Images that an assessor took at once.", metrics.batch_images),
        ("assess_seconds", "Time that a batch took.", metrics.assess_s),
    ):
        family = HistogramMetricFamily(f"iqa_{name}", text)
        family.add_metric([], buckets=histogram.cumulated(), sum_value=histogram.total)
        yield family
    by_rubric = metrics.reward or {"": Histogram(REWARD_BOUNDS)}
    named = _rubric_label(by_rubric)
    rewards = HistogramMetricFamily("iqa_reward", "Rewards of scored images.", labels=named)
    for rubric, histogram in sorted(by_rubric.items()):
        rewards.add_metric([rubric] if named else [], buckets=histogram.cumulated(), sum_value=histogram.total)
    yield rewards


def _rubric_label(rubrics: Iterable[str]) -> list[str]:
    """The label of the rubric, where there are several."""
    return ["rubric"] if any(rubrics) else []


async def report_to(counts: Any, metrics: Metrics, gauges: Callable[[], Mapping[str, float]]) -> None:
    """Hand counts over once a second, for ever; what could not be delivered is kept for the next time."""
    source = uuid.uuid4().hex
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        taken = metrics.taken()
        try:
            await counts.add.remote(source, taken, gauges())
        except Exception:  # the deployment of counts is being replaced: nothing that a caller should notice
            metrics.merge(taken)
