"""Flow-Factory's loop gets its rewards from the endpoint, and what a closed set has no answer to is refused in words.

The client here does, step by step, what Flow-Factory's `vllm_evaluate.py` does between an image and a reward. Only the
URL is another.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Sequence
from typing import Any

import httpx2
import numpy as np
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe
from iqa_core.records import Assessment, ImageHeader
from iqa_core.rubrics import load_rubric
from serve.errors import Refusal
from serve.model.results import Model, ScoredImage
from serve.protocol.chat import chat_question, completion
from serve.protocol.question_texts import asked_question
from serve.settings import ServeSettings
from tests.corpora import tiny_png
from tests.serve.local import UNEVEN, asking, listening, local_endpoint
from tests.serve.sites import always, saying
from tests.serve.test_api import ask, replaced

CHAT = "/v1/chat/completions"
OPEN: dict[str, Any] = {"rubric": str(UNEVEN.with_name("question.toml")), "fusion": None}
PROMPTED: dict[str, Any] = {"rubric": str(UNEVEN.with_name("prompted.toml")), "fusion": None}
IMAGES = [tiny_png(i) for i in range(6)]
QUESTIONS = [
    "Is it a beautiful image?",
    "Judge this image by ALL of these:\n1. Naturalness: light.\n2. Artifacts: none.\n\nIs it good? Answer Yes or No.",
]
NUM_TRIES = 2
"""Of ten, with 1 s, 2 s, 4 s, … between them."""


def data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def image_part(image: bytes | str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image if isinstance(image, str) else data_uri(image), **more}}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def asking_for(image: bytes | str = IMAGES[0], text: str = QUESTIONS[0], model: str = "question") -> dict[str, Any]:
    """What Flow-Factory's client puts into a body."""
    return {
        "model": model,
        "messages": [user(image_part(image), text_part(text))],
        "temperature": 0.0,
        "max_completion_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
    }


def place_of(answer: Any) -> dict[str, Any]:
    """The one place of a completion at which answers are read."""
    assert answer.status_code == 200, answer.text
    [choice] = answer.json()["choices"]
    [place] = choice["logprobs"]["content"]
    assert isinstance(place, dict)
    return place


class VllmEvaluate:
    """Flow-Factory's reward of an image: P(Yes) against P(No), and 0.0 where there is none after some tries."""

    def __init__(self, api_base_url: str, vlm_model: str, question: str, canonicalize: bool = False) -> None:
        self._url = f"{api_base_url}/chat/completions"
        self._model, self._question, self._canonicalize = vlm_model, question, canonicalize
        self.warnings: list[str] = []

    def rewards(self, images: Sequence[bytes]) -> list[float]:
        async def score() -> list[float]:
            async with httpx2.AsyncClient(timeout=60, headers={"Authorization": "Bearer EMPTY"}) as client:
                return list(await asyncio.gather(*(self._score(client, image) for image in images)))

        return asyncio.run(score())

    async def _score(self, client: httpx2.AsyncClient, image: bytes) -> float:
        for _ in range(NUM_TRIES):
            answer = await client.post(self._url, json=asking_for(image, self._question, self._model))
            if answer.status_code == 200:
                return self._yes_of(answer.json())
            self.warnings.append("{code}: {message}".format(**answer.json()["error"]))
        return 0.0

    def _yes_of(self, completion: dict[str, Any]) -> float:
        logprobs = completion["choices"][0]["logprobs"]
        if not logprobs:
            return 0.0
        found = [(one["token"], one["logprob"]) for one in logprobs["content"][0]["top_logprobs"]]
        if self._canonicalize:
            yes, no = (
                sum(math.exp(p) for token, p in found if token.strip().lower() == word) for word in ("yes", "no")
            )
            return yes / (yes + no) if yes + no else 0.0
        yes, no = (dict(found).get(word, -math.inf) for word in ("Yes", "No"))
        return 0.0 if yes == no == -math.inf else 1 / (1 + math.exp(no - yes))


