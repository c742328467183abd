"""The endpoint on a real Serve: processes killed, models replaced, callers who leave, more callers than places."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from iqa_core.assessor.direct import load_assessor
from iqa_core.client import RewardClient, Score
from iqa_core.images.preparing import prepare
from iqa_core.records import FreeQuestion
from tests.clock import wait_for
from tests.corpora import tiny_png
from tests.serve.conftest import Deploy, remove
from tests.serve.local import UNEVEN

pytestmark = pytest.mark.ray

TOKEN = "correct-horse-battery"
IMAGES = [tiny_png(i) for i in range(16)]


@pytest.fixture(scope="module")
def crowd_url(deploy: Deploy) -> Iterator[str]:
    """A slow assessor with few places in front of it, which dies of one colour."""
    yield deploy("crowd", crowd_settings("fake:?sleep_s=0.05&exit_on=ff00ff"), TOKEN)
    remove("crowd")


def crowd_settings(checkpoint: str) -> dict[str, Any]:
    assessor = {"checkpoint": checkpoint, "batch_tokens": 2048}
    return {"assessor": assessor, "fusion": str(UNEVEN), "max_requests": 24, "max_waiting_images": 16, "min_side": 9}


def replica_pid(app: str, deployment: str) -> int:
    """Of the one process of a deployment."""
    from ray import serve

    client: Any = serve.context._get_global_client()
    details = client.get_serve_details()
    [replica] = details["applications"][app]["deployments"][deployment]["replicas"]
    pid: int = replica["pid"]
    return pid


def memory_mib(pid: int, kind: str) -> float:
    """VmRSS: what a process holds now; VmHWM: the most that it ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(rf"{kind}:\s+(\d+) kB", status)[0]) / 1024


class Load:
    """Callers who ask again and again, and what they were told so far."""

    def __init__(self, url: str) -> None:
        self.answers: list[list[Score]] = []
        self.stop = Event()
        self._url = url

    def call(self, number: int) -> None:
        """One of them; raises what it meets."""
        with RewardClient(self._url, TOKEN, timeout_s=60) as client:
            while not self.stop.is_set():
                self.answers.append(client.assess([IMAGES[(number + len(self.answers)) % 16]]))

    def wait(self, num_answers: int) -> None:
        """Until so many more have come."""
        enough = len(self.answers) + num_answers
        wait_for(lambda: len(self.answers) >= enough, timeout_s=120)


@contextmanager
def under_load(url: str, callers: int) -> Iterator[Load]:
    """Inside, they ask; at its end they are waited for, and what they met is raised."""
    load = Load(url)
    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(load.call, number) for number in range(callers)]
        try:
            yield load
        finally:
            load.stop.set()
        for one in calls:
            one.result(timeout=120)


@pytest.mark.parametrize("deployment", ["Assessor", "Ingress"])
def test_a_replica_killed_under_load_is_not_noticed_by_callers(crowd_url: str, deployment: str) -> None:
    with RewardClient(crowd_url, TOKEN) as client:
        expected = {image: client.assess([image])[0].reward for image in IMAGES}
    before = replica_pid("crowd", deployment)
    with under_load(crowd_url, 6) as load:
        load.wait(12)
        os.kill(before, signal.SIGKILL)
        with RewardClient(crowd_url, TOKEN) as client:  # whoever asks now waits until it is whole again
            assert client.assess([IMAGES[0]])[0].reward == expected[IMAGES[0]]
        load.wait(12)
    assert replica_pid("crowd", deployment) != before
    assert {score.reward for [score] in load.answers} <= set(expected.values())
    assert all(score.reason is None for [score] in load.answers)


def test_an_image_that_kills_its_process_is_rejected_and_the_others_are_scored(crowd_url: str) -> None:
    poison = tiny_png(99, corner=(255, 0, 255))
    with RewardClient(crowd_url, TOKEN) as client:
        scores = client.assess([IMAGES[0], poison, IMAGES[1]])
        assert [score.reason for score in scores] == [None, "assessor_failed", None]
        assert client.assess([IMAGES[0]])[0] == scores[0]


