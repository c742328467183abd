"""Tasks -> what training them reports, by real worker processes over gloo, as many as wanted, without Ray."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from iqa_core.training.task import WEIGHTS, TrainingTask
from iqa_core.training.written_validation import Example


@dataclass
class Recorder:
    """A host that keeps every report, all workers' shares of every checkpoint in one folder each, and examples."""

    folder: Path
    restored_from: Path | None = None
    reports: list[dict[str, float]] = field(default_factory=list)

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        yield self.restored_from

    def report(self, figures: Mapping[str, float], checkpoint: Path | None, examples: Sequence[Example] = ()) -> None:
        self.reports.append(dict(figures))
        if checkpoint is not None:
            shutil.copytree(checkpoint, self.folder / f"step-{figures['step']}", dirs_exist_ok=True)
        if examples:
            path = self.folder / f"examples-{figures['step']}.json"
            path.write_text(json.dumps([asdict(example) for example in examples]))


@dataclass(frozen=True)
class Job:
    """One training run."""

    name: str
    task: TrainingTask
    restored_from: Path | None = None
    is_refused: bool = False
    """Whether it ends with a RunError, whose message each worker then leaves in `refusal-<rank>.txt`."""


def run_jobs(folder: Path, num_workers: int, jobs: Sequence[Job]) -> dict[str, list[dict[str, float]]]:
    """Rank 0's reports by job; in `folder/<job>`, checkpoints lie in `step-<n>`, examples in `examples-<n>.json`.

    Jobs follow each other in one set of workers: starting one costs ten seconds.
    """
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(folder, rank, num_workers, list(jobs), results))
        for rank in range(num_workers)
    ]
    for process in processes:
        process.start()
    try:
        found = _found(processes, results)
    finally:
        for process in processes:  # one that failed leaves the others waiting for it
            process.terminate()
            process.join()
    return found[0]


def _found(processes: Sequence[BaseProcess], results: Any) -> dict[int, dict[str, list[dict[str, float]]]]:
    """Reports by rank; a worker that fails, or ends without a word, fails all of them."""
    found: dict[int, dict[str, list[dict[str, float]]]] = {}
    while len(found) < len(processes):
        ended = [rank for rank, process in enumerate(processes) if process.exitcode is not None and rank not in found]
        if results.empty():  # what a worker says is there before it ends
            assert not ended, f"worker {ended[0]} ended with exit code {processes[ended[0]].exitcode}, and no word"
            wait([process.sentinel for process in processes if process.exitcode is None], timeout=0.1)
            continue
        rank, result = results.get()
        assert not isinstance(result, str), f"worker {rank}: {result}"
        found[rank] = result
    return found


def weights(folder: Path, job: str, step: int) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / job / f"step-{step}" / WEIGHTS)


def _work(folder: Path, rank: int, num_workers: int, jobs: Sequence[Job], results: Any) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(num_workers), LOCAL_SIZE=str(num_workers))
    import torch
    import torch.distributed as dist

    from iqa_core.errors import RunError
    from iqa_core.training import loop
    from iqa_core.training.ranking import loop as ranking
    from iqa_core.training.ranking.task import RankingTask

    torch.set_num_threads(1)
    try:
        meeting = f"file://{folder / f'meeting-{num_workers}-{jobs[0].name}'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=num_workers)
        reports = {}
        for job in jobs:
            host = Recorder(folder / job.name, job.restored_from)
            train: Any = ranking.train if isinstance(job.task, RankingTask) else loop.train
            try:
                train(job.task, host)
                assert not job.is_refused, "it was to be refused"
            except RunError as error:
                if not job.is_refused:
                    raise
                (folder / job.name).mkdir(exist_ok=True)
                (folder / job.name / f"refusal-{rank}.txt").write_text(str(error))
            reports[job.name] = host.reports
        dist.destroy_process_group()
        results.put((rank, reports))
    except BaseException:
        results.put((rank, traceback.format_exc()))
