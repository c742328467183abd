"""The training job on a real Ray: trained and exported, whatever was killed in between.

Tests jobs/training/flow.py, jobs/training/settings.py, jobs/training/watch.py and jobs/training/worker.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from iqa_core.assessor.direct import assess_images, load_assessor
from jobs.command import parse
from jobs.training.job import checked
from jobs.training.settings import TrainSettings
from tests.assessor.tiny import save_qwen2_5_vl
from tests.clock import wait_for
from tests.clusters import descendants, several_nodes
from tests.jobs.running import command, environment, over
from tests.s3_server import SECRET, Bucket, storage_options
from tests.training.tasks import write_opinions
from tests.training.workers import Job, run_jobs, weights

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

Start = Callable[..., subprocess.Popen[str]]
Ended = tuple[list[dict[str, float]], dict[str, torch.Tensor]]
"""Figures by step, and the weights that were trained."""

STEPS = 12
FLAGS = (
    "--num-workers 2 --worker-cpus 0.5 --threads 1 --global-batch 4 --micro-batch 1 --every 4 --log-every 1 "
    f"--max-steps {STEPS} --learning-rate 1e-3 --precision fp32 --zero-stage 2 --targets linear "
    "--validation-fraction 0.4"
).split()
PLAIN = "--no-gradient-checkpointing"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "base").mkdir()
    save_qwen2_5_vl(folder / "base")
    write_opinions(folder / "scenes", 12)
    return folder


@pytest.fixture(scope="module")
def start(data: Path, ray_address: str) -> Iterator[Start]:
    """Starts the job with this output and these flags more; whatever still runs at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(output: object, *more: object) -> subprocess.Popen[str]:
        started.append(_start(ray_address, data, output, *more))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _start(address: str, data: Path, output: object, *more: object) -> subprocess.Popen[str]:
    given = ["--train", data / "scenes" / "annotations.csv", "--base", data / "base", "--output", output]
    return subprocess.Popen(
        command(*given, *over(FLAGS, "--code-on-nodes", *more), PLAIN, job="train_sft"),
        env=environment(address),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def figures(output: Path) -> list[dict[str, Any]]:
    file = output / "figures.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_at_work(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    wait_for(lambda: condition() or process.poll() is not None, timeout_s=400, every_s=0.1)
    assert condition(), process.communicate()[0]


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def undisturbed(data: Path) -> Ended:
    """Figures and weights of the same steps, taken by one worker without Ray."""
    given = ["--train", data / "scenes" / "annotations.csv", "--base", data / "base", "--output", data / "undisturbed"]
    task = checked(parse(TrainSettings, [*map(str, given), *FLAGS, PLAIN])).task
    records = run_jobs(data, 1, [Job("undisturbed", task)])["undisturbed"]
    return records, weights(data, "undisturbed", STEPS)


@pytest.fixture(scope="module")
def trained(data: Path, start: Start) -> tuple[Path, str]:
    """A run on Ray that nothing disturbs, of one worker, which takes the same steps as two and starts sooner; and what
    it printed."""
    return data / "trained", ended(start(data / "trained", "--num-workers", 1))


def test_a_run_trains_validates_and_exports(trained: tuple[Path, str], data: Path) -> None:
    output, printed = trained
    records = figures(output)
    assert records[-1]["loss"] < records[0]["loss"]
    assert [record["step"] for record in records if "validation_loss" in record] == [4, 8, 12]
    assert f"step {STEPS}/{STEPS}" in printed
    assert "exported" in printed
    assert list((output / "tensorboard").iterdir())
    assessor = load_assessor(str(output / "checkpoint"), threads=1)
    [found] = assess_images(assessor, [data / "scenes" / "scene-000000.png"])
    assert all(1 <= score <= 5 for score in found.scores_K)  # type: ignore[union-attr]


def test_the_best_and_the_last_checkpoint_are_kept(trained: tuple[Path, str]) -> None:
    kept = [json.loads(file.read_text()) for file in (trained[0] / "ray").glob("checkpoint_*/progress.json")]
    assert STEPS in {record["step"] for record in kept}
    assert len(kept) <= 2
    best = max(record["rank_by"] for record in figures(trained[0]) if "validation_loss" in record)
    assert max(record["rank_by"] for record in kept) == pytest.approx(best)
    others = [record["rank_by"] for record in kept if record["step"] != STEPS]
    assert others == pytest.approx([best] * len(others)), "of equals, any may be the one that is kept"


def test_the_same_command_again_finds_nothing_to_do(trained: tuple[Path, str], start: Start) -> None:
    before = (trained[0] / "figures.jsonl").stat().st_mtime_ns
    assert "is there already" in ended(start(trained[0], "--num-workers", 1))
    assert (trained[0] / "figures.jsonl").stat().st_mtime_ns == before


def last_weights(output: Path) -> dict[str, torch.Tensor]:
    """What was trained, in the checkpoint of the last step; a driver that died over it may have left one besides."""
    *_, last = [
        file.parent
        for file in sorted((output / "ray").glob("checkpoint_*/progress.json"))
        if json.loads(file.read_text())["step"] == STEPS
    ]
    return load_file(last / "trained.safetensors")


def assert_ends_like(output: Path, undisturbed: Ended) -> None:
    """The same number of steps with the same losses, and the same weights."""
    records, wanted = undisturbed
    assert [record["step"] for record in figures(output)] == list(range(1, STEPS + 1))
    for name in ("loss", "validation_loss"):
        losses = [record[name] for record in records if name in record]
        assert [record[name] for record in figures(output) if name in record] == pytest.approx(losses, abs=1e-4)
    found = last_weights(output)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float((found[name] - value).abs().max()) <= 1e-4, name


@pytest.mark.chaos
def test_a_killed_worker_changes_nothing(data: Path, start: Start, undisturbed: Ended) -> None:
    output = data / "killed"
    process = start(output)
    wait_at_work(lambda: any(record["step"] > 4 for record in figures(output)), process)
    victims = descendants(os.getpid(), "RayTrainWorker")  # of the cluster, which this process started
    assert len(victims) == 2
    victims[1].kill()
    ended(process)
    assert_ends_like(output, undisturbed)


@pytest.mark.chaos
def test_a_lost_node_changes_nothing(data: Path, undisturbed: Ended) -> None:
    output = data / "node-lost"
    given = ("--train", data / "scenes" / "annotations.csv", "--base", data / "base", "--output", output)
    with several_nodes(2, head_cpus=0, worker_cpus=1) as nodes:
        process = nodes.submit("jobs/train_sft.py", *given, *over(FLAGS, "--worker-cpus", 1), PLAIN)
        nodes.wait_until(process, lambda: any(record["step"] > 4 for record in figures(output)))
        assert [len(nodes.on_worker(index, "RayTrainWorker")) for index in range(2)] == [1, 1]
        nodes.lose_worker()
        nodes.add_worker()
        nodes.ended(process)
    assert_ends_like(output, undisturbed)


@pytest.mark.chaos
@pytest.mark.s3
def test_on_an_object_store_a_killed_driver_goes_on_with_the_same_command_and_exports(
    s3: Bucket,
    undisturbed: Ended,
    trained: tuple[Path, str],
    data: Path,
    start: Start,
    tmp_path: Path,
) -> None:
    output = s3.uri("runs/first")
    # one worker takes the same steps as two, and starts sooner
    flags = ("--num-workers", 1, "--storage-options", json.dumps(storage_options(s3.endpoint)))

    def records() -> list[dict[str, Any]]:
        there = "runs/first/figures.jsonl" in s3.keys("runs/first/figures")
        return [json.loads(line) for line in s3.get("runs/first/figures.jsonl").splitlines()] if there else []

    process = start(output, *flags)
    wait_at_work(lambda: any(record["step"] > 4 for record in records()), process)
    os.kill(process.pid, signal.SIGKILL)
    printed = process.communicate()[0]
    wait_for(lambda: not descendants(os.getpid(), "RayTrainWorker"))  # two would write one checkpoint
    printed += (again := ended(start(output, *flags)))
    assert "step 1/" not in again, "it went on from the checkpoint of step 4 or later"
    assert SECRET not in printed
    s3.fetch_tree("runs/first", tmp_path / "fetched")
    assert_ends_like(tmp_path / "fetched", undisturbed)
    assert not any(SECRET in file.read_text() for file in (tmp_path / "fetched").rglob("*.json"))
    checkpoint = tmp_path / "fetched" / "checkpoint"
    found, wanted = (
        assess_images(load_assessor(str(folder), threads=1), [data / "scenes" / "scene-000000.png"])[0]
        for folder in (checkpoint, trained[0] / "checkpoint")
    )
    assert found.scores_K == pytest.approx(wanted.scores_K, abs=1e-3)  # type: ignore[union-attr]
