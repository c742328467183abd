"""Bytes of input that a run reads when 99 % of its chunks are done, over those of the whole; and time to its first row.

Over a real HTTP S3 server (moto) behind a proxy that counts the bytes of every answer about the input.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import ROOT, main
from iqa_core.demo.corpus import write_scenes
from tests.faulty_proxy import FaultyProxy
from tests.s3_server import running_server, storage_options

IMAGES = 3200
CHUNK_IMAGES = 32


def measure() -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder, running_server() as server:
        write_scenes(Path(folder) / "in", IMAGES, seed=5, format="webdataset", size=64, image_format="jpeg")
        bucket = server.new_bucket()
        bucket.put_tree(Path(folder) / "in")
        whole = sum(tar.stat().st_size for tar in (Path(folder) / "in").glob("*.tar"))
        with FaultyProxy(server.endpoint).running() as proxy:
            proxy.rate = 0.0
            output = Path(folder) / "out"
            command = [
                *(sys.executable, str(ROOT / "jobs" / "score_corpus.py"), "--input", bucket.uri()),
                *("--output", str(output), "--assessor.checkpoint", "fake:", "--chunk-images", str(CHUNK_IMAGES)),
                "--no-report",  # it reads up to 300 pictures again, which is no part of resuming
                *("--storage-options", json.dumps(storage_options(proxy.endpoint))),
            ]
            subprocess.run(command, check=True, capture_output=True)
            first = proxy.bytes_sent
            chunks = sorted((output / "scores").glob("*.parquet"))
            undone = chunks[50::100]
            for chunk in undone:
                chunk.unlink()
            began = time.time()
            subprocess.run(command, check=True, capture_output=True)
            resumed = proxy.bytes_sent - first
            first_row_s = min(chunk.stat().st_mtime for chunk in undone) - began
    return {
        "chunks": len(chunks),
        "chunks_undone": len(undone),
        "input_bytes": whole,
        "bytes_read_by_first_run": first,
        "bytes_read_by_resumed_run": resumed,
        "bytes_fraction": resumed / whole,
        "seconds_to_first_new_row": first_row_s,
    }


if __name__ == "__main__":
    main("resume", measure)
