"""Machines that come and go under a submitted job, head included: the score table is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from iqa_core.rubrics import load_rubric
from tests.clock import wait_for
from tests.clusters import several_nodes
from tests.corpora import MixedCorpus, assessed_alone, write_mixed
from tests.jobs import running

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

DIMENSIONS = load_rubric("interior-v1").names
IMAGES = 5_000
LOSSES = 10
CHUNKS_BETWEEN_LOSSES = 6
"""Of 159, at least: about 6 s of work for two actors where the machine is quiet, and as much work where it is not."""
SLOW = "fake:?sleep_s=0.5"


def job(corpus: MixedCorpus, *flags: object) -> tuple[object, ...]:
    given = (argument for name in corpus.inputs for argument in ("--input", name))
    return ("jobs/score_corpus.py", *given, *flags)


@pytest.mark.timeout(3600)
def test_workers_lost_and_replaced_every_few_seconds(tmp_path: Path) -> None:
    """As long as the job runs; when IQA_CHAOS_SECONDS are over, only until ten were lost."""
    corpus = write_mixed(tmp_path, IMAGES)
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "out"
    command = job(corpus, "--chunk-images", 32, "--num-actors", 2)
    code, text = running.run(*command[1:], "--assessor.checkpoint", "fake:", "--output", undisturbed)
    assert code == 0, text
    seed = random.randrange(10_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    losses = 0
    with several_nodes(3, head_cpus=0, worker_cpus=1) as nodes:
        deadline = time.monotonic() + float(os.environ.get("IQA_CHAOS_SECONDS", "3600"))
        process = nodes.submit(*command, "--assessor.checkpoint", "fake:?sleep_s=1", "--output", output)
        while losses < LOSSES or time.monotonic() < deadline:
            enough = running.committed(output) + CHUNKS_BETWEEN_LOSSES
            wait_for(lambda e=enough: running.committed(output) >= e or process.poll() is not None, timeout_s=300)
            time.sleep(rng.uniform(0, 2))
            if process.poll() is not None:
                break
            nodes.lose_worker(rng.randrange(len(nodes.workers)))
            losses += 1
            print(f"loss {losses}: {running.committed(output)} chunks done", flush=True)
            nodes.add_worker()
        nodes.ended(process)
    assert losses >= LOSSES
    running.assert_same_tables(running.read_table(output), running.read_table(undisturbed))
    record = running.read_run(output)
    assert record["complete"]
    assert record["images"] == IMAGES == record["scored"] + record["rejected"]


@pytest.mark.timeout(900)
def test_a_lost_head_and_the_same_command_on_a_new_cluster(tmp_path: Path) -> None:
    corpus = write_mixed(tmp_path, 400)
    output = tmp_path / "out"
    command = job(corpus, "--chunk-images", 16, "--num-actors", 2, "--assessor.checkpoint", SLOW, "--output", output)
    with several_nodes(1) as nodes:
        process = nodes.submit(*command)
        nodes.wait_until(process, lambda: running.committed(output) >= 3)
        nodes.lose_head()
        nodes.lose_worker()
        assert process.wait(timeout=120) != 0
    there = {file.name: file.stat().st_mtime_ns for file in (output / "scores").glob("*.parquet")}
    assert 3 <= len(there) < len(corpus.images) / 16
    with several_nodes(1) as nodes:
        nodes.ended(nodes.submit(*command))
    running.assert_scores(running.read_table(output), assessed_alone(corpus.images), DIMENSIONS)
    record = running.read_run(output)
    assert record["complete"]
    assert record["images"] == len(corpus.images)
    assert record["this_run"]["images"] < len(corpus.images)
    kept = {name: (output / "scores" / name).stat().st_mtime_ns for name in there}
    assert kept == there, "what was committed before is not done again"


@pytest.mark.timeout(900)
def test_a_node_that_joins_gets_actors_and_work(tmp_path: Path) -> None:
    corpus = write_mixed(tmp_path, 640)
    output = tmp_path / "out"
    command = job(corpus, "--chunk-images", 16, "--assessor.checkpoint", "fake:?sleep_s=2", "--output", output)
    with several_nodes(0) as nodes:
        process = nodes.submit(*command, "--num-actors", 1, "--max-actors", 3)
        nodes.wait_until(process, lambda: running.committed(output) >= 3)
        nodes.add_worker()
        # what Ray calls a process whose actor is in the middle of a batch
        at_work = "MapWorker(MapBatches(AssessBatches)).submit"
        nodes.wait_until(process, lambda: nodes.on_worker(-1, at_work))
        assert "1 to 3 actors" in nodes.ended(process)
    running.assert_scores(running.read_table(output), assessed_alone(corpus.images), DIMENSIONS)
