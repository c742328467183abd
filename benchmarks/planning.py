"""Time, requests and memory of planning a corpus of loose images on an object store, at one size and at ten times it.

A server on this machine answers S3's listing requests with pages of a thousand made-up names, so that the listing goes
the way of a real one; of the images themselves nothing is read. Each phase is a process of its own:

    plan      list, hold against nothing, cut into chunks, write the plan
    again     list, hold against the plan: nothing is new
    stock     the plan's chunks, and a listing of the score files, of which all are there

PLANNING_IMAGES sets the larger size (1,000,000).
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import ROOT, main
from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.corpus.plan.proposal import apply, propose
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.columns import own_columns

LARGE = int(os.environ.get("PLANNING_IMAGES", "1000000"))
PAGE = 1000
PHASES = ("plan", "again", "stock")
OPTIONS = ReadOptions()
CONTRACT = Contract("f", {}, OPTIONS.chunk_images, False, ("layout",), "equal", {}, pa.schema([]))


def measure() -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for images in (LARGE // 10, LARGE):
        with tempfile.TemporaryDirectory() as folder, listing(images) as (address, requests):
            for phase in PHASES:
                before = len(requests)
                command = [sys.executable, __file__, phase, address, folder, str(images)]
                taken = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
                found[f"{phase}_{images}"] = {**taken, "requests": len(requests) - before}
    for phase in PHASES:
        small, large = (found[f"{phase}_{images}"]["peak_mib"] for images in (LARGE // 10, LARGE))
        found[f"{phase}_growth"] = large / small
    return found


def run(phase: str, address: str, folder: str, images: int) -> None:
    """One phase in this process, its figures on standard output."""
    keys = {"key": "k", "secret": "s", "client_kwargs": {"region_name": "us-east-1"}}
    storage = Storage({"endpoint_url": address, **keys})
    plan, ledger = Plan(storage, folder), Ledger(storage, folder)
    began = time.monotonic()
    if phase == "stock":
        planned = {chunk.name for chunk in plan.chunks()}
        (Path(folder) / "scores").mkdir()
        for name in planned:
            (Path(folder) / "scores" / f"{name}.parquet").touch()
        began = time.monotonic()
        assert ledger.finished() == {chunk.name for chunk in plan.chunks()}
    else:
        own = own_columns(CONTRACT.dimensions)
        proposal = propose(plan, CONTRACT, ["s3://corpus"], OPTIONS, own_columns=own, limit=None, on_changed="stop")
        assert len(proposal.chunks) == (-(-images // OPTIONS.chunk_images) if phase == "plan" else 0)
        assert apply(plan, proposal)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(time.monotonic() - began, 2), "peak_mib": round(peak, 1)}))


@contextmanager
def listing(images: int) -> Iterator[tuple[str, list[str]]]:
    """A server whose one bucket holds so many images, and the paths that were asked for."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            requests.append(self.path)
            token = parse_qs(urlsplit(self.path).query).get("continuation-token", ["0"])[0]
            self._answer(200, page(int(token), images).encode())

        def do_HEAD(self) -> None:
            requests.append(self.path)
            self._answer(404, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def page(begin: int, images: int) -> str:
    """Of a listing, from this image on."""
    end = min(begin + PAGE, images)
    contents = "".join(
        f"<Contents><Key>images/{index // 10_000:06d}/{index:010d}.jpg</Key><Size>250000</Size>"
        f"<ETag>&quot;{index:032x}&quot;</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for index in range(begin, end)
    )
    more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < images else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>corpus</Name><Prefix></Prefix><KeyCount>{end - begin}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
        f"<IsTruncated>{str(end < images).lower()}</IsTruncated>{more}{contents}</ListBucketResult>"
    )


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] in PHASES:
        run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main("planning", measure)
