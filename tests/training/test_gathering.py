"""Real processes over gloo: each gets what all made, or the error of the one that failed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def work(rank: int, folder: Path, results: Any) -> None:
    import torch.distributed as dist

    from iqa_core.errors import RunError
    from iqa_core.training.gathering import gathered

    def parse(failing: range) -> str:
        if rank in failing:
            raise ValueError(f"no grammar {rank}")
        return "parsed"

    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    found = gathered(lambda: f"of {rank}")
    errors = []
    for failing in (range(1, 2), range(2)):
        try:
            gathered(lambda: parse(failing))  # noqa: B023  # called at once
        except RunError as error:
            errors.append(str(error))
    results.put((found, errors))


def test_a_worker_whose_parser_raises_ends_the_others_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=work, args=(rank, tmp_path, results)) for rank in range(2)]
    for process in processes:
        process.start()
    ends = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    errors = ["worker 1: ValueError: no grammar 1", "worker 0: ValueError: no grammar 0"]
    assert ends == [(["of 0", "of 1"], errors)] * 2, "the first one's, where several fail"
