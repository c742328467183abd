"""The loops of flow_grpo and verl-omni get rewards from the endpoint, and no number where there is none.

Each client here does, step by step, what its source does between an image and a reward: flow_grpo's `rewards.py`
(`deqa_score_remote`, `multi_score`) and verl-omni's `http_scorer_client.py` and `pickscore_http_client.py`. Only the
URL is another.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serve.errors import Refusal
from serve.protocol.flow_grpo import flow_grpo_images
from serve.protocol.pickles import values_of_pickle
from tests.corpora import tiny_png
from tests.serve.local import asking, listening
from tests.serve.test_api import ask

ON: dict[str, Any] = {"dialects": ["flow_grpo"]}
PICKLED = {"Content-Type": "application/octet-stream"}
PICTURE = tiny_png(1)
BROKEN = b"no image"


def jpeg(pixels_HWC: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, format="JPEG")
    return buffer.getvalue()


def deqa_score_remote(url: str, batch_size: int = 64) -> Callable[..., Any]:
    """flow_grpo's: without a content type, in batches; whatever the answer's status, it is unpickled."""

    def score(images: NDArray[np.uint8], prompts: Sequence[str], metadata: Any) -> Any:
        scores: list[float] = []
        for batch in np.array_split(images, int(np.ceil(len(images) / batch_size))):
            data = {"images": [jpeg(image) for image in batch]}
            response = httpx2.post(url, content=pickle.dumps(data), timeout=120)
            scores += pickle.loads(response.content)["outputs"]
        return scores, {}

    return score


def multi_score(url: str, weight: float) -> Callable[..., dict[str, list[float]]]:
    """flow_grpo's, of one reward."""
    score = deqa_score_remote(url)

    def scores(images: NDArray[np.uint8], prompts: Sequence[str], metadata: Any) -> dict[str, list[float]]:
        found, _ = score(images, prompts, metadata)
        return {"deqa": found, "avg": [weight * one for one in found]}

    return scores


async def http_scorer(image: NDArray[np.uint8] | bytes, ground_truth: str, server_url: str) -> dict[str, float]:
    """verl-omni's: one image a request, of the type that aiohttp gives to bytes; a refused request raises."""
    data = image if isinstance(image, bytes) else jpeg(image)
    payload = pickle.dumps({"images": [data], "prompts": [ground_truth], "metadata": {}})
    async with httpx2.AsyncClient(timeout=120) as session:
        response = await session.post(server_url, content=payload, headers=PICKLED)
    if response.status_code != 200:
        raise RuntimeError(f"Scorer server returned HTTP {response.status_code}: {_error_detail(response.content)}")
    answer = pickle.loads(response.content)
    if "error" in answer:
        raise RuntimeError(f"Scorer server error: {answer['error']}")
    scores = answer.get("scores")
    if not scores:
        raise RuntimeError("Scorer server returned no scores")
    return {"score": float(scores[0])}


def _error_detail(response_bytes: bytes) -> str:
    """verl-omni's: the words of an answer that is a pickle or a text."""
    try:
        answer = pickle.loads(response_bytes)
    except (pickle.UnpicklingError, EOFError):
        return response_bytes.decode("utf-8", errors="replace")
    return str(answer["error"]) if isinstance(answer, dict) and "error" in answer else repr(response_bytes)


async def pickscore(image: bytes, ground_truth: str, server_url: str) -> dict[str, float]:
    """verl-omni's other client, and its first: what it takes for an error is 0.0 to it."""
    payload = pickle.dumps({"images": [image], "prompts": [ground_truth], "metadata": {}})
    async with httpx2.AsyncClient(timeout=120) as session:
        response = await session.post(server_url, content=payload, headers=PICKLED)
    answer = pickle.loads(response.content) if response.status_code == 200 else {"error": response.text}
    if "error" in answer:
        return {"score": 0.0}
    scores = answer.get("scores", [])
    return {"score": float(scores[0]) if scores else 0.0}


def direct(url: str, images: Sequence[bytes]) -> list[float]:
    answer = httpx2.post(f"{url}/v1/assess", files=[("images", image) for image in images], timeout=120)
    return [one["reward"] for one in answer.json()["results"]]


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)


def test_a_loop_of_flow_grpo_gets_its_rewards() -> None:
    images = pictures(70)
    with listening(**ON) as url:
        found = multi_score(f"{url}/flow_grpo", 0.5)(images, ["a hall"] * len(images), {})
        expected = [*direct(url, [jpeg(one) for one in images[:35]]), *direct(url, [jpeg(one) for one in images[35:]])]
    assert found == {"deqa": expected, "avg": [0.5 * one for one in expected]}
    assert len(set(expected)) > 1


def test_a_loop_of_verl_omni_gets_its_rewards() -> None:
    images = pictures(4)

    async def score(url: str) -> list[dict[str, float]]:
        # all samples of a batch at once, as its workers ask
        return await asyncio.gather(*(http_scorer(image, "a hall", f"{url}/flow_grpo") for image in images))

    with listening(**ON) as url:
        found = asyncio.run(score(url))
        assert found == [{"score": one} for one in direct(url, [jpeg(image) for image in images])]


def test_a_picture_without_a_reward_stops_the_loop_and_is_no_number() -> None:
    with listening(**ON) as url:
        data = pickle.dumps({"images": [PICTURE, BROKEN]})
        answer = values_of_pickle(httpx2.post(f"{url}/flow_grpo", content=data).content, 2)
        assert answer["outputs"] == answer["scores"] == [*direct(url, [PICTURE]), None]
        assert answer["reasons"] == [None, "unsupported_format"]
        with pytest.raises(TypeError):
            [0.5 * one for one in answer["outputs"]]
        for client in (http_scorer, pickscore):
            with pytest.raises(TypeError):
                asyncio.run(client(BROKEN, "a hall", f"{url}/flow_grpo"))