def direct(url: str, images: Sequence[bytes], text: str) -> list[float]:
    """Probabilities of yes by the endpoint's own route."""
    sent = [{"data": data_uri(image), "texts": {"question": text}} for image in images]
    answer = httpx2.post(f"{url}/v1/assess", json={"images": sent, "probs": True}, timeout=60).json()
    return [one["probs"]["yes"][1] for one in answer["results"]]


@pytest.mark.parametrize("canonicalize", [False, True])
def test_a_loop_of_flow_factory_gets_its_rewards(canonicalize: bool) -> None:
    with listening(**OPEN) as url:
        for question in QUESTIONS:
            client = VllmEvaluate(f"{url}/v1", "question", question, canonicalize)
            found = client.rewards(IMAGES)
            assert found == pytest.approx(direct(url, IMAGES, question), abs=2e-6)
            assert len(set(found)) == len(IMAGES)
            assert not client.warnings


def test_an_image_without_scores_is_no_answer_and_its_loop_is_told_why() -> None:
    """The 0.0 is Flow-Factory's own, with the words in its log."""
    with listening(**OPEN) as url:
        client = VllmEvaluate(f"{url}/v1", "question", QUESTIONS[0])
        good, broken = client.rewards([IMAGES[0], b"no image"])
        assert good == pytest.approx(direct(url, IMAGES[:1], QUESTIONS[0])[0], abs=2e-6)
        assert broken == 0.0
        assert (
            client.warnings
            == ["unsupported_format: not an image of a supported format: it seems to be plain text"] * NUM_TRIES
        )


def test_a_completion_is_whole_and_names_the_model() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post(CHAT, json=asking_for())
        assert answer.status_code == 200, answer.text
        body = answer.json()
        models = (await client.get("/v1/models")).json()
        assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
        assert (body["object"], body["model"]) == ("chat.completion", "question")
        assert body["system_fingerprint"] == models["models"][0]["fingerprint"]
        [choice] = body["choices"]
        [place] = choice["logprobs"]["content"]
        assert (choice["index"], choice["finish_reason"], choice["message"]["role"]) == (0, "length", "assistant")
        assert choice["message"]["content"] == place["token"] == place["top_logprobs"][0]["token"]
        assert [bytes(one["bytes"]).decode() for one in place["top_logprobs"]] == [
            one["token"] for one in place["top_logprobs"]
        ]
        assert sum(math.exp(one["logprob"]) for one in place["top_logprobs"]) == pytest.approx(1, abs=1e-6)
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        longer = (await client.post(CHAT, json=asking_for(text="Is it? " * 50))).json()["usage"]
        assert longer["prompt_tokens"] > usage["prompt_tokens"]
        assert [one["id"] for one in models["data"]] == ["question", "question/yes"]
        assert {one["object"] for one in models["data"]} == {"model"}

    ask(test, **OPEN)


ASKED = {
    "faithful": 'Does this picture show "two dogs"?',
    "faults": 'How many faults does a picture of "two dogs" have here?',
}


@pytest.mark.parametrize("name", ASKED)
def test_a_question_is_answered_with_the_probabilities_that_its_dimension_has(name: str) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        assess = {"images": [{"data": data_uri(IMAGES[0])}], "probs": True, "prompt": "two dogs"}
        direct = (await client.post("/v1/assess", json=assess)).json()
        wanted = dict(zip(direct["scales"][name]["answers"], direct["results"][0]["probs"][name], strict=True))
        for model in ("prompted", f"prompted/{name}"):
            answer = await client.post(CHAT, json=asking_for(text=ASKED[name], model=model))
            found = {one["token"]: math.exp(one["logprob"]) for one in place_of(answer)["top_logprobs"]}
            assert found == pytest.approx(wanted, abs=2e-6)
            assert list(found) == sorted(found, key=lambda word: -found[word])

    ask(test, **PROMPTED)


@pytest.mark.parametrize(("top", "number"), [(None, 0), (0, 0), (2, 2), (5, 5), (20, 5)])
def test_as_many_answers_are_named_as_are_asked_for(top: int | None, number: int) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        text = load_rubric("interior-v1").questions[0].query
        asked = {**asking_for(text=text, model="interior-v1"), "top_logprobs": top}
        place = place_of(await client.post(CHAT, json=asked))
        assert len(place["top_logprobs"]) == number
        assert place["token"] in ("bad", "poor", "fair", "good", "excellent")
        assert place["top_logprobs"][:1] in ([], [{name: place[name] for name in ("token", "logprob", "bytes")}])

    ask(test)


