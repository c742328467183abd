"""Questions of callers' own: the answer that a notebook gets, in any company, and what is refused in words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from iqa_core.assessor.direct import load_assessor
from iqa_core.client import AsyncRewardClient, Description, RequestRefused, RewardClient
from iqa_core.endpoint.answers import descriptions_of
from iqa_core.images.preparing import prepare
from iqa_core.records import FreeAnswer, FreeQuestion, Rejection
from tests.corpora import tiny_png
from tests.serve.local import listening, local_endpoint
from tests.serve.test_api import ask, b64

RUBRIC = "perception-v1"
WRITTEN = {"rubric": RUBRIC, "fusion": None}
IMAGES = [tiny_png(i) for i in range(6)]
SENT = [{"data": b64(image)} for image in IMAGES]
QUESTION = "What stands by the window, if there is one?"
MOST = 768
"""Tokens of an answer by the rubric."""


def ask_written(test: Any, **settings: Any) -> None:
    ask(test, **{**WRITTEN, **settings})


def own_answers(question: str, max_tokens: int) -> list[FreeAnswer | Rejection]:
    """Those of an assessor without any endpoint."""
    assessor: Any = load_assessor("fake:", RUBRIC)
    prepared = [prepare(image, assessor.preparer) for image in IMAGES]
    found: list[FreeAnswer | Rejection] = assessor.describe(prepared, [FreeQuestion(question, max_tokens)] * 6)
    return found


@pytest.mark.parametrize("max_tokens", [None, 3])
def test_an_answer_is_that_of_the_assessor_by_json_by_form_and_by_the_client(max_tokens: int | None) -> None:
    expected = own_answers(QUESTION, max_tokens or MOST)
    limit = {} if max_tokens is None else {"max_tokens": max_tokens}
    asked = {"question": QUESTION, **limit}

    async def test(client: httpx2.AsyncClient) -> None:
        corrupt = IMAGES[0][:60]
        for sent in (
            {"json": {"images": [*SENT, {"data": b64(corrupt)}], **asked}},
            {"files": [("images", image) for image in (*IMAGES, corrupt)], "data": asked},
        ):
            answer = await client.post("/v1/describe", **sent)
            assert answer.status_code == 200, answer.text
            body = answer.json()
            assert set(body) == {"fingerprint", "rubric", "results"}
            for result, own in zip(body["results"][:-1], expected, strict=True):
                assert isinstance(own, FreeAnswer)
                assert (result["status"], result["text"], result["finish"]) == ("described", own.text, own.finish)
                assert (result["format"], result["frames"]) == ("png", 1)
            assert body["results"][-1]["reason"] in ("truncated", "corrupt")
            taken = descriptions_of(body, 7)
            assert [one.text for one in taken[:-1]] == [one.text for one in expected if isinstance(one, FreeAnswer)]
            assert (taken[-1].text, taken[-1].reason) == (None, body["results"][-1]["reason"])

    ask_written(test)
    assert {one.finish for one in expected if isinstance(one, FreeAnswer)} == {"length" if max_tokens else "stop"}


def test_questions_and_the_rubrics_own_share_batches_and_keep_their_answers() -> None:
    questions = [f"What is the colour of number {i}?" for i in range(6)]

    async def test() -> None:
        endpoint = local_endpoint(**WRITTEN)
        async with endpoint.client() as client:

            async def one(i: int) -> list[Any]:
                body = {"images": SENT[: i % 3 + 1], "question": questions[i], "max_tokens": i + 4}
                own = await client.post("/v1/describe", json=body)
                return [result["text"] for result in own.json()["results"]]

            async def rated() -> Any:
                return (await client.post("/v1/assess", json={"images": SENT})).json()

            alone, plain = [await one(i) for i in range(6)], await rated()
            together = await asyncio.gather(*(one(i) for i in range(6)), *(rated() for _ in range(3)))
            assert together[:6] == alone
            assert together[6:] == [plain] * 3
            assert len({text for texts in alone for text in texts}) > 6, "of the images too"
        counted = endpoint.metrics.images
        assert (counted["", "described"], counted["", "scored"]) == (24, 24)

    asyncio.run(test())


REFUSED: list[tuple[Mapping[str, Any], str]] = [
    ({"question": " \n"}, "question: is blank"),
    ({"question": "x" * 2001}, "question: its 2001 characters are more than 2000"),
    ({"question": "x" * 20_000}, "question"),
    ({"question": None}, "question"),
    ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
    ({"max_tokens": MOST + 1}, f"max_tokens: 769 is more than the 768 of rubric {RUBRIC}"),
    ({"images": []}, "images"),
    ({"images": [SENT[0]] * 65}, "65 images are more than the 64"),
    ({"images": [{**SENT[0], "texts": {"prompt": "a"}}]}, "images.0.texts: Extra inputs are not permitted"),
    ({"rubric": RUBRIC}, "rubric: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_is_out_of_bounds_is_refused_before_anything_is_asked(given: Mapping[str, Any], words: str) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/describe", json={"images": SENT[:1], "question": QUESTION, **given})
        assert answer.status_code == 422
        assert words in answer.json()["error"]["message"]

    ask_written(test)


def test_openapi_has_an_example_that_is_answered() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        described = (await client.get("/openapi.json")).json()["paths"]["/v1/describe"]["post"]
        content = described["requestBody"]["content"]
        answer = await client.post("/v1/describe", json=content["application/json"]["example"])
        assert answer.json()["results"][0]["status"] == "described"
        assert {"question", "max_tokens"} <= content["multipart/form-data"]["schema"]["properties"].keys()

    ask_written(test)


def test_a_form_has_no_other_fields_and_another_type_is_415() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        for data in ({"question": QUESTION, "probs": "true"}, {"question": [QUESTION, QUESTION]}):
            answer = await client.post("/v1/describe", files=[("images", IMAGES[0])], data=data)
            assert answer.status_code == 422
            assert "is unknown or there twice" in answer.json()["error"]["message"]
        assert (
            await client.post("/v1/describe", content=b"a", headers={"Content-Type": "text/plain"})
        ).status_code == 415

    ask_written(test)


def test_where_no_model_writes_there_is_no_such_path() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/describe", json={"images": SENT[:1], "question": QUESTION})
        assert answer.status_code == 404
        assert "/v1/describe" not in (await client.get("/openapi.json")).json()["paths"]
        assert answer.json()["error"] == {
            "code": "not_found",
            "message": "answers to interior-v1 are closed sets; questions are answered where a written rubric is "
            "served",
        }

    ask(test)


def test_the_same_caps_hold_as_for_assessing() -> None:
    """A caller whose images already fill its half of the line is turned away."""

    async def test(client: httpx2.AsyncClient) -> None:
        bodies = {"images": SENT[:2], "question": QUESTION}
        answers = await asyncio.gather(*(client.post("/v1/describe", json=bodies) for _ in range(12)))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert (await client.post("/v1/describe", json=bodies)).status_code == 200

    ask_written(test, max_waiting_images=4, assessor={"checkpoint": "fake:?sleep_s=0.3"})


def test_an_image_on_which_the_assessor_fails_costs_only_itself() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        images = [tiny_png(0), tiny_png(1, corner=(1, 1, 1)), tiny_png(2, corner=(4, 5, 6))]
        body = {"images": [{"data": b64(image)} for image in images], "question": QUESTION}
        results = (await client.post("/v1/describe", json=body)).json()["results"]
        assert [one["status"] for one in results] == ["described", "rejected", "rejected"]
        assert [one["detail"] for one in results[1:]] == [
            "assessing it failed with RuntimeError",
            "the model returned the logit of a token that is not finite",
        ]

    ask_written(test, assessor={"checkpoint": "fake:?raise_on=010101&nan_on=040506"})


def test_both_clients_ask_and_say_why_they_cannot() -> None:
    expected = [one.text for one in own_answers(QUESTION, 5) if isinstance(one, FreeAnswer)]
    with listening(**WRITTEN) as url:
        with RewardClient(url, images_per_request=4) as client:
            found = client.describe(IMAGES, QUESTION, max_tokens=5)
            with pytest.raises(RequestRefused, match="max_tokens: 999 is more than the 768"):
                client.describe(IMAGES, QUESTION, max_tokens=999)
        assert [one.text for one in found] == expected
        assert {(one.finish, one.reason, len(one.fingerprint)) for one in found} == {("length", None, 16)}

        async def asynchronously() -> list[Description]:
            async with AsyncRewardClient(url, images_per_request=4) as client:
                return await client.describe(IMAGES, QUESTION, max_tokens=5)

        assert asyncio.run(asynchronously()) == found


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"status": "described", "text": 3, "finish": "stop"}, "results.0.text is 3, no text"),
        ({"status": "described", "text": "a", "finish": "end"}, "results.0.finish is 'end', neither stop nor length"),
        ({"status": "scored"}, "results.0.status is 'scored', neither described nor rejected"),
        ({"status": "rejected", "reason": "corrupt", "detail": "a", "text": "b"}, "text is there though"),
        ({"status": "described", "finish": "stop"}, "it has no results.0.text"),
    ],
)
def test_what_is_no_such_answer_is_not_taken(result: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        descriptions_of({"fingerprint": "a", "results": [result]}, 1)
