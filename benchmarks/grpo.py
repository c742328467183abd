"""Images per second of drawing answers for training by ranking over TRL's way; shares of a step; two workers over one.

A Qwen2.5-VL of 7.4 million random parameters at 448 x 448: the trainer computes image and prompt once for all of an
image's answers, TRL repeats both for every answer and calls transformers' `generate`. Then steps of the real loop on
`demo-written`, in this process, and of the real job with one worker and with two, one thread each.
Seconds of one thread are the CPU's.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist

from benchmarks.assessor import write_by_generate
from benchmarks.generation import IMAGES, TOKENS, Ours, Theirs, cpu_seconds
from benchmarks.harness import ROOT, main
from iqa_core.assessor.model.generation.proving import Way
from iqa_core.demo.corpus import Extras, write_scenes
from iqa_core.training.loop import Meter, Worker
from iqa_core.training.ranking.loop import RankingTraining
from iqa_core.training.ranking.task import RankingTask
from jobs.command import parse
from jobs.training.ranking_job import checked
from jobs.training.ranking_settings import RankingSettings

ROLLOUTS, REPEATS, TURNS = 6, 3, 2
BATCHES = (1, 2, 4, 8)
"""Images at once that `generate` is tried with; the best counts."""
SCENES, STEPS = 64, 6
FLAGS = (
    f"--base demo-written --rollouts {ROLLOUTS} --micro-batch 12 --max-new-tokens 96 --images 8 --max-steps {STEPS} "
    f"--every {STEPS} --precision fp32 --zero-stage 0 --no-gradient-checkpointing --threads 1 --worker-cpus 1"
).split()


class Drawn(Ours):
    """As the trainer draws: by the model as it is, with its own vision tower."""

    def __post_init__(self) -> None:
        self.way = Way(self.model, self.encoder, None, shares=True)


class Repeated(Theirs):
    """As TRL draws: a prompt and its image for every answer."""

    @torch.inference_mode()
    def write(self, count: int) -> None:
        for at in range(0, IMAGES, count):
            repeated = [image for image in self.images[at : at + count] for _ in range(ROLLOUTS)]
            batch = self.encoder(repeated)
            prompts = [prompt.whole().prefix for prompt in batch.prompts]
            write_by_generate(self.model, prompts, batch.pixels, TOKENS, do_sample=True, top_k=0)


def rollouts() -> dict[str, float]:
    """Images per second with all their answers, of both ways in turns."""
    ours, theirs = Drawn.random(), Repeated.random()
    ours.write(1)
    theirs.write(1)
    sizes = {str(count): partial(theirs.write, count) for count in BATCHES}
    best = min(taken := cpu_seconds(sizes, 1), key=lambda name: taken[name])
    taken = cpu_seconds({"ours": partial(ours.write, ROLLOUTS), "theirs": sizes[best]}, REPEATS)
    return {
        "rollout_images_per_s": IMAGES / taken["ours"],
        "shared_over_generate": taken["theirs"] / taken["ours"],
        "images_of_generate": int(best),
    }


class Clock:
    """CPU seconds inside what it was told to watch."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **named: Any) -> Any:
            with self:
                return call(*args, **named)

        return timed

    def __enter__(self) -> None:
        if not self._depth:
            self._began = time.process_time()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += time.process_time() - self._began


@contextmanager
def one_worker() -> Iterator[Worker]:
    """A process group of this process alone."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_SIZE="1")
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            yield Worker.here()
        finally:
            dist.destroy_process_group()


def shares(task: RankingTask, worker: Worker) -> dict[str, float]:
    """Of a step's CPU seconds: those outside models (the policy and its base), generation and optimizer, and those of
    the judge of captions."""
    training, inside, judging = RankingTraining(task, worker), Clock(), Clock()
    training._draw._writer.answers = inside.watched(training._draw._writer.answers)  # type: ignore[method-assign]
    training.engine.learn = inside.watched(training.engine.learn)  # type: ignore[method-assign]
    models = [training.engine.module]
    if training._reference is not None:
        with training._reference.model() as base:
            models += [base] * (base is not models[0])
    for model in models:
        model.forward = inside.watched(model.forward)
    if training._judge is not None:
        training._judge = judging.watched(inside.watched(training._judge))  # type: ignore[assignment]
    steps = training._steps(0, Meter(worker))
    next(steps)  # the first has the check of agreement in it
    inside.seconds = judging.seconds = 0.0
    began = time.process_time()
    for _ in steps:
        pass
    taken = time.process_time() - began
    return {"step": 1 - inside.seconds / taken, "judge": judging.seconds / taken, "seconds": taken / (STEPS - 1)}


def step_shares(folder: Path) -> dict[str, float]:
    """`step_share` by five numbers, `consistency_share` by captions."""
    numbers = task_of(folder, "interior-written-v1", "annotations.csv", "quality.csv")
    captions = task_of(folder, "interior-perception-v1", "quality.csv", weights='{"score": 1, "caption": 1}')
    with one_worker() as worker:
        own, judged = (shares(task, worker) for task in (numbers, captions))
    return {"step_share": own["step"], "step_s": own["seconds"], "consistency_share": judged["judge"]}


def task_of(folder: Path, rubric: str, *tables: str, weights: str | None = None) -> RankingTask:
    flags = flags_of(folder, rubric, *tables, weights=weights)
    return checked(parse(RankingSettings, [*flags, str(folder / "plan")])).task


def flags_of(folder: Path, rubric: str, *tables: str, weights: str | None = None) -> list[str]:
    """All but the output itself."""
    given = [flag for table in tables for flag in ("--train", str(folder / "in" / table))]
    rewards = [] if weights is None else ["--rewards.composition.weights", weights]
    return [*given, "--rubric", rubric, *FLAGS, *rewards, "--output"]


def job(folder: Path, num_workers: int, turn: int) -> list[float]:
    """Samples per second of the real job, at each of its steps but for the first."""
    output = folder / f"out-{num_workers}-{turn}"
    flags = flags_of(folder, "interior-written-v1", "annotations.csv", "quality.csv")
    script = [sys.executable, str(ROOT / "jobs" / "train_grpo.py")]
    command = [*script, "--num-workers", str(num_workers), *flags, str(output)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RAY_worker_niceness": "0"})
    records = [json.loads(line) for line in (output / "figures.jsonl").read_text().splitlines()]
    return [record["samples_per_s"] for record in records[1:]]


def jobs(folder: Path) -> dict[str, float]:
    """One worker and two in turns, since a neighbour of the machine may slow a whole job; medians over all steps."""
    one, two = (
        statistics.median(chain(*of_turns))
        for of_turns in zip(*([job(folder, count, turn) for count in (1, 2)] for turn in range(TURNS)), strict=True)
    )
    return {"job_samples_per_s": one, "two_over_one": two / one}


def measure() -> Mapping[str, Any]:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found = rollouts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scenes(folder / "in", SCENES, seed=5, extras=Extras(texts=True))
        found |= step_shares(folder)
        found |= jobs(folder)
    return found


if __name__ == "__main__":
    main("grpo", measure)
