"""Trainings whose worker, node or driver is lost: each goes on, and ends as if nothing had been, also on S3."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.records import Assessment
from iqa_core.training.export import export
from iqa_core.training.task import PROGRESS, WEIGHTS, TrainingTask
from tests.clock import wait_for
from tests.clusters import descendants, several_nodes
from tests.jobs.trainings import SmallTraining, Start, ended, records, small_ranking, small_sft, starting, wait_at_work
from tests.s3_server import SECRET, Bucket, storage_options
from tests.training.workers import Job, run_jobs, weights

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Undisturbed:
    """A training, and the same steps of it taken by one worker without Ray."""

    training: SmallTraining
    task: TrainingTask
    figures: list[dict[str, float]]
    weights: dict[str, torch.Tensor]

    def assert_is_how_it_ended(self, output: Path, num_workers: int) -> None:
        """The same steps with the same figures, the same weights, and texts of each validation once.

        Adam makes steps of one size of sums that differ by rounding alone, so weights that two workers have learnt by
        ranking are not compared.
        """
        training, found = self.training, records(output)
        assert [record["step"] for record in found] == list(range(1, training.steps + 1))
        for name in training.same:
            wanted = [record[name] for record in self.figures if name in record]
            assert [record[name] for record in found if name in record] == pytest.approx(wanted, abs=TOLERANCE), name
        if num_workers == 1 or training.job == "train_sft":
            learnt = last_weights(output, training.steps)
            assert learnt.keys() == self.weights.keys()
            for name, value in self.weights.items():
                assert float((learnt[name] - value).abs().max()) <= TOLERANCE, name
        steps = [record["step"] for record in records(output, "texts.jsonl")]
        validations = range(training.every, training.steps + 1, training.every) if self.task.rated else ()
        assert steps == [step for step in validations for _ in self.task.rated[:4]]
        assert f"{training.steps} of {training.steps}" in (output / "report.html").read_text()


def kept(output: Path) -> dict[Path, dict[str, Any]]:
    """Checkpoints in Ray's folder, by their numbers, and their figures; a driver that died may have left one more."""
    return {file.parent: json.loads(file.read_text()) for file in sorted((output / "ray").glob(f"*/{PROGRESS}"))}


def last_weights(output: Path, steps: int) -> dict[str, torch.Tensor]:
    *_, last = [folder for folder, figures in kept(output).items() if figures["step"] == steps]
    return load_file(last / WEIGHTS)


def said(checkpoint: Path, image: Path) -> list[float] | str:
    """Scores of an image, or why there are none."""
    [found] = assess_images(load_assessor(str(checkpoint), threads=1), [image])
    return [round(float(score), 3) for score in found.scores_K] if isinstance(found, Assessment) else found.detail


@pytest.fixture(scope="module", params=[small_sft, small_ranking], ids=["sft", "ranking"])
def training(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallTraining:
    make: Callable[[Path], SmallTraining] = request.param
    return make(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(training: SmallTraining, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    task = training.task(folder / "output")
    figures = run_jobs(folder, 1, [Job("undisturbed", task)])["undisturbed"]
    return Undisturbed(training, task, figures, weights(folder, "undisturbed", training.steps))


@pytest.fixture
def start(training: SmallTraining, ray_address: str) -> Iterator[Start]:
    with starting(training, ray_address) as begin:
        yield begin


def test_a_killed_worker_changes_nothing(undisturbed: Undisturbed, start: Start, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    process = start(output, "--num-workers", 2)
    wait_at_work(lambda: any(one["step"] > undisturbed.training.every for one in records(output)), process)
    victims = descendants(os.getpid(), "RayTrainWorker")  # of the cluster, which this process started
    assert len(victims) == 2
    victims[1].kill()
    ended(process)
    undisturbed.assert_is_how_it_ended(output, 2)


def test_a_lost_node_changes_nothing(undisturbed: Undisturbed, tmp_path: Path) -> None:
    training, output = undisturbed.training, tmp_path / "node-lost"
    given = training.given(output, "--num-workers", 2, "--worker-cpus", 1)
    with several_nodes(2, head_cpus=0, worker_cpus=1) as nodes:
        process = nodes.submit(f"jobs/{training.job}.py", *given)
        nodes.wait_until(process, lambda: any(one["step"] > training.every for one in records(output)))
        assert [len(nodes.on_worker(index, "RayTrainWorker")) for index in range(2)] == [1, 1]
        nodes.lose_worker()
        nodes.add_worker()
        nodes.ended(process)
    undisturbed.assert_is_how_it_ended(output, 2)


@pytest.mark.s3
def test_on_an_object_store_a_killed_driver_goes_on_with_the_same_command_and_exports(
    s3: Bucket, undisturbed: Undisturbed, start: Start, tmp_path: Path
) -> None:
    training, output = undisturbed.training, s3.uri("runs/first")
    # one worker takes the same steps as two, and starts sooner
    flags = ("--num-workers", 1, "--storage-options", json.dumps(storage_options(s3.endpoint)))

    def has_gone_on() -> bool:
        there = "runs/first/figures.jsonl" in s3.keys("runs/first/figures")
        lines = s3.get("runs/first/figures.jsonl").splitlines() if there else []
        return any(json.loads(line)["step"] > training.every for line in lines)

    process = start(output, *flags)
    wait_at_work(has_gone_on, process)
    os.kill(process.pid, signal.SIGKILL)
    printed = process.communicate()[0]
    wait_for(lambda: not descendants(os.getpid(), "RayTrainWorker"))  # two would write one checkpoint
    printed += (again := ended(start(output, *flags)))
    assert "step 1/" not in again, "it went on from the first checkpoint or a later one"
    assert SECRET not in printed
    fetched = tmp_path / "fetched"
    s3.fetch_tree("runs/first", fetched)
    undisturbed.assert_is_how_it_ended(fetched, 1)
    texts = [file for ending in ("json", "jsonl", "html") for file in fetched.rglob(f"*.{ending}")]
    assert not any(SECRET in file.read_text() for file in texts)
    best = max(figures["rank_by"] for figures in kept(fetched).values())
    wanted = []
    for folder, figures in kept(fetched).items():
        if figures["rank_by"] == best:  # of equals, any may be the one that is exported
            (made := tmp_path / folder.name).mkdir()
            export(undisturbed.task, folder, made, {}, None)
            wanted.append(said(made, training.image))
    assert said(fetched / "checkpoint", training.image) in wanted
