"""Several rubrics behind one endpoint: each request is asked by the one that it names, and scored as by that one alone.

Tests serve/model/served.py, and serve/model/replica.py, serve/api.py and serve/settings.py as far as they go.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.load import describe, fingerprint
from iqa_core.demo.scenes import make_scene
from iqa_core.errors import CallerError
from iqa_core.images.in_memory import as_file
from iqa_core.images.preparing import prepare
from iqa_core.records import Assessment, ImageHeader, Rejection
from iqa_core.rubrics import load_rubric
from iqa_core.slots import TextLimits
from serve.decoding.groups import Probed, probe
from serve.metrics import Counts
from serve.model.asking import PreparedImage, asked
from serve.model.replica import Assessed, AssessorReplica
from serve.model.served import Served, describe_all
from serve.settings import ServeSettings, parse
from tests.corpora import tiny_png
from tests.serve.local import FAKE, UNEVEN, LocalHandle, local_endpoint
from tests.serve.protocol.test_chat import asking_for, place_of
from tests.serve.test_api import ask, b64, replaced

HERE = Path(__file__).parent.parent
PROMPTED, STYLED = str(HERE / "prompted.toml"), str(HERE / "styled.toml")
RUBRICS = ["interior-v1", PROMPTED, "q-align"]
IDS = ["interior-v1", "prompted", "q-align"]
WORTHS = {"Yes": 1, "No": 0, "bad": 1, "poor": 2, "fair": 3, "good": 4, "excellent": 5}
IMAGES = [tiny_png(i) for i in range(2)]


def ask_several(test: Any, **settings: Any) -> None:
    ask(test, **{"rubrics": RUBRICS, "fusion": None, **settings})


def settings_of(**given: Any) -> ServeSettings:
    return ServeSettings.model_validate({"assessor": FAKE, **given})


def alone(rubric: str, image: bytes, prompt: str) -> list[float]:
    """Scores by an assessor of one rubric, without any endpoint."""
    assessor = load_assessor("fake:", rubric)
    [found] = assess_images(assessor, [image], [prompt] if assessor.rubric.slots else None)
    assert isinstance(found, Assessment)
    return [round(score, 6) for score in found.scores_K.tolist()]


def test_each_request_is_asked_by_the_rubric_that_it_names() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        for rubric, id in zip([*RUBRICS, RUBRICS[0]], [*IDS, None], strict=True):
            body = {"images": [{"data": b64(image)} for image in IMAGES], "rubric": id, "prompt": "a hall"}
            answers = [
                await client.post("/v1/assess", json=body),
                await client.post(
                    "/v1/rank",
                    files=[("images", image) for image in IMAGES],
                    data={"prompt": "a hall", **({"rubric": id} if id else {})},
                ),
            ]
            for answer in answers:
                assert answer.status_code == 200, answer.text
                found = answer.json()
                assert found["rubric"] == (id or IDS[0])
                parts = describe(settings_of().assessor, rubric, settings_of().limits).fingerprint_parts
                assert found["fingerprint"] == fingerprint(parts)
                for image, result in zip(IMAGES, found["results"], strict=True):
                    assert list(result["scores"].values()) == alone(rubric, image, "a hall")
        models = (await client.get("/v1/models")).json()["models"]
        assert [model["rubric"] for model in models] == IDS
        assert [model["slots"] for model in models] == [[], ["prompt"], []]

    ask_several(test)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"rubric": "interior-v9"}, "rubric: this endpoint serves interior-v1, prompted, q-align"),
        ({"rubric": "prompted"}, "prompt: rubric prompted asks about it"),
        ({"dimensions": ["faithful"]}, "dimensions: 'faithful' is none of layout, harmony"),
        ({"rubric": "q-align", "dimensions": ["layout"]}, "dimensions: 'layout' is none of quality, aesthetics"),
    ],
)
def test_what_the_named_rubric_cannot_answer_is_refused(sent: dict[str, Any], words: str) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/assess", json={"images": [{"data": b64(IMAGES[0])}], **sent})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
        assert answer.json()["error"]["message"].startswith(words)

    ask_several(test)


def test_dialects_ask_a_rubric_by_its_path() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        flow_factory = {"prompt": ["a hall"], "image": [b64(IMAGES[1])]}
        turn = {"text": "a hall", "image_b64": b64(IMAGES[1])}
        unirl = {"requests": [{"history": [turn], "required_rewards": ["iqa"]}]}
        for rubric, id in zip(RUBRICS, IDS, strict=True):
            rewarded = (await client.post(f"/rubrics/{id}/compute", json=flow_factory)).json()
            [scored] = (await client.post(f"/rubrics/{id}/score", json=unirl)).json()["results"]
            assert list(scored["iqa"].values())[1:] == pytest.approx(alone(rubric, IMAGES[1], "a hall"), abs=1e-6)
            assert rewarded["rewards"] == [scored["iqa"]["reward"]]
            assert (await client.get(f"/rubrics/{id}/health")).status_code == 200
        assert (await client.post("/compute", json=flow_factory)).json()["fingerprint"] != rewarded["fingerprint"]
        for answer in (
            await client.post("/rubrics/other/compute", json=flow_factory),
            await client.get("/rubrics/other/rewards"),
        ):
            assert answer.status_code == 422
            assert answer.json()["error"]["message"] == f"rubric: this endpoint serves {', '.join(IDS)}"
        assert (await client.post(f"/rubrics/{IDS[0]}/flow_grpo", content=b"")).status_code == 404
        assert "/rubrics" not in (await client.get("/openapi.json")).text

    ask_several(test)


def test_a_chat_client_names_the_rubric_as_its_model() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        for model, text, rubric, place in (
            ("prompted", 'Does this picture show "a hall"?', PROMPTED, 1),
            ("q-align/aesthetics", load_rubric("q-align").questions[1].query, "q-align", 1),
        ):
            answer = await client.post("/v1/chat/completions", json=asking_for(IMAGES[1], text, model))
            found = {one["token"]: math.exp(one["logprob"]) for one in place_of(answer)["top_logprobs"]}
            score = sum(found[word] * worth for word, worth in WORTHS.items() if word in found)
            assert score == pytest.approx(alone(rubric, IMAGES[1], "a hall")[place], abs=1e-5)
        listed = [one["id"] for one in (await client.get("/v1/models")).json()["data"]]
        assert {"interior-v1", "interior-v1/layout", "prompted/faithful", "q-align/quality"} <= set(listed)
        unknown = await client.post("/v1/chat/completions", json=asking_for(IMAGES[1], "a", "other"))
        assert unknown.status_code == 422

    ask_several(test)


def test_one_rubric_has_no_paths_of_rubrics() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        assert (await client.get("/rubrics/interior-v1/health")).status_code == 404

    ask(test)


def test_images_and_rewards_are_counted_by_rubric_and_paths_by_their_form() -> None:
    async def test() -> None:
        endpoint = local_endpoint(rubrics=RUBRICS, fusion=None)
        async with endpoint.client() as client:
            for id in ("q-align", "q-align", "prompted"):
                files = [("images", IMAGES[0])]
                await client.post("/v1/assess", files=files, data={"rubric": id, "prompt": " "})
            await client.post("/rubrics/q-align/compute", json={"prompt": [""], "image": [b64(IMAGES[0])]})
        assert endpoint.metrics.images == {("q-align", "scored"): 3, ("prompted", "missing_text"): 1}
        assert {rubric: sum(found.counts) for rubric, found in endpoint.metrics.reward.items()} == {"q-align": 3}
        assert endpoint.metrics.requests["/rubrics/{rubric}/compute", 200] == 1

    asyncio.run(test())


@pytest.mark.slow
def test_images_of_two_rubrics_in_one_batch_are_scored_as_by_each_alone() -> None:
    """The demo's weights, in memory once."""
    settings = settings_of(assessor={"checkpoint": "demo", "threads": 1}, rubrics=["interior-v4", PROMPTED])
    own, prompted = (load_assessor("demo", rubric, threads=1) for rubric in settings.rubrics)
    pictures = [as_file(make_scene(9, i).pixels_HWC, compress_level=1) for i in range(6)]
    pixels = [prepare(picture, own.preparer) for picture in pictures if isinstance(picture, bytes)]

    async def test() -> tuple[Assessed, Any]:
        replica = AssessorReplica(settings, LocalHandle(Counts()))
        images = [
            PreparedImage(
                one,
                ImageHeader(112, 112, "png", 1),
                *(("interior-v4", {}) if i % 2 else ("prompted", {"prompt": f"room {i}"})),
            )
            for i, one in enumerate(pixels)
            if not isinstance(one, Rejection)
        ]
        served = Served.of(describe_all(settings), settings)
        answer = await replica.assess(images, [1] * 6, ["c"] * 6, served.preparer, served.fingerprints, False)
        assert isinstance(answer, Assessed)
        return answer, replica._metrics.batch_images

    answer, batches = asyncio.run(test())
    assert (sum(batches.counts), batches.total) == (1, 6), "one batch"
    assert answer.other is None
    for i, (one, found) in enumerate(zip(pixels, answer.results, strict=True)):
        assert not isinstance(one, Rejection)
        [wanted] = own.assess([one]) if i % 2 else prompted.assess([one], [{"prompt": f"room {i}"}])
        assert isinstance(found, Assessment)
        assert isinstance(wanted, Assessment)
        np.testing.assert_allclose(found.scores_K, wanted.scores_K, atol=1e-5)