def test_a_refused_request_stops_the_loop_in_words() -> None:
    with listening(**ON, max_images=4) as url:
        with pytest.raises(pickle.UnpicklingError):  # what flow_grpo sees of any answer that is none
            deqa_score_remote(f"{url}/flow_grpo")(pictures(5), [], {})
        assert deqa_score_remote(f"{url}/flow_grpo", batch_size=4)(pictures(5), [], {})
        with pytest.raises(RuntimeError, match=r"HTTP 404: .*not_found"):
            asyncio.run(http_scorer(PICTURE, "a hall", f"{url}/elsewhere"))
        assert asyncio.run(http_scorer(PICTURE, "a" * 16_385, f"{url}/flow_grpo"))


def test_the_answer_holds_no_global_and_says_which_model_it_is_of() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        response = await client.post("/flow_grpo", content=pickle.dumps({"images": [PICTURE] * 3}))
        assert (response.status_code, response.headers["content-type"]) == (200, "application/octet-stream")
        answer = values_of_pickle(response.content, 3)
        assert answer == pickle.loads(response.content)
        assert set(answer) == {"outputs", "scores", "reasons", "fingerprint"}
        assert {type(one) for one in answer["outputs"]} == {float}
        models = (await client.get("/v1/models")).json()
        assert answer["fingerprint"] == models["models"][0]["fingerprint"]

    ask(test, **ON)


def test_without_the_setting_there_is_no_such_route() -> None:
    async def test() -> None:
        async with asking() as client:
            body = pickle.dumps({"images": [PICTURE]})
            answer, unknown = [await client.post(path, content=body) for path in ("/flow_grpo", "/unknown")]
            assert (answer.status_code, answer.json()) == (404, unknown.json())
            assert "/flow_grpo" not in (await client.get("/openapi.json")).json()["paths"]
        async with asking(**ON) as client:
            operation = (await client.get("/openapi.json")).json()["paths"]["/flow_grpo"]["post"]
            assert set(operation["requestBody"]["content"]) == {"application/octet-stream"}
            assert set(operation["responses"]["200"]["content"]) == {"application/octet-stream"}

    asyncio.run(test())


def test_another_content_type_is_refused_unread() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        for kind in ("application/json", "text/plain", "multipart/form-data; boundary=b"):
            answer = await client.post("/flow_grpo", content=b"{}", headers={"Content-Type": kind})
            assert answer.status_code == 415
            assert answer.json()["error"]["message"] == "send application/octet-stream"

    ask(test, **ON)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "body: no dict"),
        ({}, "images: Field required"),
        ({"images": []}, "images: List should have at least 1"),
        ({"images": "abc"}, "images: Input should be a valid list"),
        ({"images": ["text"]}, "images.0: Input should be a valid bytes"),
        ({"images": [PICTURE], "prompts": ["a", "b"]}, "2 prompts for 1 images"),
        ({"images": [PICTURE], "prompts": [b"a"]}, "prompts.0: Input should be a valid string"),
        ({"images": [PICTURE], "prompts": "a"}, "prompts: Input should be a valid list"),
        ({"images": [PICTURE], "meta_datas": [{}], "only_strict": True}, "meta_datas: Extra inputs"),
        ({"images": [PICTURE] * 5}, "5 images are more than the 4"),
        ({"images": [PICTURE], "prompts": np.array(["a"])}, "of a numpy array, its .tolist()"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(asked: Any, said: str) -> None:
    with pytest.raises(Refusal) as found:
        flow_grpo_images(pickle.dumps(asked), 4)
    assert found.value.status == 422
    assert said in found.value.message


@pytest.mark.parametrize("kind", [list, tuple])
def test_pictures_and_prompts_are_handed_on_in_order(kind: Callable[[list[Any]], Any]) -> None:
    data = {"images": kind([PICTURE, bytearray(BROKEN)]), "prompts": kind(["a hall", "a hall"]), "metadata": {"a": [1]}}
    found = flow_grpo_images(pickle.dumps(data, protocol=5), 4)
    assert [(one.data, one.texts) for one in found] == [(PICTURE, {"prompt": "a hall"}), (BROKEN, {"prompt": "a hall"})]
    [alone] = flow_grpo_images(pickle.dumps({"images": [PICTURE]}), 4)
    assert alone.texts == {}


class Making:
    """What makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_what_a_pickle_would_do_is_not_done(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    body = pickle.dumps({"images": [PICTURE], "metadata": Making(made)}, protocol=protocol)

    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/flow_grpo", content=body)
        assert answer.status_code == 422
        assert "a name of something to import" in answer.json()["error"]["message"]

    ask(test, **ON)
    assert not made.exists()
    pickle.loads(body)
    assert made.exists(), "it would have been done"


def test_tokens_and_limits_are_those_of_all_routes() -> None:
    """A token is asked for, and a body that is too large is refused before it is read."""

    async def test() -> None:
        body = pickle.dumps({"images": [PICTURE]})
        async with asking("a-token-of-a-caller", **ON) as client:
            assert (await client.post("/flow_grpo", content=body)).status_code == 200
            answer = await client.post("/flow_grpo", content=body, headers={"Authorization": "Bearer none"})
            assert answer.status_code == 401
        async with asking(**ON, max_body_bytes=1024) as client:
            assert (await client.post("/flow_grpo", content=bytes(2000))).status_code == 413

    asyncio.run(test())
