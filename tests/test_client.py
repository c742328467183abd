"""The client library against the real application over HTTP, and against a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from iqa_core.adapters import ImageReward, trl_reward
from iqa_core.client import AsyncRewardClient, EndpointUnavailable, RequestRefused, RewardClient, encoded
from iqa_core.endpoint.attempts import PROXY_FAULT_TRIES
from iqa_core.errors import CallerError
from tests.clock import settled
from tests.corpora import tiny_png
from tests.serve.local import listening

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(TOKEN, max_images=8) as found:
        yield found


def test_scores_come_in_order_over_as_many_requests_as_it_takes(url: str) -> None:
    images = [tiny_png(i) if i % 5 else b"no image" for i in range(19)]
    with RewardClient(url, TOKEN, images_per_request=8) as client:
        scores = client.assess(images, probs=True)
        alone = client.assess([images[7]])
    assert [score.reason for score in scores] == [None if i % 5 else "unsupported_format" for i in range(19)]
    assert scores[7].reward == alone[0].reward
    assert scores[0].reward is None
    assert scores[0].scores == {}
    assert scores[1].probs is not None
    assert scores[1].std.keys() == scores[1].scores.keys() == scores[1].probs.keys()
    assert len({score.reward for score in scores}) > 10


def test_the_asynchronous_client_says_the_same(url: str) -> None:
    images = [tiny_png(i) for i in range(19)]

    async def ask() -> Any:
        async with AsyncRewardClient(url, TOKEN, images_per_request=8) as client:
            return await client.assess(images), await client.rank(images[:5]), await client.models()

    scores, ranking, models = asyncio.run(ask())
    with RewardClient(url, TOKEN, images_per_request=8) as client:
        assert client.assess(images) == scores
        assert client.rank(images[:5]) == ranking
        assert client.models() == models
    rewards = [score.reward for score in ranking.scores]
    assert ranking.best == int(np.argmax(rewards))


@pytest.fixture(scope="module")
def styled() -> Iterator[str]:
    with listening(rubric=str(Path(__file__).parent / "serve" / "styled.toml"), fusion=None, max_images=4) as found:
        yield found


def test_prompts_and_texts_stay_with_their_images_over_several_requests(styled: str) -> None:
    images = [tiny_png(3)] * 10
    prompts = [None if i == 4 else f"prompt {i}" for i in range(10)]
    texts = [{"style": "Vermeer" if i % 2 else "\ud83d Hopper", "prompt": prompts[i]} for i in range(10)]

    async def ask() -> Any:
        async with AsyncRewardClient(styled, images_per_request=4) as client:
            return await client.assess(images, prompts, texts=[{"style": one["style"]} for one in texts])

    with RewardClient(styled, images_per_request=4) as client:
        scores = client.assess(images, texts=texts)
        alone = [client.assess([images[0]], prompts[i], texts=[{"style": texts[i]["style"]}]) for i in (0, 9)]
        with pytest.raises(RequestRefused, match="style: rubric styled asks about it"):
            client.assess(images[:1], "a hall")
        long = {"style": "x" * 20_000, "prompt": "y" * 20_000}
        [refused, short] = client.assess(images[:2], texts=[long, {"style": "x", "prompt": "\ud83d" * 2000}])
        letters = client.assess(images[:1], texts=[{"style": "Vermeer", "prompt": r"\ud83d"}])
        assert letters == client.assess(images[:1], texts=[{"style": "Vermeer", "prompt": "\ud83d"}])
    assert (refused.reason, short.reason) == ("too_large", "too_large")
    assert [score.reason for score in scores] == [None] * 4 + ["missing_text"] + [None] * 5
    assert asyncio.run(ask()) == scores
    assert [[scores[0]], [scores[9]]] == alone
    assert len({score.reward for score in scores}) > 5


def test_there_is_one_text_for_each_image_or_it_is_said_before_anything_is_sent() -> None:
    with RewardClient("http://127.0.0.1:9") as client:
        with pytest.raises(CallerError, match="1 prompts for 2 images"):
            client.assess([tiny_png(1)] * 2, ["a hall"])
        with pytest.raises(CallerError, match="1 texts for 2 images"):
            client.assess([tiny_png(1)] * 2, texts=[{"style": "Vermeer"}])


def test_prompts_are_no_matter_to_a_rubric_without_their_slot(url: str) -> None:
    images = [tiny_png(i) for i in range(3)]
    with RewardClient(url, TOKEN) as client:
        plain = client.assess(images)
        assert client.assess(images, "a hall") == client.assess(images, ["a", None, "x" * 100_000]) == plain
        assert client.rank(images, "a hall").scores == plain


def test_paths_pillow_images_and_arrays_score_like_the_file(url: str, tmp_path: Path) -> None:
    data = tiny_png(4)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    picture = Image.open(BytesIO(data))
    with RewardClient(url, TOKEN) as client:
        scores = client.assess([data, path, str(path), picture, np.asarray(picture)])
    assert len({score.reward for score in scores}) == 1


def test_files_are_sent_as_they_are_and_pixels_without_loss(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.open(BytesIO(tiny_png(4))).save(buffer, "JPEG", quality=75)
    assert encoded(buffer.getvalue()) == buffer.getvalue()
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert (np.asarray(Image.open(BytesIO(encoded(noise)))) == noise).all()
    assert encoded(Image.new("CMYK", (9, 9)))[:4] == b"\x89PNG"
    for wrong in (np.zeros((3, 3)), tmp_path / "missing.png", 7):
        with pytest.raises(CallerError):
            encoded(wrong)  # type: ignore[arg-type]
    with pytest.raises(CallerError, match="give the bytes") as caught:
        encoded(f"data:image/png;base64,{'A' * 10_000}")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([tiny_png(4), Image.new("F", (9, 9))], "image 1: .*unsupported_format"),
        ([tiny_png(4), "missing.png"], "image 1: .*missing.png"),
        ([tiny_png(4), "no\0name"], "image 1: .*null"),
        ([tiny_png(4), np.zeros((9, 9))], r"image 1: .*\(9, 9\) float64"),
        ("folder", "images are a list"),
        (np.zeros((9, 9, 3), np.uint8), "images are a list"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is(images: Any, said: str) -> None:
    with RewardClient("http://127.0.0.1:9") as client, pytest.raises(CallerError, match=said):
        client.assess(images)


class Script(BaseHTTPRequestHandler):
    """Answers with the statuses of a script, one after the other; None breaks the connection."""

    statuses: ClassVar[list[int | None]] = []
    times: ClassVar[list[float]] = []
    reward: ClassVar[str] = "3.0"

    def do_POST(self) -> None:
        self.times.append(time.monotonic())
        self.rfile.read(int(self.headers["content-length"]))
        status = self.statuses.pop(0) if self.statuses else 200
        if status is None:
            self.connection.close()
            return
        result = {"status": "scored", "scores": {"layout": 3.0}, "std": {"layout": 0.5}, "reward": "?"}
        body = {"fingerprint": "f", "rubric": "r", "results": [result]} if status == 200 else _error(status)
        content = json.dumps(body).replace('"?"', self.reward).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def _error(status: int) -> dict[str, Any]:
    return {"error": {"code": "x", "message": f"because {status}"}}


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Script) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def say(*statuses: int | None) -> None:
    Script.statuses[:] = statuses
    Script.times.clear()
    Script.reward = "3.0"


@pytest.mark.parametrize("reward", ["NaN", "99", '"high"', "null", "-Infinity", "1e400"])
def test_a_reward_that_is_none_is_an_error_with_the_beginning_of_the_answer(scripted: str, reward: str) -> None:
    """For both clients and what a trainer calls; nobody asks again."""

    async def ask() -> Any:
        async with AsyncRewardClient(scripted) as client:
            return await client.assess([b"x"])

    with RewardClient(scripted) as client:
        for call in (
            lambda: client.assess([b"x"]),
            lambda: client.rank([b"x"]),
            lambda: ImageReward(client, rejected=0.0)([b"x"]),
            lambda: trl_reward(client, lambda *_, **__: [b"x"])([None], ["c"]),
            lambda: asyncio.run(ask()),
        ):
            say()
            Script.reward = reward
            with pytest.raises(RequestRefused, match=r"results\.0\.reward is .*no number from 1 to 5") as caught:
                call()
            assert '{"fingerprint": "f", "rubric": "r", "results": [{"status": "scored"' in str(caught.value)
            assert len(Script.times) == 1


def test_an_answer_about_fewer_images_than_were_sent_is_an_error(scripted: str) -> None:
    say()
    with RewardClient(scripted) as client, pytest.raises(RequestRefused, match="1 results, and 2 were asked for"):
        client.assess([b"x", b"y"])


def test_of_several_requests_none_is_asked_on_when_one_is_refused(scripted: str) -> None:
    async def ask() -> None:
        async with AsyncRewardClient(scripted, images_per_request=1) as client:
            with pytest.raises(RequestRefused):
                await client.assess([b"x", b"y", b"z"])
            await settled()
            assert asyncio.all_tasks() == {asyncio.current_task()}, "nobody is left who could ask"

    say(503, 422, 503, *[503] * 100)
    asyncio.run(ask())


def test_overload_and_a_broken_connection_are_waited_out(scripted: str) -> None:
    say(503, None, 503)
    with RewardClient(scripted) as client:
        assert client.assess([b"x"])[0].reward == 3.0
    assert len(Script.times) == 4


def test_retry_after_is_kept_to(scripted: str) -> None:
    say(429)
    with RewardClient(scripted) as client:
        client.assess([b"x"])
    assert Script.times[1] - Script.times[0] >= 1.0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 302])
def test_a_refusal_is_told_at_once(scripted: str, status: int) -> None:
    say(status)
    with RewardClient(scripted) as client, pytest.raises(RequestRefused, match=f"{status}: because {status}"):
        client.assess([b"x"])
    assert len(Script.times) == 1


def test_what_a_proxy_says_of_a_dead_process_is_tried_again_a_few_times(
    scripted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iqa_core.endpoint.attempts.LONGEST_WAIT_S", 0.05)
    say(500, 502, 504)
    with RewardClient(scripted) as client:
        assert client.assess([b"x"])[0].reward == 3.0
    say(*[500] * 100)
    with RewardClient(scripted) as client, pytest.raises(EndpointUnavailable, match="fails with 500: because 500"):
        client.assess([b"x"])
    assert len(Script.times) == 1 + PROXY_FAULT_TRIES


def test_busy_answers_and_lost_connections_leave_a_dead_process_its_tries(
    scripted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iqa_core.endpoint.attempts.LONGEST_WAIT_S", 0.05)
    say(*[503, None] * 2, *[500] * PROXY_FAULT_TRIES)
    with RewardClient(scripted) as client:
        assert client.assess([b"x"])[0].reward == 3.0
    assert len(Script.times) == 5 + PROXY_FAULT_TRIES


def test_patience_ends(scripted: str) -> None:
    say(*[503] * 100)
    began = time.monotonic()
    with RewardClient(scripted, patience_s=0.5) as client, pytest.raises(EndpointUnavailable, match="status 503"):
        client.assess([b"x"])
    assert time.monotonic() - began < 60
    with RewardClient("http://127.0.0.1:1", patience_s=0.1) as client, pytest.raises(EndpointUnavailable):
        client.assess([b"x"])


def test_the_asynchronous_client_waits_it_out_too(scripted: str) -> None:
    async def ask() -> Any:
        async with AsyncRewardClient(scripted) as client:
            return await client.assess([b"x"])

    say(503, None)
    assert asyncio.run(ask())[0].reward == 3.0


def test_a_wrong_token_is_a_refusal_that_does_not_show_it(url: str) -> None:
    with RewardClient(url, "another-secret-token") as client, pytest.raises(RequestRefused) as caught:
        client.assess([tiny_png(1)])
    assert "401" in str(caught.value)
    assert "another-secret-token" not in str(caught.value)