def test_an_image_costs_what_its_own_rubric_asks() -> None:
    """A decoder counts tokens for the first rubric; what is asked counts."""
    settings = settings_of(assessor={"checkpoint": "demo"}, rubrics=["interior-v4", PROMPTED])
    first, second = describe_all(settings)
    probed = probe(IMAGES[0], first.preparer)
    assert isinstance(probed, Probed)
    for spec, texts in ((first, {}), (second, {"prompt": "two dogs in a hall"})):
        found = asked(probed, texts, spec, TextLimits())
        wanted = spec.preparer.shape(probed.header).tokens + spec.preparer.text_tokens(texts)
        assert isinstance(found, Probed)
        assert found.tokens == wanted
    assert asked(probed, {}, first, TextLimits()) == probed
    assert first.preparer.shape(probed.header).tokens != second.preparer.shape(probed.header).tokens


@pytest.mark.parametrize(
    ("order", "fusion"),
    [
        (["q-align", "interior-v2"], None),
        (["interior-v1", "q-align"], None),
        (["q-align", "interior-v2"], {"interior-v1": UNEVEN}),
    ],
)
def test_while_another_application_takes_over_the_rubrics_that_both_have_go_on(
    order: Sequence[str], fusion: Mapping[str, Path] | None
) -> None:
    """Whichever is the first then. One that is not there may be in a moment: the replica asked may be an old one."""

    async def test() -> None:
        endpoint = local_endpoint(rubrics=RUBRICS, fusion=fusion)
        async with endpoint.client() as client:

            async def said(id: str) -> tuple[int, Any]:
                answer = await client.post(
                    "/v1/assess", files=[("images", IMAGES[0])], data={"rubric": id, "prompt": "a hall"}
                )
                return answer.status_code, answer.json()

            before = [await said(id) for id in IDS]
            assert [status for status, _ in before] == [200] * 3
            here = endpoint.replicas.target
            replaced(endpoint, assessor=FAKE, rubrics=order)
            assert await said("q-align") == before[2]
            status, refused = await said("prompted")
            assert (status, refused["error"]["code"]) == (503, "unavailable")
            assert (await said("other"))[0] == 422
            models = (await client.get("/v1/models")).json()["models"]
            assert {model["rubric"] for model in models} == {*order, *IDS}, "all that may be asked"
            endpoint.replicas.target = here
            assert [await said(id) for id in reversed(IDS)] == before[::-1]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rubrics": ["q-align", "interior-v1", "q-align"]}, "rubrics: 2 of them have the id q-align"),
        ({"rubrics": ["q-align", "interior-v0"]}, "no rubric 'interior-v0'"),
        (
            {"rubrics": ["q-align", "perception-v1"]},
            "one model: perception-v1 is a written rubric, .*; serve it by itself",
        ),
        (
            {"rubrics": RUBRICS, "fusion": str(UNEVEN)},
            r"fusion: say whose weights .*uneven.toml are, as in {interior-v1",
        ),
        ({"rubrics": RUBRICS, "fusion": {"interior-v2": UNEVEN}}, "fusion: interior-v2 is none of the rubrics, inter"),
        ({"rubrics": RUBRICS, "fusion": {"q-align": UNEVEN}}, "layout"),
    ],
)
def test_rubrics_and_weights_that_do_not_fit_stop_the_start(given: dict[str, Any], words: str) -> None:
    settings = settings_of(**given)
    with pytest.raises(CallerError, match=words):
        Served.of(describe_all(settings), settings)


