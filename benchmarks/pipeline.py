"""Images per second of the whole job over those of a bare loop of decode + assess: what Ray costs.

Both sides use the demo assessor, the same images, every core of the machine, and one process with one thread per core.
The bare loop has no Ray, no plan and no table: each process decodes and assesses its share, in the job's batches. They
take turns, and each run of the job is held against the bare loops before and after it, since a shared machine drifts.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import local_ray, main, stream_corpus
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import load
from iqa_core.corpus.batches import ready_batches
from iqa_core.corpus.reading import open_chunk
from iqa_core.demo.corpus import write_scenes
from jobs.assessing.job import considered_chunks
from jobs.assessing.proposing import applied, proposed
from jobs.on_ray.cluster import Pool
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings

IMAGES = int(os.environ.get("PIPELINE_IMAGES", "2000"))
CHUNK_IMAGES = 128
TURNS = 3
CPUS = len(os.sched_getaffinity(0))


def measure() -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_scenes(corpus, IMAGES, seed=11, format="webdataset", size=112, image_format="jpeg")
        bare = [bare_rate(settings(corpus, Path(folder) / "bare"))]
        jobs = []
        for turn in range(TURNS):
            jobs.append(job_rate(settings(corpus, Path(folder) / f"job{turn}")))
            bare.append(bare_rate(settings(corpus, Path(folder) / "bare")))
    ratios = [2 * rate / sum(bare[turn : turn + 2]) for turn, rate in enumerate(jobs)]
    return {
        "images": IMAGES,
        "job_images_per_s": jobs,
        "bare_images_per_s": bare,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }


def job_rate(given: ScoreSettings) -> float:
    """Images per second of the job in steady state."""
    pool = Pool(CPUS, actor_cpus=0.75, actor_gpus=0, reader_cpus=0.25, threads_per_actor=1)
    with local_ray(CPUS, 512 * 2**20):
        return stream_corpus(given, pool).steady_rate()


def settings(corpus: Path, output: Path) -> ScoreSettings:
    return ScoreSettings(input=[str(corpus)], output=str(output), chunk_images=CHUNK_IMAGES)


def bare_rate(given: ScoreSettings) -> float:
    """Images per second of one process per core, after each has loaded and warmed up."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(CPUS + 1)
    workers = [context.Process(target=bare_loop, args=(given, part, barrier)) for part in range(CPUS)]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.monotonic()
    barrier.wait()
    seconds = time.monotonic() - began
    for worker in workers:
        worker.join()
    return IMAGES / seconds


def bare_loop(given: ScoreSettings, part: int, barrier: Any) -> None:
    job = checked(given)
    contract = applied(job, proposed(job))
    work = job.work(contract, 1)
    assessor = load(work.spec, work.config)
    chunks = list(considered_chunks(job))

    def score(chunk: Any) -> None:
        content = open_chunk(chunk, work.read_plan)
        for batch in ready_batches(chunk.name, content, work.spec.preparer, work.bounds, nullcontext):
            assess_each(assessor, batch.images, batch.texts)

    score(chunks[0])
    barrier.wait()
    for chunk in chunks[part::CPUS]:
        score(chunk)
    barrier.wait()


if __name__ == "__main__":
    main("pipeline", measure)
