"""Images per second through the endpoint over those of a bare loop of decode + assess, and what one image costs beside.

The endpoint runs as docs/serve.md advises (`serve run serve.app:app replicas=2 assessor.threads=1`, a process per
core; demo assessor in float32, one image per request), in the way that it calls the fastest: gRPC between processes,
and HAProxy in front; with SERVE_HAPROXY=0 Serve's own proxy. Callers run in a second process over loopback. Beside it:
a bare loop in batches of the same bound, and a plain FastAPI server that scores one image per request, each in one
process with all cores. All are measured in turn, several times, since a shared machine drifts; figures are medians,
the ratio that of neighbours in time.

    ratio               images/s at 32 callers over the bare loop's
    overhead_core_ms    CPU time of all processes but the callers, per image, less that of the bare loop
    outside_p50_ms      at one caller: time to the answer, less the time in which the assessor worked on that image
    over_plain          images/s at 32 callers over the plain server's
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import main
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import describe, load
from iqa_core.demo.corpus import write_scenes
from iqa_core.images import decode
from iqa_core.records import ImageLimits, Rejection

ROOT = Path(__file__).resolve().parent.parent
IMAGES = int(os.environ.get("SERVE_IMAGES", "400"))
REPEATS = int(os.environ.get("SERVE_REPEATS", "3"))
HAPROXY = os.environ.get("SERVE_HAPROXY", "1")
CPUS = len(os.sched_getaffinity(0))
CALLERS = 32
PORT = 8123
PLAIN_PORT = 8124


def measure() -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_scenes(corpus, 64, seed=11, format="folder", size=112, image_format="jpeg")
        with plain_server() as plain, endpoint() as served:
            rounds = [one_round(corpus, plain, served) for _ in range(REPEATS)]
    middle = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    return {
        "images": IMAGES,
        "repeats": REPEATS,
        "haproxy": HAPROXY == "1",
        **middle,
        "ratios": [found["ratio"] for found in rounds],
    }


def one_round(corpus: Path, plain: psutil.Process, served: psutil.Process) -> dict[str, float]:
    """Everything once; each side has the machine for itself, since the others wait without work."""
    before = bare_loop(corpus)
    busy = cpu_s(served)
    crowd = callers(corpus, f"http://127.0.0.1:{PORT}/v1/assess", CALLERS, IMAGES)
    busy = cpu_s(served) - busy
    after = bare_loop(corpus)
    plain_crowd = callers(corpus, f"http://127.0.0.1:{PLAIN_PORT}/", CALLERS, IMAGES // 4)
    worked = assess_seconds()
    lone = callers(corpus, f"http://127.0.0.1:{PORT}/v1/assess", 1, 60)
    time.sleep(1.5)  # counts are handed over once a second
    worked = (assess_seconds() - worked) / 60
    bare_s = (before["cpu_s"] + after["cpu_s"]) / 2
    bare_rate = (before["images_per_s"] + after["images_per_s"]) / 2
    return {
        "bare_images_per_s": bare_rate,
        "served_images_per_s": crowd["images_per_s"],
        "plain_images_per_s": plain_crowd["images_per_s"],
        "ratio": crowd["images_per_s"] / bare_rate,
        "over_plain": crowd["images_per_s"] / plain_crowd["images_per_s"],
        "overhead_core_ms": 1000 * (busy - bare_s) / IMAGES,
        "bare_core_ms": 1000 * bare_s / IMAGES,
        "p50_ms_at_32": crowd["p50_ms"],
        "p50_ms_at_1": lone["p50_ms"],
        "outside_p50_ms": lone["p50_ms"] - 1000 * worked,
    }


def bare_loop(corpus: Path) -> dict[str, float]:
    """Decode and assess in batches, in a process of its own with all cores."""
    return child("bare", str(corpus), str(IMAGES))


def callers(corpus: Path, url: str, count: int, images: int) -> dict[str, float]:
    return child("callers", str(corpus), url, str(count), str(images))


def child(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def bare(corpus: str, count: str) -> dict[str, float]:
    config = AssessorConfig()
    spec = describe(config, None, ImageLimits())
    assessor = load(spec, config)
    data = encoded(corpus)
    per_batch = max(1, config.batch_tokens // _tokens(spec, data[0]))

    def score(images: Sequence[bytes]) -> None:
        decoded = [decode(image, spec.preparer.limits) for image in images]
        assess_each(assessor, [spec.preparer.prepare(one) for one in decoded if not isinstance(one, Rejection)])

    todo = [data[i % len(data)] for i in range(int(count))]
    score(todo[:per_batch])
    process = psutil.Process()
    began, busy = time.monotonic(), own_cpu_s(process)
    for begin in range(0, len(todo), per_batch):
        score(todo[begin : begin + per_batch])
    seconds = time.monotonic() - began
    return {"images_per_s": len(todo) / seconds, "cpu_s": own_cpu_s(process) - busy}


def _tokens(spec: Any, data: bytes) -> int:
    decoded = decode(data, spec.preparer.limits)
    assert not isinstance(decoded, Rejection)
    tokens: int = spec.preparer.shape(decoded.header).tokens
    return tokens


def encoded(corpus: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(corpus).rglob("*.jpg"))]


async def ask(corpus: str, url: str, count: str, images: str) -> dict[str, float]:
    """Callers who each send one image and wait for its score, until all images are sent."""
    data = encoded(corpus)
    numbers = iter(range(int(images)))
    seconds: list[float] = []

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        form = aiohttp.FormData()
        form.add_field("images", data[number % len(data)], filename="image.jpg")
        async with client.post(url, data=form) as answer:
            assert (await answer.json())["results"][0]["status"] == "scored"

    async def caller(client: aiohttp.ClientSession) -> None:
        for number in numbers:
            began = time.monotonic()
            await one(client, number)
            seconds.append(time.monotonic() - began)

    # aiohttp: what the callers themselves take of the two cores is no matter of the endpoint's
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=int(count))) as client:
        await one(client, 0)
        began = time.monotonic()
        await asyncio.gather(*(caller(client) for _ in range(int(count))))
        elapsed = time.monotonic() - began
    return {"images_per_s": len(seconds) / elapsed, "p50_ms": 1000 * statistics.median(seconds)}


def serve_plainly() -> None:
    """The server that one would write first: one request, one image, one forward pass."""
    import uvicorn
    from fastapi import FastAPI, UploadFile

    config = AssessorConfig()
    spec = describe(config, None, ImageLimits())
    assessor = load(spec, config)
    from threading import Lock

    lock = Lock()
    app = FastAPI()

    def score(images: UploadFile) -> dict[str, Any]:
        decoded = decode(images.file.read(), spec.preparer.limits)
        assert not isinstance(decoded, Rejection)
        with lock:
            [result] = assess_each(assessor, [spec.preparer.prepare(decoded)])
        assert not isinstance(result, Rejection)
        return {"results": [{"status": "scored", "scores": result.scores_K.tolist()}]}

    score.__annotations__["images"] = UploadFile
    app.post("/", response_model=None)(score)
    uvicorn.run(app, host="127.0.0.1", port=PLAIN_PORT, log_level="error")


@contextmanager
def plain_server() -> Iterator[psutil.Process]:
    process = subprocess.Popen([sys.executable, __file__, "--child", "plain"])
    try:
        wait_for(f"http://127.0.0.1:{PLAIN_PORT}/openapi.json")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def endpoint() -> Iterator[psutil.Process]:
    """`serve run` on a Ray of its own."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "180"}
    # Ray starts workers at niceness 15, and the bare loop runs at 0
    quiet |= {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    quiet |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_PROXY_USE_GRPC": "1"}
    quiet |= {"RAY_SERVE_ENABLE_HA_PROXY": HAPROXY, "RAY_SERVE_ENABLE_DIRECT_INGRESS": HAPROXY}
    application = {"replicas": CPUS, "assessor.threads": 1}
    code = (
        "import ray, time; from ray import serve; from serve.app import app;"
        "ray.init(address='local', include_dashboard=False, object_store_memory=256 * 2**20, log_to_driver=False);"
        f"serve.start(http_options={{'host': '127.0.0.1', 'port': {PORT}}});"
        f"serve.run(app({application!r}), blocking=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **quiet}, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{PORT}/readyz")
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"nothing answers at {url}")


def cpu_s(process: psutil.Process) -> float:
    """Of a process and all that it started, Ray's own among them."""
    return sum(own_cpu_s(one) for one in (process, *process.children(recursive=True)))


def own_cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def assess_seconds() -> float:
    page = httpx2.get(f"http://127.0.0.1:{PORT}/metrics").text
    [line] = [line for line in page.splitlines() if line.startswith("iqa_assess_seconds_sum ")]
    return float(line.split()[1])


def run_child(kind: str, *arguments: str) -> None:
    if kind == "plain":
        serve_plainly()
        return
    found = bare(*arguments) if kind == "bare" else asyncio.run(ask(*arguments))
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(*sys.argv[2:])
    else:
        main("serve", measure)
