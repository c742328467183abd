"""Training by ranking on a real Ray: ranked and exported, whatever was killed in between."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqa_core.assessor.checkpoint.manifest import read_manifest
from iqa_core.assessor.direct import assess_images, load_assessor
from jobs.command import parse
from jobs.training.ranking_job import checked
from jobs.training.ranking_settings import RankingSettings
from tests.assessor.tiny import save_qwen2_5_vl
from tests.clock import wait_for
from tests.clusters import descendants
from tests.jobs.running import command, environment
from tests.training.ranking.tasks import save_warm, two_opinions
from tests.training.tasks import scene_opinions
from tests.training.workers import Job, run_jobs

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 6
FLAGS = (
    "--worker-cpus 0.5 --threads 1 --images 4 --rollouts 4 --micro-batch 4 --max-new-tokens 16 --learning-rate 1e-4 "
    f"--precision fp32 --zero-stage 0 --no-gradient-checkpointing --max-steps {STEPS} --every 2 "
    "--validation-fraction 0.34"
).split()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of data and base: 12 scenes with two opinions each, and a checkpoint that writes two numbers."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "base").mkdir()
    opinions = scene_opinions(folder / "scenes", 12)
    warm = save_warm(save_qwen2_5_vl(folder / "base"), folder / "warm", opinions)
    with (folder / "scenes" / "two.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "dimension", "mos"))
        writer.writerows((one.image, one.dimension, one.mos) for one in two_opinions(opinions))
    base = ["--base", str(warm), "--rubric", str(warm / "ranked.toml")]
    return ["--train", str(folder / "scenes" / "two.csv"), *base, *FLAGS]


@pytest.fixture
def started(ray_address: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Jobs that were started; whatever still runs at the end is ended."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def start(address: str, *flags: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*flags, "--code-on-nodes", job="train_grpo"),
        env=environment(address),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def figures(output: Path) -> list[dict[str, Any]]:
    file = output / "figures.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_ranks_validates_and_exports_what_scoring_takes(
    given: list[str], started: list[subprocess.Popen[str]], ray_address: str, tmp_path: Path
) -> None:
    output = tmp_path / "ranked"
    started.append(start(ray_address, *given, "--output", output))
    printed = ended(started[-1])
    assert "rewards    fidelity 1, score 1, format 0.5" in printed
    assert f"step {STEPS}/{STEPS}" in printed
    assert "calibrate  quality: none; opinions on " in printed, "the validation part is too small"
    assert [record["step"] for record in figures(output)] == list(range(1, STEPS + 1))
    assert [record["step"] for record in figures(output) if "parsed" in record] == [2, 4, 6]
    exported = output / "checkpoint"
    assert "rewards fidelity 1, score 1, format 0.5" in (exported / "README.md").read_text()
    manifest = read_manifest(exported)
    assert manifest is not None
    assert manifest.rubric == "rubric.toml"
    assert manifest.golden, "texts and numbers about the bundled images"
    scenes = Path(given[1]).parent
    [found] = assess_images(load_assessor(str(exported), threads=1), [scenes / "scene-000000.png"])
    assert all(1 <= score <= 5 for score in found.scores_K)  # type: ignore[union-attr]
    assert list((output / "tensorboard").iterdir())


@pytest.mark.chaos
def test_a_killed_worker_changes_no_step(
    given: list[str], started: list[subprocess.Popen[str]], ray_address: str, tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    flags = [*given, "--output", str(output), "--num-workers", "2"]
    task = checked(parse(RankingSettings, flags)).task
    process = start(ray_address, *flags)
    started.append(process)
    wait_for(lambda: len(figures(output)) > 2 or process.poll() is not None, timeout_s=400, every_s=0.05)
    assert process.poll() is None, process.communicate()[0]
    victims = descendants(os.getpid(), "RayTrainWorker")  # of the cluster, which this process started
    assert len(victims) == 2
    victims[1].kill()
    ended(process)
    wanted = run_jobs(tmp_path, 1, [Job("undisturbed", task)])["undisturbed"]
    found = figures(output)
    assert [record["step"] for record in found] == list(range(1, STEPS + 1))
    for name in ("reward", "kl", "entropy"):
        assert [one[name] for one in found] == pytest.approx([one[name] for one in wanted], abs=1e-4)