def test_more_callers_than_places_meet_429_with_retry_after_and_nothing_else(crowd_url: str) -> None:
    async def crowd() -> tuple[Counter[int], list[float]]:
        statuses: Counter[int] = Counter()
        accepted_s: list[float] = []
        limits = httpx2.Limits(max_connections=200)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(limits=limits, headers=headers, timeout=60) as client:

            async def call(number: int) -> None:
                for _ in range(2):
                    began = time.monotonic()
                    answer = await client.post(f"{crowd_url}/v1/assess", files=[("images", IMAGES[number % 16])])
                    statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        accepted_s.append(time.monotonic() - began)
                        assert answer.json()["results"][0]["status"] == "scored"
                    else:
                        assert int(answer.headers["retry-after"]) >= 1
                        assert answer.json()["error"]["code"] == "overloaded"

            await asyncio.gather(*(call(number) for number in range(200)))
        return statuses, accepted_s

    pids = [replica_pid("crowd", deployment) for deployment in ("Ingress", "Assessor")]
    before = sum(memory_mib(pid, "VmRSS") for pid in pids)
    statuses, accepted_s = asyncio.run(crowd())
    assert sum(memory_mib(pid, "VmHWM") for pid in pids) < before + 200
    # 16 images wait at most, in batches of 4 of 0.05 s each: the rest is what a busy machine adds
    assert np.percentile(accepted_s, 99) < 50
    assert set(statuses) == {200, 429}
    assert sum(statuses.values()) == 400
    with RewardClient(crowd_url, TOKEN, patience_s=60) as client:  # whole again
        assert client.assess([IMAGES[0]])[0].reason is None


def test_callers_who_leave_free_their_places(crowd_url: str) -> None:
    site = urlsplit(crowd_url)
    head = (
        f"POST {site.path}/v1/assess HTTP/1.1\r\nHost: {site.netloc}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    callers = [socket.create_connection((site.hostname or "", site.port or 0)) for _ in range(40)]
    for caller in callers:
        caller.sendall(head.encode())  # and the rest of the body never comes
    wait_for(lambda: status_of_one(crowd_url) == 429)
    for caller in callers:
        caller.close()
    wait_for(lambda: status_of_one(crowd_url) == 200)


def status_of_one(url: str) -> int:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.post(f"{url}/v1/assess", files=[("images", IMAGES[0])], headers=headers, timeout=60).status_code


def test_wrong_tokens_and_large_bodies_are_refused_through_serve(crowd_url: str) -> None:
    answer = httpx2.post(f"{crowd_url}/v1/assess", files=[("images", IMAGES[0])])
    assert answer.status_code == 401
    huge = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(2**20)

    try:
        answer = httpx2.post(f"{crowd_url}/v1/assess", content=endless(), headers=huge, timeout=60)
        assert answer.status_code == 413
    except (httpx2.WriteError, httpx2.RemoteProtocolError):
        pass  # the refusal came, and the connection was closed, while the body was still being written


def test_a_rolling_update_fails_no_request_and_every_answer_names_its_model(deploy: Deploy, crowd_url: str) -> None:
    with RewardClient(crowd_url, TOKEN) as client:
        [old] = client.models()
    with under_load(crowd_url, 4) as load:
        load.wait(8)
        deploy("crowd", {**crowd_settings("fake:?sleep_s=0.05"), "min_side": 10}, TOKEN)
        with RewardClient(crowd_url, TOKEN) as client:
            [new] = client.models()
            assert client.assess([IMAGES[0]])[0].fingerprint == new["fingerprint"]
        load.wait(8)
    assert old["fingerprint"] != new["fingerprint"]
    assert {score.fingerprint for [score] in load.answers} == {old["fingerprint"], new["fingerprint"]}
    assert all(score.reason is None for [score] in load.answers)


def test_without_tokens_a_request_that_a_proxy_passed_on_is_refused_through_serve_too(demo_url: str) -> None:
    assert httpx2.get(f"{demo_url}/v1/models").status_code == 200
    for header in ("Forwarded", "X-Forwarded-Proto", "Via"):
        answer = httpx2.get(f"{demo_url}/v1/models", headers={header: "127.0.0.1"})
        assert answer.status_code == 403
        assert answer.json()["error"]["message"].startswith(
            "without API tokens this endpoint serves its own machine only"
        )


def test_a_model_that_writes_takes_over_and_answers_questions_through_serve(deploy: Deploy, crowd_url: str) -> None:
    assessor: Any = load_assessor("fake:", "perception-v1")
    prepared = [prepare(image, assessor.preparer) for image in IMAGES[:4]]
    wanted = assessor.describe(prepared, [FreeQuestion("What is it?", 3)] * 4)
    settings = {"assessor": {"checkpoint": "fake:"}, "rubric": "perception-v1"}
    deploy("crowd", settings, TOKEN)
    with RewardClient(crowd_url, TOKEN) as client:

        def written() -> bool:
            return client.models()[0]["rubric"] == "perception-v1"

        wait_for(written)  # the last of the old ingresses may answer a moment longer
        found = client.describe(IMAGES[:4], "What is it?", max_tokens=3)
        assert [(one.text, one.finish) for one in found] == [(one.text, one.finish) for one in wanted]
        assert all(score.written for score in client.assess(IMAGES[:4]))
