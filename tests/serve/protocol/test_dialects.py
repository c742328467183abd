"""UniRL's and Flow-Factory's own requests, answered in their own form."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import pytest

from tests.corpora import tiny_png
from tests.serve.test_api import ask

PICTURE = base64.b64encode(tiny_png(1)).decode()
BROKEN = base64.b64encode(b"no image").decode()


def unirl(*pictures: str, reward: str = "iqa") -> dict[str, Any]:
    turns = [[{"text": "first", "image_b64": BROKEN}, {"text": "a hall", "image_b64": picture}] for picture in pictures]
    return {"requests": [{"history": turn, "required_rewards": [reward], "metadata": {"seed": 1}} for turn in turns]}


def test_unirl_scores_the_last_picture_of_each_request() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        assert (await client.get("/rewards")).json() == {"rewards": ["iqa"]}
        assert (await client.get("/health")).json()["status"] == "ok"
        body = (await client.post("/score", json=unirl(PICTURE, BROKEN))).json()
        direct = await client.post("/v1/assess", json={"images": [{"data": PICTURE}]})
        scored = body["results"][0]["iqa"]
        assert scored["reward"] == direct.json()["results"][0]["reward"]
        assert set(scored) == {"reward", "layout", "harmony", "lighting", "distortion"}
        assert body["results"][1] == {}
        assert body["errors"][0] == {}
        assert body["errors"][1]["iqa"].startswith("unsupported_format: ")

    ask(test)


def test_flow_factory_gets_one_reward_per_picture_and_null_where_there_is_none() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        # all that its client sends
        asked = {
            "prompt": ["a hall", "a kitchen"],
            "image": [PICTURE, BROKEN],
            "video": None,
            "condition_images": None,
            "condition_videos": None,
            "kwargs": None,
        }
        body = (await client.post("/compute", json=asked)).json()
        direct = await client.post("/v1/assess", json={"images": [{"data": PICTURE}]})
        assert body["rewards"] == [direct.json()["results"][0]["reward"], None]
        assert body["reasons"] == [None, "unsupported_format"]

    ask(test)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", unirl(PICTURE, reward="clip")),
        ("/score", {"requests": []}),
        ("/score", {"requests": [{"history": [], "required_rewards": ["iqa"]}]}),
        ("/score", {"requests": [{"history": [{"text": "no picture"}], "required_rewards": ["iqa"]}]}),
        ("/score", unirl("no base64")),
        ("/compute", {"prompt": ["a"], "image": [PICTURE, PICTURE]}),
        ("/compute", {"prompt": ["a"], "image": None, "video": [[PICTURE]]}),
        ("/compute", {"prompt": ["a"], "image": ["no base64"]}),
    ],
)
def test_what_is_not_understood_is_refused(path: str, body: dict[str, Any]) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        assert (await client.post(path, json=body)).status_code == 422

    ask(test)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/score", unirl(PICTURE, "!"), "requests.1: image_b64: not base64"),
        ("/compute", {"prompt": ["a"], "image": ["!"]}, "image.0: not base64"),
    ],
)
def test_base64_that_is_none_is_told_by_the_field_of_its_dialect(path: str, body: dict[str, Any], field: str) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post(path, json=body)
        assert answer.json()["error"]["message"].startswith(field)

    ask(test)


def test_base64_may_be_broken_into_lines_or_safe_for_urls() -> None:
    picture = base64.urlsafe_b64encode(tiny_png(1)).decode().rstrip("=")
    broken = "\r\n".join(picture[at : at + 79] for at in range(0, len(picture), 79))

    async def test(client: httpx2.AsyncClient) -> None:
        plain = (await client.post("/score", json=unirl(PICTURE))).json()
        assert (await client.post("/score", json=unirl(broken))).json() == plain
        body = (await client.post("/compute", json={"prompt": ["a"], "image": [broken]})).json()
        assert body["rewards"] == [plain["results"][0]["iqa"]["reward"]]

    ask(test)


def test_a_pickle_is_refused_unread() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        for path in ("/score", "/compute", "/v1/assess"):
            headers = {"Content-Type": "application/octet-stream"}
            assert (await client.post(path, content=b"\x80\x04}.", headers=headers)).status_code == 415
        assert (await client.post("/", content=b"\x80\x04}.")).status_code == 405

    ask(test)
