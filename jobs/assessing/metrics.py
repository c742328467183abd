"""What a run counts -> Ray's metrics, which every node exports for Prometheus, with `ray_` before each name.

The driver's are brought up to date once a second, whatever the number of images; an actor adds once per batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from iqa_core.levels import REWARD_BOUNDS
from iqa_core.tables.scores.summary import BINS, Distribution

_GAUGES = {
    "chunks_total": "Chunks that the run is about.",
    "chunks_done": "Chunks that are complete.",
    "chunks_open": "Chunks of which some rows have come back.",
    "chunks_failed": "Chunks whose source could not be read in this run.",
    "commits_waiting": "Complete chunks that wait to be written.",
    "images_left": "Images of the run's chunks that have not come back; absent where only reading tells.",
    "eta_seconds": "Seconds to the end at the mean rate of the run; absent where it is not known.",
    "quiet_seconds": "Seconds since a batch came back.",
}


class RunMetrics:
    """Metrics of one run, exported by its driver."""

    def __init__(self, run: str) -> None:
        """run: its id, a label of every figure."""
        from ray.util.metrics import Counter, Gauge

        self._tags = {"run": run}
        self._gauges = {name: Gauge(f"iqa_job_{name}", text, ("run",)) for name, text in _GAUGES.items()}
        self._images = Counter("iqa_job_images", "Images that came back, by status.", ("run", "status"))
        self._rejected = Counter(
            "iqa_job_rejected", "Rejected images of complete chunks, by reason.", ("run", "reason")
        )
        self._rewards = Counter("iqa_job_reward_bucket", "Scored images of complete chunks, by reward.", ("run", "le"))
        self._counted: dict[tuple[str, str], int] = {}

    def update(self, standing: Mapping[str, Any], rewards: Distribution | None) -> None:
        """Export how the run stands. standing: its figures; rewards: those of all images that it scored so far."""
        for name, gauge in self._gauges.items():
            if standing.get(name) is not None:
                gauge.set(standing[name], self._tags)
        rejected = standing["rejected_this_run"]
        self._count(self._images, "status", "scored", standing["images_this_run"] - rejected)
        self._count(self._images, "status", "rejected", rejected)
        for reason, count in standing["rejected_by_reason"].items():
            self._count(self._rejected, "reason", reason, count)
        if rewards is not None:
            for bound, count in zip(REWARD_BOUNDS, _cumulated(rewards), strict=True):
                self._count(self._rewards, "le", str(bound), count)
            self._count(self._rewards, "le", "+Inf", rewards.count)

    def _count(self, counter: Any, label: str, value: str, total: int) -> None:
        """Add what is new since the last time."""
        new = total - self._counted.get((label, value), 0)
        if new > 0:
            counter.inc(new, {**self._tags, label: value})
            self._counted[label, value] = total


class BusySeconds:
    """Counter of the seconds that one actor assesses; its rate is the share of time that the actor is busy."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._counter = Counter("iqa_actor_busy_seconds", "Seconds spent assessing.")

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Add the duration of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._counter.inc(time.monotonic() - began)


def _cumulated(rewards: Distribution) -> list[int]:
    """Rewards up to each of REWARD_BOUNDS."""
    width = BINS // len(REWARD_BOUNDS)
    found: list[int] = np.cumsum(rewards.histogram)[width - 1 :: width].tolist()
    return found
