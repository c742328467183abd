"""Prompts and other texts of a request: each reaches its image, whatever happens on the way, or is refused in words.

Tests serve/model/asking.py.
"""

from __future__ import annotations

import asyncio
import base64
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ray.exceptions import RayActorError

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.load import describe
from iqa_core.images.preparing import prepare
from iqa_core.records import Assessment, ImageLimits, Rejection
from iqa_core.slots import TextLimits, TooLong
from serve.decoding.groups import probe
from serve.model.asking import asked, num_cut
from tests.corpora import tiny_png
from tests.serve.local import LocalEndpoint, local_endpoint
from tests.serve.test_api import ask, replaced

HERE = Path(__file__).parent.parent
PROMPTED, STYLED = str(HERE / "prompted.toml"), str(HERE / "styled.toml")
IMAGES = [tiny_png(i) for i in range(3)]
PROMPTS = ["a hall", "two dogs and a cat", "Köln 🏛"]
ASSESSOR = load_assessor("fake:", PROMPTED)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def faithful(image: bytes, prompt: str) -> float:
    """What the assessor says of an image with a prompt, without any endpoint."""
    pixels = prepare(image, ASSESSOR.preparer)
    assert not isinstance(pixels, Rejection)
    [found] = ASSESSOR.assess([pixels], [{"prompt": prompt}])
    assert isinstance(found, Assessment)
    return round(float(found.scores_K[1]), 6)


def said(results: Sequence[dict[str, Any]]) -> list[Any]:
    """Of each image, its score or why it has none."""
    return [one["scores"]["faithful"] if one["status"] == "scored" else one["reason"] for one in results]


def ask_prompted(test: Any, rubric: str = PROMPTED, **settings: Any) -> None:
    ask(test, rubric=rubric, fusion=None, **settings)


def test_prompts_are_those_of_their_images_however_they_are_sent() -> None:
    own = [faithful(image, prompt) for image, prompt in zip(IMAGES, PROMPTS, strict=True)]
    of_all = [faithful(image, PROMPTS[0]) for image in IMAGES]
    data = [{"data": b64(image)} for image in IMAGES]
    with_texts = [{**one, "texts": {"prompt": text}} for one, text in zip(data, PROMPTS, strict=True)]
    files = [("images", image) for image in IMAGES]

    async def test(client: httpx2.AsyncClient) -> None:
        for sent, wanted in (
            ({"json": {"images": data, "prompt": PROMPTS[0]}}, of_all),
            ({"json": {"images": data, "prompts": PROMPTS}}, own),
            ({"json": {"images": with_texts}}, own),
            ({"json": {"images": [*with_texts[:2], data[2]], "prompt": PROMPTS[2]}}, own),
            ({"files": files, "data": {"prompt": PROMPTS[0]}}, of_all),
            ({"files": files, "data": {"prompts": PROMPTS}}, own),
        ):
            answer = await client.post("/v1/assess", **sent)
            assert answer.status_code == 200, answer.text
            assert said(answer.json()["results"]) == wanted

    assert len({*own, *of_all}) > 3
    ask_prompted(test)


