"""Processes, nodes and drivers that die: in the end the score table is that of an undisturbed run.

Where a corpus is killed over, its images are asked about texts of their own.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.records import Assessment, Reason, Rejection
from iqa_core.rubrics import load_rubric
from tests.clock import wait_for
from tests.clusters import dashboard_cluster, descendants, several_nodes
from tests.corpora import (
    MixedCorpus,
    assessed_alone,
    tiny_png,
    write_asking,
    write_captions,
    write_folder,
    write_mixed,
)
from tests.jobs import running
from tests.jobs.operations import score

pytestmark = pytest.mark.ray

IMAGES = 640
WRITTEN = "interior-written-v1"
DIMENSIONS = load_rubric("interior-v1").names
SLOW = ("--assessor.checkpoint", "fake:?sleep_s=0.1", "--chunk-images", "20", "--num-actors", "2")
"""About 4 s of work for two actors, in 35 chunks: time to die in."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A corpus, how to score it, and the table of a run that nothing disturbed."""

    corpus: MixedCorpus
    arguments: tuple[str | Path, ...]
    undisturbed: pa.Table


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Scene:
    root = tmp_path_factory.mktemp("faults")
    corpus = write_mixed(root, IMAGES)
    write_captions(root, corpus)
    rubric = write_asking(root / "asking.toml")
    inputs = tuple(argument for given in corpus.inputs for argument in ("--input", given))
    arguments: tuple[str | Path, ...] = (*inputs, "--rubric", rubric, "--slot", "prompt=caption")
    out = root / "undisturbed"
    code, output = running.run(*arguments, *SLOW, "--output", out, address=ray_address)
    assert code == 0, output
    table = running.read_table(out)
    running.assert_scores(table, assessed_alone(corpus.images, corpus.texts, rubric), load_rubric(str(rubric)).names)
    return Scene(corpus, arguments, table)


def assert_undisturbed(scene: Scene, output: Path) -> None:
    running.assert_same_tables(running.read_table(output), scene.undisturbed)
    record = running.read_run(output)
    assert record["complete"]
    assert record["images"] == len(scene.corpus.images) == record["scored"] + record["rejected"]


def kill_drivers(scene: Scene, output: Path, moments: int, seed: int, address: str) -> int:
    """Start the job and kill its driver, `moments` times; the number of drivers that were killed while at work."""
    rng = random.Random(seed)
    killed_at_work = 0
    for moment in range(moments):
        process = running.start(*scene.arguments, *SLOW, "--output", output, address=address)
        if moment == 0:
            time.sleep(rng.uniform(0.3, 5))  # anywhere in starting: planning, connecting
        else:
            done = running.committed(output) + rng.randrange(0, 6)
            wait_for(
                lambda done=done, process=process: running.committed(output) > done or process.poll() is not None,
                timeout_s=180,
            )
            time.sleep(rng.uniform(0, 0.3))
        killed_at_work += process.poll() is None
        running.kill(process)
    return killed_at_work


def test_driver_killed_at_random_moments(scene: Scene, tmp_path: Path, ray_address: str) -> None:
    seed = random.randrange(10_000)
    print(f"seed {seed}")
    assert kill_drivers(scene, tmp_path / "out", 3, seed, ray_address) == 3
    code, output = running.run(*scene.arguments, *SLOW, "--output", tmp_path / "out", address=ray_address)
    assert code == 0, output
    assert_undisturbed(scene, tmp_path / "out")


