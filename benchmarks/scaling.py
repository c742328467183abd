"""Images per second over the number of actors, with an assessor that sleeps 0.5 s per batch of 16 and loads nothing.

Efficiency is the steady rate over what the sleeping alone allows: actors x 16 / 0.5 s. CPUs are logical, so that what
is measured is how well the actors are kept busy.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import local_ray, main, stream_corpus
from iqa_core.assessor.config import AssessorConfig
from iqa_core.demo.corpus import write_scenes
from jobs.on_ray.cluster import Pool
from jobs.scoring.settings import ScoreSettings

SLEEP_S = 0.5
READERS = 2
"""The logical CPUs that actors leave; more readers than real CPUs only take turns."""
BATCH = 16
ACTORS = (1, 2, 4, 8, 16)
BATCHES_PER_ACTOR = 200
"""100 s. On two cores the new processes need the first 30 s to import what they need: the second half is steady."""
STEADY = (0.5, 0.9)
"""80 batches per actor: what falls between two batches is about 1 % of the rate."""
COPIES = 10


def measure() -> Mapping[str, Any]:
    efficiency = {}
    with tempfile.TemporaryDirectory() as folder, local_ray(max(ACTORS) + READERS, 512 * 2**20):
        corpus = Path(folder) / "corpus"
        _write(corpus)
        for actors in ACTORS:
            given = ScoreSettings(
                input=[str(corpus)],
                output=str(Path(folder) / f"out-{actors}"),
                limit=actors * BATCH * BATCHES_PER_ACTOR,
                chunk_images=8 * BATCH,
                assessor=AssessorConfig(checkpoint=f"fake:?sleep_s={SLEEP_S}"),
            )
            pool = Pool(actors, actor_cpus=1, actor_gpus=0, reader_cpus=1, threads_per_actor=1)
            rate = stream_corpus(given, pool).steady_rate(*STEADY)
            efficiency[actors] = rate / (actors * BATCH / SLEEP_S)
    return {"efficiency_by_actors": efficiency, "efficiency": efficiency[ACTORS[-1]]}


def _write(corpus: Path) -> None:
    """Enough images for the largest pool: the same ones under several names, which to the job are different ones."""
    write_scenes(
        corpus, max(ACTORS) * BATCH * BATCHES_PER_ACTOR // COPIES, 1, "webdataset", size=64, image_format="jpeg"
    )
    for tar in list(corpus.glob("*.tar")):
        for copy in range(1, COPIES):
            os.link(tar, tar.with_stem(f"{tar.stem}-{copy}"))


if __name__ == "__main__":
    main("scaling", measure)
