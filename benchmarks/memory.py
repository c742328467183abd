"""Peak private memory (RssAnon) of the driver with 20,000 and with 400,000 rows; spill behind a slow assessor.

Chunks of 1,024, the fake assessor, images of 16 x 16. The driver is the job's own process, sampled from outside. For
spill, the assessor is made ten times slower than the readers, and Ray is asked how much it moved to disk.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import ROOT, local_ray, main, stream_corpus
from iqa_core.assessor.config import AssessorConfig
from iqa_core.demo.corpus import write_scenes
from jobs.on_ray.cluster import Pool
from jobs.scoring.settings import ScoreSettings

SMALL, LARGE = 20_000, int(os.environ.get("MEMORY_ROWS", "400000"))
IMAGES_PER_TAR = 8192
SLOW_IMAGES = 2000


def measure() -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        peaks = {count: peak_driver_bytes(Path(folder), count) for count in (SMALL, LARGE)}
        spilled = spilled_bytes(Path(folder))
    return {
        "peak_rss_anon_mib": {count: peak / 2**20 for count, peak in peaks.items()},
        "growth": peaks[LARGE] / peaks[SMALL],
        "spilled_bytes": spilled,
    }


def write_tiny(folder: Path, count: int) -> None:
    """Tars of PNG files that differ in one pixel each."""
    folder.mkdir()
    for first in range(0, count, IMAGES_PER_TAR):
        with tarfile.open(folder / f"{first:08d}.tar", "w") as tar:
            for index in range(first, min(first + IMAGES_PER_TAR, count)):
                pixels = np.full((16, 16, 3), 128, np.uint8)
                pixels[1, 1] = (index % 256, index // 256 % 256, index // 65536)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
                info = tarfile.TarInfo(f"{index:08d}.png")
                info.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(info, buffer)


def peak_driver_bytes(folder: Path, count: int) -> int:
    write_tiny(folder / str(count), count)
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "jobs" / "score_corpus.py"), "--input", str(folder / str(count))),
            *("--output", str(folder / f"out-{count}"), "--assessor.checkpoint", "fake:"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, rss_anon(process.pid))
        time.sleep(0.05)
    if process.returncode != 0:
        raise SystemExit(f"the job over {count} images ended with exit code {process.returncode}")
    return peak


def rss_anon(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def spilled_bytes(folder: Path) -> int:
    """After a stream whose assessor takes ten times as long as reading does, through a store of 128 MiB."""
    write_scenes(folder / "slow", SLOW_IMAGES, seed=2, format="webdataset", size=256, image_format="jpeg")
    with local_ray(2, 128 * 2**20):
        from ray._private.internal_api import memory_summary

        given = ScoreSettings(
            input=[str(folder / "slow")],
            output=str(folder / "out-slow"),
            chunk_images=256,
            assessor=AssessorConfig(checkpoint="fake:?sleep_s=0.4"),
        )
        stream_corpus(given, Pool(2, actor_cpus=0.75, actor_gpus=0, reader_cpus=0.25, threads_per_actor=1))
        summary = memory_summary(stats_only=True)
    found = re.search(r"Spilled (\d+) MiB", summary)
    return int(found[1]) * 2**20 if found else 0


if __name__ == "__main__":
    main("memory", measure)