def test_a_probability_of_nothing_is_openais_least_logarithm() -> None:
    """JSON has no minus infinity."""
    settings = ServeSettings(rubric=OPEN["rubric"])
    model = Model.of(describe(AssessorConfig(checkpoint="fake:"), settings.rubric, settings.limits))
    score, std, probs = (np.array(values, np.float32) for values in ([1], [0], [0, 1]))
    asked = chat_question(json.dumps(asking_for()).encode(), 1)
    found = asked_question(asked.model, asked.text, [model.spec.rubric])
    result = ScoredImage(ImageHeader(8, 8, "png", 1), Assessment(score, std, (probs,)), 5.0)
    [choice] = completion(asked, found, model, result, settings.text_limits)["choices"]
    [place] = choice["logprobs"]["content"]
    assert [(one["token"], one["logprob"]) for one in place["top_logprobs"]] == [("Yes", 0.0), ("No", -9999.0)]


SAME: dict[str, dict[str, Any]] = {
    "the text first": {"messages": [user(text_part(QUESTIONS[0]), image_part(IMAGES[0]))]},
    "an empty system message": {
        "messages": [{"role": "system", "content": " "}, user(image_part(IMAGES[0]), text_part(QUESTIONS[0]))]
    },
    "defaults of OpenAI's": {"n": 1, "stream": False, "max_tokens": 1},
    "nulls": {"tools": None, "stop": None, "seed": None, "temperature": None, "response_format": None},
    "the detail that is none": {"messages": [user(image_part(IMAGES[0], detail="auto"), text_part(QUESTIONS[0]))]},
    "its base64 alone": {
        "messages": [user(image_part(data_uri(IMAGES[0]).replace("image/png", "")), text_part(QUESTIONS[0]))]
    },
    "the older name of its limit": {"max_tokens": 1, "max_completion_tokens": None},
}


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_what_changes_nothing_is_taken(changes: dict[str, Any]) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        wanted = place_of(await client.post(CHAT, json=asking_for()))
        assert place_of(await client.post(CHAT, json={**asking_for(), **changes})) == wanted

    ask(test, **OPEN)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"max_completion_tokens": 4096}, "max_completion_tokens", "less than or equal to 1; no text is written here"),
    ({"max_completion_tokens": None, "max_tokens": 64}, "max_tokens", "no text is written here"),
    (
        {"max_completion_tokens": None},
        "max_tokens",
        "no text is written here; send 1: the answer is one of a closed set",
    ),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "no text is written here"),
    ({"logprobs": False}, "logprobs", "send true: the answer is the probabilities of a closed set"),
    ({"logprobs": None}, "logprobs", "Field required; send true"),
    ({"top_logprobs": 21}, "top_logprobs", "send how many answers to name, up to 20"),
    ({"temperature": 0.7}, "temperature", "send 0: the content is the likeliest answer"),
    ({"temperature": 1}, "temperature", "send 0"),
    ({"n": 2}, "n", "send 1: the same image has the same answer each time"),
    ({"stream": True}, "stream", "send false: the answer comes whole"),
    ({"tools": []}, "tools", "a closed set has no use for it; send no more than model, messages, max_tokens"),
    ({"response_format": {"type": "json_object"}}, "response_format", "a closed set has no use for it"),
    ({"seed": 7}, "seed", "a closed set has no use for it"),
    ({"stop": ["\n"]}, "stop", "a closed set has no use for it"),
    ({"top_p": 0.8}, "top_p", "a closed set has no use for it"),
    ({"model": "Qwen3-VL"}, "model", "'Qwen3-VL' is none of question, question/yes"),
    ({"model": None}, "model", "model: Field required; send the id of a rubric"),
    ({"messages": []}, "messages", "one user message with one image_url and one text"),
    ({"messages": [user(text_part("a"))]}, "messages", "not 1 messages with 0 images and 1 texts"),
    ({"messages": [user(image_part(IMAGES[0]))]}, "messages", "not 1 messages with 1 images and 0 texts"),
    (
        {"messages": [user(*[image_part(IMAGES[0])] * 2, text_part("a"))]},
        "messages",
        "not 1 messages with 2 images and 1 texts",
    ),
    (
        {"messages": [user(image_part(IMAGES[0]), text_part("a"), text_part("b"))]},
        "messages",
        "/v1/assess takes several images; not 1 messages with 1 images and 2 texts",
    ),
    ({"messages": [user(image_part(IMAGES[0]), text_part("a"))] * 2}, "messages", "not 2 messages"),
    ({"messages": [{"role": "user", "content": "a"}]}, "messages", "not 1 messages with 0 images and 1 texts"),
    (
        {"messages": [{"role": "system", "content": "You are a helpful assistant."}, user(text_part("a"))]},
        "messages",
        "the rubric says what the system message is; leave it out",
    ),
    (
        {"messages": [{"role": "system", "content": [image_part(IMAGES[0])]}, user(text_part("a"))]},
        "messages",
        "the rubric says what the system message is; leave it out",
    ),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "messages", "messages.0.role: Input should be 'user' or"),
    ({"messages": [user({"type": "input_audio"})]}, "messages", "messages.0.content.0.type: Input should be 'text' or"),
    ({"messages": [user({"type": "text"})]}, "messages", "a part of type text has text, and nothing else"),
    ({"messages": [user({**image_part(""), "text": "a"})]}, "messages", "a part of type image_url has image_url, and"),
    (
        {"messages": [user(image_part(IMAGES[0], detail="high"), text_part("a"))]},
        "messages",
        "image_url.detail: Input should be 'auto'; leave it out",
    ),
    (
        {"messages": [user(image_part("data:image/png;base64,no base64!"), text_part("a"))]},
        "messages",
        "image_url.url: not base64",
    ),
    ({"messages": [user(image_part(IMAGES[0]), text_part("x" * 16_385))]}, "messages", "more than 16384 characters"),
]


