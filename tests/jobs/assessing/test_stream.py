"""How a wave of chunks is spread over readers."""

from __future__ import annotations

import pytest

from jobs.assessing.stream import BYTES_PER_READER, IMAGES_PER_READER, READERS_PER_ACTOR, readers_at_once
from jobs.assessing.work import ChunkTask
from jobs.on_ray.cluster import Pool

POOL = Pool(2, actor_cpus=1, actor_gpus=0, reader_cpus=0.25, threads_per_actor=1)


@pytest.mark.parametrize(
    ("images", "readers"),
    [
        ([8] * 5, 1),  # too little for two
        ([IMAGES_PER_READER] * 3, 3),
        ([10 * IMAGES_PER_READER] * 3, 3),  # one chunk is read by one reader
        ([IMAGES_PER_READER // 2] * 7, 3),
        ([IMAGES_PER_READER] * 1000, 2 * READERS_PER_ACTOR),
        ([1, None, 1], 3),  # nobody has counted them: they may be large
    ],
)
def test_readers_are_started_where_there_is_work_for_them(images: list[int | None], readers: int) -> None:
    wave = [ChunkTask(str(index), b"", count, 0) for index, count in enumerate(images)]
    assert readers_at_once(wave, POOL) == readers


def test_few_images_that_are_large_are_work_too() -> None:
    assert readers_at_once([ChunkTask(str(index), b"", 2, BYTES_PER_READER // 2) for index in range(6)], POOL) == 3
