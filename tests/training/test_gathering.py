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

    def parse() -> str:
        if rank == 1:
            raise ValueError("no such grammar")
        return "parsed"

    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    found = gathered(lambda: f"of {rank}")
    try:
        gathered(parse)
    except RunError as error:
        results.put((found, str(error)))


def test_a_worker_whose_parser_raises_ends_the_others_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=work, args=(rank, tmp_path, results)) for rank in range(2)]
    for process in processes:
        process.start()
    ends = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
    assert ends == [(["of 0", "of 1"], "worker 1: ValueError: no such grammar")] * 2