@pytest.mark.parametrize(("changes", "param", "words"), REFUSED, ids=[words[:40] for _, _, words in REFUSED])
def test_what_has_no_answer_here_is_refused_in_words(changes: dict[str, Any], param: str, words: str) -> None:
    def understood() -> None:
        asked = chat_question(json.dumps({**asking_for(), **changes}).encode(), 64)
        asked_question(asked.model, asked.text, [load_rubric(OPEN["rubric"])])

    with pytest.raises(Refusal) as found:
        understood()
    assert words in found.value.message
    error = json.loads(bytes(found.value.response("/v1/chat/completions").body))["error"]
    assert error == {
        "code": "invalid_request",
        "message": found.value.message,
        "type": "invalid_request_error",
        "param": param,
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'"x"', b'{"messages": [[]]}', b"[" * 50_000])
def test_what_is_no_request_is_refused(content: bytes) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert set(answer.json()["error"]) == {"code", "message", "type", "param"}
        answer = await client.post(CHAT, content=content, headers={"Content-Type": "text/plain"})
        assert answer.status_code == 415

    ask(test, **OPEN)


def test_an_image_that_is_rejected_is_an_error_with_its_reason_as_the_code() -> None:
    sent = {
        "unsupported_format": asking_for(b"no image"),
        "truncated": asking_for(IMAGES[0][:-30]),
        "empty": asking_for("data:image/png;base64,"),
        "forbidden": asking_for("http://127.0.0.1:9/a.png"),
        "missing_text": asking_for(text=" "),
        "too_large": asking_for(text="x" * 2001),
    }

    async def test() -> None:
        endpoint = local_endpoint(**OPEN)
        async with endpoint.client() as client:
            for reason, asked in sent.items():
                answer = await client.post(CHAT, json=asked)
                assert answer.status_code == 422
                error = answer.json()["error"]
                assert (error["code"], error["type"], error["param"]) == (reason, "invalid_request_error", "messages")
            assert place_of(await client.post(CHAT, json=asking_for()))
        assert endpoint.metrics.images == {("", reason): 1 for reason in (*sent, "scored")}
        assert endpoint.metrics.requests == {(CHAT, 422): len(sent), (CHAT, 200): 1}

    asyncio.run(test())


