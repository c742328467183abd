"""What the benchmarks share: the stream of the real job in this process, steady rates, and how results are said."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from iqa_core.flags import StrictParser
from iqa_core.tables.sink import AssessedBatch
from jobs.assessing.job import considered_chunks
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.stream import stream
from jobs.assessing.work import ChunkTask
from jobs.on_ray.cluster import Pool
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings

ROOT = Path(__file__).resolve().parent.parent


def main(
    name: str, measure: Callable[..., Mapping[str, Any]], add_flags: Callable[[StrictParser], None] | None = None
) -> None:
    """Measure and print: a JSON line with --json, else a line per figure.

    add_flags: adds flags of the benchmark's own, whose values `measure` takes by name.
    """
    parser = StrictParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    if add_flags is not None:
        add_flags(parser)
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    record = {"benchmark": name, **measure(**given), "machine": machine()}
    if as_json:
        print(json.dumps(record), flush=True)
        return
    for key, value in record.items():
        print(f"{key:<28}{value}")


def add_written_flags(parser: StrictParser) -> None:
    """Which checkpoint writes, along which rubric."""
    parser.add_argument(
        "--assessor.checkpoint", dest="checkpoint", default="demo-written", help="that writes (%(default)s)"
    )
    parser.add_argument("--rubric", default="interior-written-v1", help="of the shipped ones (%(default)s)")


def machine() -> dict[str, Any]:
    """Enough to know when two figures may be compared."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": models[0] if models else "unknown",
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("ray", "torch", "transformers", "pyarrow")},
    }


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When images came back: cumulative counts at times in seconds."""

    times_s: list[float]
    counts: list[int]

    def steady_rate(self, after: float = 0.2, until: float = 0.9) -> float:
        """Images per second between these fractions of them: without start and drain."""
        first, last = (self._index(fraction * self.counts[-1]) for fraction in (after, until))
        return (self.counts[last] - self.counts[first]) / (self.times_s[last] - self.times_s[first])

    def _index(self, count: float) -> int:
        return next(i for i, reached in enumerate(self.counts) if reached >= count)


def stream_corpus(settings: ScoreSettings, pool: Pool) -> Arrivals:
    """The job's own plan and stream, without its sink, on the Ray that is connected."""
    job = checked(settings)
    contract = applied(job, proposed(job))
    tasks = [ChunkTask.of(chunk) for chunk in considered_chunks(job)]
    times: list[float] = []
    counts: list[int] = []
    for event in stream(tasks, job.work(contract, pool.threads_per_actor), pool):
        if not isinstance(event, AssessedBatch):
            raise SystemExit(f"a chunk failed: {event}")
        times.append(time.monotonic())
        counts.append((counts[-1] if counts else 0) + len(event.ordinals))
    return Arrivals(times, counts)


@contextmanager
def local_ray(num_cpus: int, object_store_bytes: int) -> Iterator[None]:
    """A Ray of a stated size on this machine."""
    from jobs.on_ray.cluster import RAY_ENVIRONMENT, code_from_here

    os.environ.update(RAY_ENVIRONMENT)
    import ray

    ray.init(
        address="local",
        num_cpus=num_cpus,
        object_store_memory=object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        job_config=code_from_here(),
    )
    try:
        yield
    finally:
        ray.shutdown()