def test_driver_killed_while_answers_are_written(tmp_path: Path, ray_address: str) -> None:
    """Texts, numbers and counts are those of a worker's loop that nothing disturbed; a tenth of the answers is cut."""
    write_folder(tmp_path / "in", {f"{index:02d}.png": tiny_png(index) for index in range(80)})
    alone, output, checkpoint = tmp_path / "alone", tmp_path / "out", "fake:?cut_share=0.1&sleep_s="
    assert score(alone, tmp_path / "in", rubric=WRITTEN, assessor=AssessorConfig(checkpoint=f"{checkpoint}0")) == 0
    job = ("--input", tmp_path / "in", "--rubric", WRITTEN, "--assessor.checkpoint", f"{checkpoint}0.3")
    flags = (*job, "--chunk-images", 4, "--num-actors", 2, "--output", output)
    process = running.start(*flags, address=ray_address)
    wait_for(lambda: running.committed(output) >= 1 or process.poll() is not None, timeout_s=180)
    assert process.poll() is None, process.communicate()[0]
    running.kill(process)
    assert running.committed(output) < 20
    code, text = running.run(*flags, address=ray_address)
    assert code == 0, text
    table = running.read_table(output)
    running.assert_same_tables(table, running.read_table(alone))
    assert {"written_caption", "written_reasoning", "written_parsed", "written_finish"} < set(table.column_names)
    assert 0 < table.column("written_reasoning").null_count < 80
    assert running.read_run(output)["written_answers"] == running.read_run(alone)["written_answers"]


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_driver_killed_at_20_random_moments(scene: Scene, tmp_path: Path, ray_address: str) -> None:
    """Ten outputs, two drivers killed over each, until the time box (IQA_CHAOS_SECONDS) ends; at least two outputs."""
    deadline = time.monotonic() + float(os.environ.get("IQA_CHAOS_SECONDS", "3600"))
    for repeat in range(10):
        if repeat >= 2 and time.monotonic() > deadline:
            break
        seed = random.randrange(10_000)
        print(f"seed {seed}")
        output = tmp_path / str(repeat)
        killed = kill_drivers(scene, output, 2, seed, ray_address)
        code, text = running.run(*scene.arguments, *SLOW, "--output", output, address=ray_address)
        assert code == 0, text
        assert_undisturbed(scene, output)
        print(f"output {repeat}: {killed} of 2 drivers killed at work, table identical")


def kill_one(job: subprocess.Popen[str], title: str) -> bool:
    """The first worker of this title that is seen; False where the job ends without."""
    while job.poll() is None:
        for victim in descendants(job.pid, title)[:1]:
            with suppress(psutil.NoSuchProcess):  # ended since it was listed
                victim.send_signal(signal.SIGKILL)
                return True
        time.sleep(0.02)
    return False


def test_actors_and_readers_killed(scene: Scene, tmp_path: Path) -> None:
    output = tmp_path / "out"
    slow_readers = ("--assessor.checkpoint", "fake:?sleep_s=0.1&prepare_sleep_s=0.01", *SLOW[2:])
    process = running.start(*scene.arguments, *slow_readers, "--output", output, address=None)
    killed = []
    # readers may all be done before a chunk is committed, so one is killed as soon as it is seen reading
    for title in ("ReadChunks", "AssessBatches", "ReadChunks", "AssessBatches"):
        if title == "AssessBatches":
            done = running.committed(output)
            wait_for(lambda done=done: running.committed(output) > done or process.poll() is not None)
        if kill_one(process, title):
            killed.append(title)
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    assert "AssessBatches" in killed
    assert "ReadChunks" in killed
    assert_undisturbed(scene, output)