def test_an_image_is_fetched_where_that_is_allowed() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        there, elsewhere = (asking_for(f"{url}/{path}/a.png") for path in ("made", "elsewhere"))
        assert place_of(await client.post(CHAT, json=there)) == place_of(await client.post(CHAT, json=asking_for()))
        assert (await client.post(CHAT, json=elsewhere)).json()["error"]["code"] == "forbidden"

    with saying(always(b"HTTP/1.1 200 OK\r\n\r\n" + IMAGES[0])) as url:
        ask(test, **OPEN, uri_allow=(f"{url}/made/",))


def test_large_bodies_are_read_as_small_ones_are() -> None:
    """Images and questions of more than 4 KiB stay in the body until they are asked for."""
    image = tiny_png(7, size=256)
    question = "Is it so? " * 800
    assert len(data_uri(image)) > 2**17

    async def test(client: httpx2.AsyncClient) -> None:
        asked = asking_for(image, question)
        direct = {"images": [{"data": data_uri(image), "texts": {"question": question}}], "probs": True}
        [result] = (await client.post("/v1/assess", json=direct)).json()["results"]
        found = place_of(await client.post(CHAT, json=asked))
        assert math.exp(found["logprob"]) == pytest.approx(max(result["probs"]["yes"]), abs=2e-6)

    ask(test, **OPEN, slot_chars=10_000)


def test_a_long_question_may_be_cut_and_is_counted() -> None:
    async def test() -> None:
        endpoint = local_endpoint(**OPEN, slot_chars=8, slot_too_long="cut")
        async with endpoint.client() as client:
            cut, short = [
                (await client.post(CHAT, json=asking_for(text=text))) for text in ("Is it red now?", "Is it re")
            ]
            assert place_of(cut) == place_of(short)
            assert cut.json()["usage"] == short.json()["usage"]
        assert endpoint.metrics.texts_cut == 1

    asyncio.run(test())


def test_another_model_that_asks_otherwise_answers_its_own_questions_only() -> None:
    async def test() -> None:
        endpoint = local_endpoint(**OPEN)
        async with endpoint.client() as client:
            assert place_of(await client.post(CHAT, json=asking_for()))
            replaced(endpoint, rubric="q-align")
            refused = await client.post(CHAT, json=asking_for())
            assert refused.status_code == 422
            refused = await client.post(CHAT, json=asking_for())
            assert "'question' is none of q-align, q-align/quality" in refused.json()["error"]["message"]

    asyncio.run(test())


def test_tokens_and_limits_are_those_of_all_routes() -> None:
    async def test() -> None:
        async with asking("a-token-of-a-caller", **OPEN) as client:
            assert place_of(await client.post(CHAT, json=asking_for()))
            answer = await client.post(CHAT, json=asking_for(), headers={"Authorization": "Bearer EMPTY"})
            assert answer.status_code == 401
            assert answer.json()["error"]["message"]
        async with asking(**OPEN, max_body_bytes=1024) as client:
            assert (await client.post(CHAT, json=asking_for(bytes(2000)))).status_code == 413

    asyncio.run(test())


def test_openais_own_client_reads_the_answer_and_the_refusal() -> None:
    openai = pytest.importorskip("openai")
    with listening(**OPEN) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="EMPTY", max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["question", "question/yes"]
        found = client.chat.completions.create(**asking_for())
        assert openai.types.chat.ChatCompletion(**found.model_dump(mode="json")) == found  # which is not checked yet
        answers = {one.token: one.logprob for one in found.choices[0].logprobs.content[0].top_logprobs}
        yes = 1 / (1 + math.exp(answers["No"] - answers["Yes"]))
        assert yes == pytest.approx(direct(url, IMAGES[:1], QUESTIONS[0])[0], abs=2e-6)
        with pytest.raises(openai.UnprocessableEntityError, match="no text is written here") as refused:
            client.chat.completions.create(**asking_for() | {"max_completion_tokens": 512})
        assert (refused.value.param, refused.value.code) == ("max_completion_tokens", "invalid_request")
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="a", input="b")
        assert (missing.value.type, missing.value.code) == ("invalid_request_error", "not_found")
