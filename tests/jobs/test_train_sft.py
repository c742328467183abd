"""The training job on a real Ray: trained and exported.

Tests jobs/training/flow.py, jobs/training/settings.py, jobs/training/watch.py and jobs/training/worker.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from tests.jobs.trainings import SmallTraining, Start, ended, records, small_sft, starting

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> SmallTraining:
    return small_sft(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def start(training: SmallTraining, ray_address: str) -> Iterator[Start]:
    with starting(training, ray_address) as begin:
        yield begin


@pytest.fixture(scope="module")
def trained(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of one worker, which takes the same steps as two and starts sooner; and what it printed."""
    output = tmp_path_factory.mktemp("trained") / "run"
    return output, ended(start(output, "--num-workers", 1))


def test_a_run_trains_validates_and_exports(trained: tuple[Path, str], training: SmallTraining) -> None:
    output, printed = trained
    figures = records(output)
    assert figures[-1]["loss"] < figures[0]["loss"]
    assert [record["step"] for record in figures if "validation_loss" in record] == [4, 8, 12]
    assert f"step {training.steps}/{training.steps}" in printed
    assert "exported" in printed
    assert f"report     {output}/report.html" in printed
    assert "loss of the validation part" in (output / "report.html").read_text()
    assert not (output / "texts.jsonl").exists(), "it writes nothing"
    assert list((output / "tensorboard").iterdir())
    assessor = load_assessor(str(output / "checkpoint"), threads=1)
    [found] = assess_images(assessor, [training.image])
    assert all(1 <= score <= 5 for score in found.scores_K)  # type: ignore[union-attr]


def test_the_best_and_the_last_checkpoint_are_kept(trained: tuple[Path, str], training: SmallTraining) -> None:
    kept = [json.loads(file.read_text()) for file in (trained[0] / "ray").glob("checkpoint_*/progress.json")]
    assert training.steps in {record["step"] for record in kept}
    assert len(kept) <= 2
    best = max(record["rank_by"] for record in records(trained[0]) if "validation_loss" in record)
    assert max(record["rank_by"] for record in kept) == pytest.approx(best)
    others = [record["rank_by"] for record in kept if record["step"] != training.steps]
    assert others == pytest.approx([best] * len(others)), "of equals, any may be the one that is kept"


def test_the_same_command_again_finds_nothing_to_do(trained: tuple[Path, str], start: Start) -> None:
    before = (trained[0] / "figures.jsonl").stat().st_mtime_ns
    (trained[0] / "report.html").unlink()
    assert "is there already" in ended(start(trained[0], "--num-workers", 1))
    assert (trained[0] / "figures.jsonl").stat().st_mtime_ns == before
    assert (trained[0] / "report.html").exists(), "the report is made anew"