@pytest.mark.parametrize(
    ("rubric", "sent", "words"),
    [
        (PROMPTED, {}, "prompt: rubric prompted asks about it; send prompt, or prompts with one per image"),
        (PROMPTED, {"prompt": None}, "send prompt, or prompts"),
        (PROMPTED, {"prompts": []}, "0 prompts for 1 images"),
        (PROMPTED, {"prompts": ["a", "b"]}, "2 prompts for 1 images"),
        (PROMPTED, {"prompt": "a", "prompts": ["a"]}, "give either prompt or prompts"),
        (PROMPTED, {"prompts": "a"}, "prompts: Input should be a valid list"),
        (PROMPTED, {"prompts": [7]}, "prompts.0: Input should be a valid string"),
        (PROMPTED, {"prompts": ["x" * 16_385]}, "prompts.0: String should have at most 16384"),
        (PROMPTED, {"texts": {"prompt": "a", "stile": "b"}}, "'stile' is no slot of rubric prompted, which has prompt"),
        (PROMPTED, {"texts": {"prompt": ["a"]}}, "images.0.texts.prompt: Input should be a valid string"),
        (STYLED, {"prompt": "a"}, 'style: rubric styled asks about it; send "texts": {"style": …} per image'),
        (STYLED, {"texts": {"style": "x" * 9_000, "prompt": "y" * 9_000}}, "together they have more than 16384"),
        ("interior-v1", {"texts": {"style": "b"}}, "'style' is no slot of rubric interior-v1, which has none"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_request_without_what_the_rubric_asks_about_is_refused(rubric: str, sent: dict[str, Any], words: str) -> None:
    image = {"data": b64(IMAGES[0]), **({"texts": sent["texts"]} if "texts" in sent else {})}
    body = {"images": [image], **{name: value for name, value in sent.items() if name != "texts"}}

    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/assess", json=body)
        assert answer.status_code == 422
        assert words in answer.json()["error"]["message"]

    ask_prompted(test, rubric=rubric)


def test_a_text_that_is_missing_or_too_long_costs_its_own_image_only() -> None:
    long = "a hall " * 10
    prompts = [PROMPTS[0], None, " \n", long, PROMPTS[0]]
    body = {"images": [{"data": b64(IMAGES[0])}] * 5, "prompts": prompts}
    good = faithful(IMAGES[0], PROMPTS[0])

    async def test(client: httpx2.AsyncClient) -> None:
        results = (await client.post("/v1/assess", json=body)).json()["results"]
        assert said(results) == [good, "missing_text", "missing_text", "too_large", good]
        assert results[1]["detail"] == "there is no text for {prompt}"
        assert {one["width"] for one in results} == {results[0]["width"]}
        form = await client.post("/v1/assess", files=[("images", IMAGES[0])] * 2, data={"prompts": ["a hall", ""]})
        assert said(form.json()["results"]) == [good, "missing_text"]

    ask_prompted(test, slot_chars=20)


def test_a_text_may_be_cut_and_is_counted() -> None:
    async def test() -> None:
        endpoint = local_endpoint(rubric=PROMPTED, fusion=None, slot_chars=6, slot_too_long="cut")
        async with endpoint.client() as client:
            body = {"images": [{"data": b64(IMAGES[0])}] * 2, "prompts": ["a hall", "a hall with a sofa"]}
            results = (await client.post("/v1/assess", json=body)).json()["results"]
        assert said(results) == [faithful(IMAGES[0], "a hall")] * 2
        assert endpoint.metrics.texts_cut == 1

    asyncio.run(test())


def test_a_rubric_without_the_slot_takes_prompts_and_leaves_them_aside() -> None:
    image = {"data": b64(IMAGES[0])}

    async def test(client: httpx2.AsyncClient) -> None:
        plain = (await client.post("/v1/assess", json={"images": [image]})).json()
        for sent in ({"prompt": "a hall"}, {"prompts": ["a hall"]}, {"prompts": [None]}):
            answer = (await client.post("/v1/assess", json={"images": [image], **sent})).json()
            assert answer.pop("prompt", None) == sent.get("prompt")
            assert answer == plain
        texts = {"texts": {"prompt": "a hall"}}
        assert (await client.post("/v1/assess", json={"images": [{**image, **texts}]})).json() == plain
        long = {"prompt": ["x" * 100_000], "image": [b64(IMAGES[0])]}
        assert (await client.post("/compute", json=long)).json()["rewards"] == [plain["results"][0]["reward"]]

    ask(test)


def test_dialects_ask_with_their_prompts() -> None:
    pictures = list(map(b64, IMAGES))
    turns = [{"text": text, "image_b64": one} for text, one in zip(PROMPTS, pictures, strict=True)]
    unirl = {"requests": [{"history": [turns[0], turn], "required_rewards": ["iqa"]} for turn in turns]}
    flow_factory = {"prompt": PROMPTS, "image": pictures}
    wanted = [faithful(image, prompt) for image, prompt in zip(IMAGES, PROMPTS, strict=True)]

    async def test(client: httpx2.AsyncClient) -> None:
        direct = await client.post(
            "/v1/assess", json={"images": [{"data": one} for one in pictures], "prompts": PROMPTS}
        )
        rewards = [one["reward"] for one in direct.json()["results"]]
        scored = (await client.post("/score", json=unirl)).json()["results"]
        assert [one["iqa"]["reward"] for one in scored] == rewards
        assert [one["iqa"]["faithful"] for one in scored] == pytest.approx(wanted, abs=1e-6)
        assert (await client.post("/compute", json=flow_factory)).json()["rewards"] == rewards
        pickled = pickle.dumps({"images": IMAGES, "prompts": PROMPTS})
        assert pickle.loads((await client.post("/flow_grpo", content=pickled)).content)["scores"] == rewards
        unsaid = {"prompt": ["a hall", " ", "x" * 100_000], "image": pictures}
        answer = (await client.post("/compute", json=unsaid)).json()
        assert answer["reasons"] == [None, "missing_text", "too_large"]

    ask_prompted(test, dialects=["flow_grpo"])


class Dying:
    """A replica that dies of its first calls, as Ray tells its callers; then it is the one behind it."""

    def __init__(self, endpoint: LocalEndpoint, num_deaths: int) -> None:
        self._replica = endpoint.replicas.target
        self.left = num_deaths

    async def assess(self, *args: Any) -> Any:
        if self.left:
            self.left -= 1
            raise RayActorError
        return await self._replica.assess(*args)


def test_prompts_stay_with_their_images_among_many_callers_and_when_a_replica_dies() -> None:
    """All have the same picture, so that a prompt that goes astray is another's score."""
    prompts = [f"prompt number {i}" for i in range(48)]
    wanted = {prompt: faithful(IMAGES[0], prompt) for prompt in prompts}
    assert len(set(wanted.values())) > 40
    image = {"data": b64(IMAGES[0])}

    async def test() -> None:
        endpoint = local_endpoint(
            rubric=PROMPTED, fusion=None, assessor={"checkpoint": "fake:?sleep_s=0.01", "batch_tokens": 4096}
        )
        endpoint.replicas.target = dying = Dying(endpoint, num_deaths=2)  # of three, one image could meet two alone
        async with endpoint.client() as client:

            async def call(begin: int) -> None:
                mine = prompts[begin : begin + 4]
                answer = await client.post("/v1/assess", json={"images": [image] * len(mine), "prompts": mine})
                assert said(answer.json()["results"]) == [wanted[prompt] for prompt in mine]

            await asyncio.gather(*(call(begin) for begin in range(0, len(prompts), 4)))
        assert dying.left == 0
        assert endpoint.metrics.retries["replica died"] > 0

    asyncio.run(test())


def test_texts_are_chosen_anew_for_a_model_with_other_slots() -> None:
    sent = {"images": [{"data": b64(IMAGES[0]), "texts": {"style": "Vermeer"}}], "prompt": "a hall"}

    async def test() -> None:
        endpoint = local_endpoint(rubric=STYLED, fusion=None)
        async with endpoint.client() as client:
            before = (await client.post("/v1/assess", json=sent)).json()
            replaced(endpoint, rubric=PROMPTED)
            refused = await client.post("/v1/assess", json=sent)
            assert "'style' is no slot of rubric prompted" in refused.json()["error"]["message"]
            plain = {"images": [{"data": b64(IMAGES[0])}], "prompt": "a hall"}
            after = (await client.post("/v1/assess", json=plain)).json()
            assert said(after["results"]) == [faithful(IMAGES[0], "a hall")]
            replaced(endpoint, rubric=STYLED)
            assert (await client.post("/v1/assess", json=plain)).status_code == 422
            assert (await client.post("/v1/assess", json=sent)).json() == before

    asyncio.run(test())


def test_a_text_costs_tokens_beside_its_image() -> None:
    spec = describe(AssessorConfig(checkpoint="fake:"), PROMPTED, ImageLimits())
    image = probe(IMAGES[0], spec.preparer)
    assert not isinstance(image, Rejection)
    short, long = (asked(image, {"prompt": "a hall" * times}, spec, TextLimits()) for times in (1, 100))
    assert not isinstance(short, Rejection)
    assert not isinstance(long, Rejection)
    assert image.tokens <= short.tokens < long.tokens
    assert long.texts == {"prompt": "a hall" * 100}


def test_only_texts_of_the_rubrics_slots_are_cut() -> None:
    limits = TextLimits(3, TooLong.CUT)
    assert num_cut({"prompt": "long", "style": "long too", "seed": None}, ("prompt", "seed"), limits) == 1
