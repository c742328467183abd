"""The two trainings, small enough for tests: how they are started, and what they report and learn undisturbed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqa_core.training.task import TrainingTask
from jobs.command import parse
from jobs.training.job import checked as checked_sft
from jobs.training.ranking_job import checked as checked_ranking
from jobs.training.ranking_settings import RankingSettings
from jobs.training.settings import TrainSettings
from tests.assessor.tiny import save_qwen2_5_vl
from tests.clock import wait_for
from tests.jobs.running import command, environment, over
from tests.training.ranking.tasks import save_warm, two_opinions
from tests.training.tasks import scene_opinions, write_opinions

PLAIN = "--no-gradient-checkpointing"
SFT = (
    "--num-workers 2 --worker-cpus 0.5 --threads 1 --global-batch 4 --micro-batch 1 --every 4 --log-every 1 "
    "--max-steps 12 --learning-rate 1e-3 --precision fp32 --zero-stage 2 --targets linear --validation-fraction 0.4"
)
RANKING = (
    "--num-workers 1 --worker-cpus 0.5 --threads 1 --images 4 --rollouts 4 --micro-batch 4 --max-new-tokens 16 "
    "--learning-rate 1e-4 --precision fp32 --zero-stage 0 --max-steps 6 --every 2 --validation-fraction 0.34"
)


@dataclass(frozen=True)
class SmallTraining:
    """A job with its data, of a few steps."""

    job: str
    flags: tuple[str, ...]
    """With a value each."""
    steps: int
    every: int
    """Steps from one validation to the next."""
    same: tuple[str, ...]
    """Figures that are those of the undisturbed run."""
    image: Path
    """One that it has seen."""

    def given(self, output: object, *more: object) -> list[str]:
        """Flags for this output, with more in the place of those that are given."""
        return [*over(self.flags, *more), PLAIN, "--output", str(output)]

    def task(self, output: Path) -> TrainingTask:
        flags = self.given(output)
        if self.job == "train_grpo":
            return checked_ranking(parse(RankingSettings, flags)).task
        return checked_sft(parse(TrainSettings, flags)).task


def small_sft(folder: Path) -> SmallTraining:
    """Of 12 scenes with opinions in four dimensions."""
    (folder / "base").mkdir()
    save_qwen2_5_vl(folder / "base")
    opinions = write_opinions(folder / "scenes", 12)
    flags = ("--train", str(opinions), "--base", str(folder / "base"), *SFT.split())
    return SmallTraining("train_sft", flags, 12, 4, ("loss", "validation_loss"), opinions.parent / "scene-000000.png")


def small_ranking(folder: Path) -> SmallTraining:
    """Of 12 scenes with two opinions each, from a checkpoint that writes two numbers."""
    (folder / "base").mkdir()
    opinions = scene_opinions(folder / "scenes", 12)
    warm = save_warm(save_qwen2_5_vl(folder / "base"), folder / "warm", opinions)
    table = folder / "scenes" / "two.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "dimension", "mos"))
        writer.writerows((one.image, one.dimension, one.mos) for one in two_opinions(opinions))
    flags = ("--train", str(table), "--base", str(warm), "--rubric", str(warm / "ranked.toml"), *RANKING.split())
    return SmallTraining("train_grpo", flags, 6, 2, ("reward", "kl", "entropy"), table.parent / "scene-000000.png")


Start = Callable[..., subprocess.Popen[str]]


@contextmanager
def starting(training: SmallTraining, address: str) -> Iterator[Start]:
    """Inside, it starts the job with an output and more flags; whatever still runs at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(output: object, *more: object) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                command(*training.given(output, *more), "--code-on-nodes", job=training.job),
                env=environment(address),
                cwd="/",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """What it printed, when it has succeeded."""
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def wait_at_work(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    wait_for(lambda: condition() or process.poll() is not None, timeout_s=400, every_s=0.05)
    assert process.poll() is None, process.communicate()[0]


def records(output: Path, name: str = "figures.jsonl") -> list[dict[str, Any]]:
    """What the run has reported so far."""
    file = output / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