def test_settings_of_several_rubrics() -> None:
    with pytest.raises(CallerError, match="give either rubric or rubrics"):
        parse({"rubric": "q-align", "rubrics": ["interior-v1"]})
    shown = parse({"rubrics": " interior-v1, q-align,", "fusion.interior-v1": str(UNEVEN)})
    assert shown.rubrics == ("interior-v1", "q-align")
    assert shown.fusion == {"interior-v1": UNEVEN}


@pytest.mark.parametrize("fusion", [UNEVEN, {"interior-v1": UNEVEN}])
def test_weights_are_those_of_their_rubric(fusion: Path | Mapping[str, Path]) -> None:
    ids = ["interior-v1", "q-align"] if isinstance(fusion, dict) else ["interior-v1"]
    settings = settings_of(rubrics=ids, fusion=fusion)
    served = Served.of(describe_all(settings), settings)
    assert served.model(None).weights.weights == (0.1, 0.2, 0.3, 0.4)
    assert {model.weights.weights for model in served.models[1:]} <= {(0.5, 0.5)}


def test_slots_that_take_more_than_is_read_are_refused_before_the_start() -> None:
    settings = parse({"assessor": {"checkpoint": "fake:"}})
    spec = describe(settings.assessor, settings.rubric, settings.limits)
    spec = replace(spec, rubric=spec.rubric.model_copy(update={"slots": ("prompt", "style")}))
    assert Served.of([spec], settings.model_copy(update={"slot_chars": 8192})).models[0].spec == spec
    with pytest.raises(CallerError, match=r"slot_chars: 8,193 for each of 2 slots .* give 8,192 or less"):
        Served.of([spec], settings.model_copy(update={"slot_chars": 8193}))
