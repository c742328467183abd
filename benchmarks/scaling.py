"""Images per second over the number of actors, with an assessor that sleeps 0.5 s per batch of 16 and loads nothing.

Efficiency is the steady rate over what the sleeping alone allows: actors x 16 / 0.5 s. CPUs are logical, so that what
is measured is how well the actors are kept busy.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import local_ray, main, stream_corpus
from iqa_core.assessor.config import AssessorConfig
from iqa_core.demo.corpus import write_scenes
from jobs.cluster_session import Pool
from jobs.score_settings import ScoreSettings

SLEEP_S = 0.5
BATCH = 16
ACTORS = (1, 2, 4, 8, 16)
BATCHES_PER_ACTOR = 60
"""Of which 42 are counted: what falls between two batches is 2 % of the rate at most."""


def measure() -> Mapping[str, Any]:
    efficiency = {}
    with tempfile.TemporaryDirectory() as folder, local_ray(32, 512 * 2**20):
        for actors in ACTORS:
            corpus = Path(folder) / f"corpus-{actors}"
            images = actors * BATCH * BATCHES_PER_ACTOR
            write_scenes(corpus, images, seed=1, format="webdataset", size=64, image_format="jpeg")
            given = ScoreSettings(
                input=[str(corpus)],
                output=str(Path(folder) / f"out-{actors}"),
                chunk_images=8 * BATCH,
                assessor=AssessorConfig(checkpoint=f"fake:?sleep_s={SLEEP_S}"),
            )
            pool = Pool(actors, actor_cpus=1, actor_gpus=0, reader_cpus=1, threads_per_actor=1)
            rate = stream_corpus(given, pool).steady_rate()
            efficiency[actors] = rate / (actors * BATCH / SLEEP_S)
    return {"efficiency_by_actors": efficiency, "efficiency": efficiency[ACTORS[-1]]}


if __name__ == "__main__":
    main("scaling", measure)