@pytest.mark.chaos
def test_actors_that_cannot_load_when_they_are_started_anew_are_tried_again(scene: Scene, tmp_path: Path) -> None:
    output, blocking = tmp_path / "out", tmp_path / "blocking"
    model = ("--assessor.checkpoint", f"fake:?sleep_s=0.1&no_load_while={blocking}")
    process = running.start(*scene.arguments, *model, *SLOW[2:], "--output", output, address=None)
    wait_for(lambda: running.committed(output) >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    blocking.touch()
    for victim in descendants(process.pid, "AssessBatches"):
        victim.send_signal(signal.SIGKILL)
    time.sleep(10)  # each has failed by now, and is waiting to try again or trying
    assert process.poll() is None, process.communicate()[0]
    blocking.unlink()
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    assert_undisturbed(scene, output)


def test_two_drivers_on_one_output(scene: Scene, tmp_path: Path, ray_address: str) -> None:
    arguments = (*scene.arguments, *SLOW, "--output", tmp_path / "out")
    drivers = [running.start(*arguments, address=ray_address) for _ in range(2)]
    texts = [driver.communicate(timeout=240)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], texts
    assert_undisturbed(scene, tmp_path / "out")


def test_a_reader_that_dies_and_reads_other_bytes_the_next_time(tmp_path: Path, ray_address: str) -> None:
    """Sources change under a reader that a poisonous image ends again and again: each key keeps exactly one row, and
    the row's score is that of the bytes which its sha256 names."""
    versions = {f"{index:02d}.png": [tiny_png(index, size=24), tiny_png(700 + index, size=40)] for index in range(48)}
    write_folder(tmp_path / "in", {name: pair[0] for name, pair in versions.items()})
    write_folder(tmp_path / "in", {"poison.png": tiny_png(9, corner=(255, 0, 0), size=30)})
    process = running.start(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--chunk-images", 49),
        *("--assessor.checkpoint", "fake:?prepare_exit_on=ff0000"),
        address=ray_address,
    )
    rng = random.Random(1)
    wait_for(lambda: (tmp_path / "out" / "plan" / "000000.parquet").exists() or process.poll() is not None)
    while process.poll() is None:
        name = rng.choice(list(versions))
        (tmp_path / "new").write_bytes(rng.choice(versions[name]))
        (tmp_path / "new").rename(tmp_path / "in" / name)
        time.sleep(0.02)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    rows = {row["key"]: row for row in running.read_table(tmp_path / "out").to_pylist()}
    assert running.read_run(tmp_path / "out")["images"] == len(rows) == len(versions) + 1
    assert rows.pop("poison.png")["reason"] == Reason.CORRUPT
    alone = {hashlib.sha256(data).hexdigest(): data for pair in versions.values() for data in pair}
    expected = assessed_alone(alone)
    for name, row in rows.items():
        assert alone[row["sha256"]] in versions[name]
        assessment = expected[row["sha256"]]
        assert isinstance(assessment, Assessment)
        assert [row[dimension] for dimension in DIMENSIONS] == pytest.approx(assessment.scores_K.tolist(), abs=1e-6)


@pytest.mark.chaos
def test_waves_one_after_the_other_with_poison_in_each(tmp_path: Path, ray_address: str) -> None:
    """What isolated the poison of one wave makes room for the next wave's actors, and holds the next one's poison."""
    images = {f"{index:02d}.png": tiny_png(index, size=24) for index in range(24)}
    poison = {f"{index:02d}-poison.png": tiny_png(index, corner=(255, 0, 0), size=30) for index in (3, 15)}
    write_folder(tmp_path / "in", images | poison)
    code, text = running.run(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--chunk-images", 4, "--wave-chunks", 4),
        *("--assessor.checkpoint", "fake:?exit_on=ff0000", "--num-actors", 1),
        address=ray_address,
    )
    assert code == 0, text
    # a batch that waits behind the poison in an actor's queue may be lost with it, so a neighbour's chunk too
    assert text.count("they are tried one by one") >= 2
    rejected = {name: Rejection(Reason.ASSESSOR_FAILED, "") for name in poison}
    running.assert_scores(running.read_table(tmp_path / "out"), assessed_alone(images) | rejected, DIMENSIONS)


def test_submitted_job_with_a_node_killed_equals_the_local_run(scene: Scene, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with several_nodes(2) as nodes:
        process = nodes.submit("jobs/score_corpus.py", *scene.arguments, *SLOW, "--output", output)
        nodes.wait_until(process, lambda: running.committed(output) >= 3)
        nodes.lose_worker()  # the head and the other one have room for what it held
        nodes.ended(process, timeout_s=280)
    assert_undisturbed(scene, output)


@pytest.mark.chaos
def test_a_lost_head_is_said_in_words_and_another_cluster_goes_on(
    scene: Scene, tmp_path: Path, ray_address: str
) -> None:
    output = tmp_path / "out"
    slower = ("--assessor.checkpoint", "fake:?sleep_s=0.5", *SLOW[2:])
    with dashboard_cluster(num_cpus=2) as (cluster, _):
        process = running.start(*scene.arguments, *slower, "--output", output, address=cluster.address)
        wait_for(lambda: running.committed(output) >= 2 or process.poll() is not None, timeout_s=240)
        assert process.poll() is None, process.communicate()[0]
        address = cluster.address
        cluster.remove_node(cluster.head_node, allow_graceful=False)
        text, _ = process.communicate(timeout=120)
    assert process.returncode == 1, text
    assert f"the head of the Ray cluster, {address}, is lost" in text
    assert "Traceback" not in text
    code, text = running.run(*scene.arguments, *slower, "--output", output, address=ray_address)
    assert code == 0, text
    assert running.read_table(output).num_rows == scene.undisturbed.num_rows
