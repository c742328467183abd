"""What is asked and what is answered, through the real application and a replica in the same process.

Tests serve/model/dispatch.py, serve/model/replica.py, serve/protocol/answers.py and serve/metrics.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.records import Assessment
from tests.bad_images import bad_images, png_claiming
from tests.clock import eventually
from tests.corpora import tiny_png
from tests.serve.local import FAKE, UNEVEN, LocalEndpoint, asking, listening, local_endpoint
from tests.serve.sites import always, saying

TOKEN = "correct-horse-battery"
DIMENSIONS = ["layout", "harmony", "lighting", "distortion"]


def ask(test: Callable[[httpx2.AsyncClient], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with asking(**settings) as client:
            await test(client)

    asyncio.run(run())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def expected(data: bytes) -> Assessment:
    [found] = assess_images(load_assessor("fake:"), [data])
    assert isinstance(found, Assessment)
    return found


def fused(assessment: Assessment) -> float:
    return float(assessment.scores_K @ [0.1, 0.2, 0.3, 0.4])


def test_a_picture_that_takes_more_memory_than_all_callers_have_is_too_large() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/assess", files=[("images", tiny_png(3))])
        [found] = answer.json()["results"]
        assert (found["status"], found["reason"], found["width"]) == ("rejected", "too_large", 27)
        assert found["detail"].endswith("bytes of memory; this endpoint has 4096")

    ask(test, max_decode_bytes=4096)


def test_images_come_as_base64_as_data_uri_and_as_multipart() -> None:
    image = tiny_png(3)
    wanted = expected(image)

    async def test(client: httpx2.AsyncClient) -> None:
        as_json = {"images": [{"data": b64(image)}, {"data": f"data:image/png;base64,{b64(image)}"}], "probs": True}
        wrapped = {"images": [{"data": base64.encodebytes(image).decode()}]}
        answers = [
            await client.post("/v1/assess", json=as_json),
            await client.post("/v1/assess", json=wrapped),
            await client.post("/v1/assess", files=[("images", image), ("images", image)], data={"probs": "true"}),
        ]
        for answer in answers:
            assert answer.status_code == 200, answer.text
            body = answer.json()
            assert set(body) == {"fingerprint", "rubric", "results"}
            for result in body["results"]:
                assert result["status"] == "scored"
                assert list(result["scores"]) == DIMENSIONS
                np.testing.assert_allclose(list(result["scores"].values()), wanted.scores_K, atol=1e-5)
                np.testing.assert_allclose(list(result["std"].values()), wanted.stds_K, atol=1e-5)
                np.testing.assert_allclose(result["reward"], fused(wanted), atol=1e-5)
                if "probs" in result:
                    np.testing.assert_allclose(list(result["probs"].values()), list(wanted.probs_K), atol=1e-5)
        assert ["probs" in answer.json()["results"][0] for answer in answers] == [True, False, True]

    ask(test)


def test_dimensions_are_shown_as_asked_and_the_reward_stays_that_of_all() -> None:
    image = tiny_png(3)

    async def test(client: httpx2.AsyncClient) -> None:
        asked = {"images": [{"data": b64(image)}], "dimensions": ["lighting"], "request_id": "r7", "prompt": "a hall"}
        body = (await client.post("/v1/assess", json=asked)).json()
        assert list(body["results"][0]["scores"]) == list(body["results"][0]["std"]) == ["lighting"]
        np.testing.assert_allclose(body["results"][0]["reward"], fused(expected(image)), atol=1e-5)
        assert (body["request_id"], body["prompt"]) == ("r7", "a hall")

    ask(test)


def test_every_bad_image_gets_its_reason_in_its_place() -> None:
    images = [*bad_images()]

    async def test(client: httpx2.AsyncClient) -> None:
        for begin in range(0, len(images), 32):
            part = images[begin : begin + 32]
            answer = await client.post("/v1/assess", files=[("images", image.data) for image in part])
            assert answer.status_code == 200, answer.text
            for image, result in zip(part, answer.json()["results"], strict=True):
                assert result.get("reason") == image.reason, image.name
                assert ("reward" in result) == (image.reason is None)

    ask(test)


def test_a_rejected_image_harms_none_beside_it_and_an_assessor_that_fails_on_one_scores_the_others() -> None:
    good, poison = tiny_png(1), tiny_png(2, corner=(255, 0, 255))

    async def test(client: httpx2.AsyncClient) -> None:
        files = [("images", data) for data in (good, b"", poison, png_claiming(60_000, 60_000), good)]
        results = (await client.post("/v1/assess", files=files)).json()["results"]
        reasons = [result.get("reason") for result in results]
        assert reasons == [None, "empty", "assessor_failed", "too_large", None]
        assert results[0] == results[4]

    ask(test, assessor={"checkpoint": "fake:?raise_on=ff00ff"})


def test_ranking_is_by_reward_and_leaves_out_what_has_none() -> None:
    images = [tiny_png(1), b"no image", tiny_png(2), tiny_png(3)]

    async def test(client: httpx2.AsyncClient) -> None:
        body = (await client.post("/v1/rank", files=[("images", data) for data in images])).json()
        assert body["rewards"][1] is None
        assert sorted(body["order"]) == [0, 2, 3]
        assert len({*body["rewards"]}) == 4
        ranked = [body["rewards"][i] for i in body["order"]]
        assert ranked == sorted(ranked, reverse=True)
        assert body["best"] == body["order"][0]
        nothing = (await client.post("/v1/rank", files=[("images", b"no image")])).json()
        assert (nothing["order"], nothing["best"], nothing["rewards"]) == ([], None, [None])

    ask(test)


def test_models_says_what_the_numbers_mean() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        [model] = (await client.get("/v1/models")).json()["models"]
        assert [one["name"] for one in model["dimensions"]] == DIMENSIONS
        assert model["meant_for"] == {"rubric": "Interior rooms, generated or photographed."}
        assert all((one["min"], one["max"], one["higher_is"]) == (1, 5, "better") for one in model["dimensions"])
        answer = await client.post("/v1/assess", files=[("images", tiny_png(1))])
        assert answer.json()["fingerprint"] == model["fingerprint"]
        assert answer.json()["rubric"] == model["rubric"]

    ask(test)


def test_models_and_answers_say_of_each_dimension_where_its_scores_lie() -> None:
    asked = {"images": [{"data": b64(tiny_png(1))}], "prompt": "a hall", "probs": True}

    async def test(client: httpx2.AsyncClient) -> None:
        [model] = (await client.get("/v1/models")).json()["models"]
        assert model["slots"] == ["prompt"]
        assert model["levels"] == ["bad", "poor", "fair", "good", "excellent"]
        quality, faithful, faults, counting, indoors = model["dimensions"]
        five = {"min": 1, "max": 5, "higher_is": "better", "std_max": 2, "weight": 1 / 6}
        assert quality == {"name": "quality", **five}
        yes = {**five, "min": 0, "max": 1, "std_max": 0.5, "answers": ["No", "Yes"], "worths": [0, 1]}
        assert faithful == {"name": "faithful", **yes}
        assert (faults["min"], faults["max"], faults["higher_is"], faults["std_max"]) == (0, 10, "worse", 5)
        assert (faults["answers"], faults["worths"]) == (["many", "few", "none"], [10, 3, 0])
        assert (counting["statements"], counting["weight"]) == (["two_dogs", "one_cat"], 2 / 6)
        assert indoors["answers"] == ["no", "yes"]
        answer = (await client.post("/v1/assess", json=asked)).json()
        assert list(answer["scales"]) == ["faithful", "faults", "counting", "indoors"]
        for one in (faithful, faults, indoors):
            scale = answer["scales"][one["name"]]
            assert {scale["worst"], scale["best"]} == {one["min"], one["max"]}
            assert (scale["answers"], scale["worths"]) == (one["answers"], one["worths"])
        [result] = answer["results"]
        assert list(map(len, result["probs"].values())) == [5, 2, 3, 2]
        assert result["scores"]["counting"] == pytest.approx(sum(result["yes"]["counting"]) / 2, abs=1e-5)
        assert result["scores"]["faults"] == pytest.approx(
            sum(p * w for p, w in zip(result["probs"]["faults"], faults["worths"], strict=True)), abs=1e-4
        )
        found = result["scores"]
        rated = [found["quality"], 1 + 4 * found["faithful"], 5 - 4 * found["faults"] / 10]
        rated += [1 + 4 * found["counting"]] * 2 + [1 + 4 * found["indoors"]]
        assert result["reward"] == pytest.approx(sum(rated) / 6, abs=1e-5)
        shown = (await client.post("/v1/assess", json={**asked, "dimensions": ["quality"]})).json()
        assert "scales" not in shown
        assert list(shown["results"][0]["probs"]) == ["quality"]
        assert "yes" not in shown["results"][0]

    ask(test, rubric=str(UNEVEN.with_name("prompted.toml")), fusion=None)


IMAGE = {"data": b64(tiny_png(1))}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": [{}]}, "give either data or uri"),
        ({"images": [{"data": "", "uri": ""}]}, "give either data or uri"),
        ({"images": [{"data": "no base64!"}]}, "images.0.data: not base64"),
        ({"images": [IMAGE, {"data": "data:image/png,xyz"}]}, "images.1.data: a data URI must have ;base64"),
        ({"images": [{"data": "äöü="}]}, "not base64"),
        (
            {"images": [IMAGE, {"uri": "data:image/png;base64,AAAA"}]},
            "images.1: Value error, a data URI goes into data",
        ),
        ({"images": [IMAGE] * 5}, "5 images are more than the 4"),
        ({"images": [IMAGE], "rubric": "q-align"}, "this endpoint serves interior-v1"),
        ({"images": [IMAGE], "dimensions": ["beauty"]}, "'beauty' is none of layout"),
        ({"images": [IMAGE], "dimensions": []}, "dimensions"),
        ({"images": [IMAGE], "probs": "perhaps"}, "probs"),
        ({"images": [IMAGE], "model": "x"}, "model: Extra inputs"),
        ({"images": [IMAGE], "prompt": "x" * 20_000}, "prompt"),
        ([], "body"),
        ("x", "body"),
    ],
)
def test_a_question_that_is_wrong_is_refused_and_says_why(body: Any, said: str) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/assess", json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["code"] == "invalid_request"
        assert said in answer.json()["error"]["message"]

    ask(test, max_images=4)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b'{"images": [{"data": "\xff"}]}', "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b'{"images":' + b"[" * 50_000, "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"\x80\x04\x95", "application/octet-stream", 415),
        (b"x", "multipart/form-data", 422),
        (b"x", "multipart/form-data; boundary=", 422),
        (b"x", "multipart/form-data; boundary=b", 422),
        (b"--b\r\n", "multipart/form-data; boundary=b", 422),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 422),
        (b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", "multipart/form-data; boundary=b", 422),
        (b"--b\r\n: \r\n\r\nz\r\n--b--\r\n", "multipart/form-data; boundary=b", 422),
        (
            b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\ncut',
            "multipart/form-data; boundary=b",
            422,
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="pictures"\r\n\r\nz\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="rubric"\r\n\r\n\xff\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
        ),
        (b"x", "multipart/form-data; boundary=" + "b" * 10_000, 422),
    ],
)
def test_a_malformed_body_is_refused(content: bytes, kind: str, status: int) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/assess", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"code", "message"}

    ask(test)


def test_a_part_may_be_in_base64_where_it_says_so() -> None:
    def content(coding: str, image: bytes) -> bytes:
        head = f'--b\r\nContent-Disposition: form-data; name="images"\r\nContent-Transfer-Encoding: {coding}\r\n\r\n'
        return head.encode() + image + b"\r\n--b--\r\n"

    async def test(client: httpx2.AsyncClient) -> None:
        image, kind = tiny_png(1), {"Content-Type": "multipart/form-data; boundary=b"}
        for sent in (content("BASE64", base64.encodebytes(image)), content("binary", image)):
            answer = await client.post("/v1/assess", content=sent, headers=kind)
            assert answer.json()["results"][0]["status"] == "scored", answer.text
        for sent, said in (
            (content("base64", b"!"), "images.0: not base64"),
            (content("quoted-printable", image), "images.0: send it as it is"),
        ):
            answer = await client.post("/v1/assess", content=sent, headers=kind)
            assert answer.status_code == 422
            assert said in answer.json()["error"]["message"]

    ask(test)


def test_ten_thousand_tiny_images_are_refused_quickly() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        as_json = await client.post("/v1/assess", json={"images": [{"data": "AAAA"}] * 10_000})
        parts = b"".join(b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n' for _ in range(10_000))
        form = await client.post(
            "/v1/assess", content=parts + b"--b--\r\n", headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert (as_json.status_code, form.status_code) == (422, 422)

    ask(test)


def test_uris_are_not_fetched_unless_allowed() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        uris = ["file:///etc/passwd", "http://169.254.169.254/latest/", "http://127.0.0.1:9/", "s3://bucket/a.png"]
        answer = await client.post("/v1/assess", json={"images": [{"uri": uri} for uri in uris]})
        assert answer.status_code == 200
        assert [result["reason"] for result in answer.json()["results"]] == ["forbidden"] * 4

    ask(test)


def test_an_image_that_is_fetched_scores_like_one_that_is_sent() -> None:
    """Fetched bytes and those of the body are bounded together."""
    image = tiny_png(3)
    room = 1024 + 3 * len(image)

    with saying(always(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(image) + image)) as url:

        async def test(client: httpx2.AsyncClient) -> None:
            images: list[Any] = [{"data": b64(image)}, {"uri": f"{url}/made/a.png"}, {"uri": f"{url}/other/a.png"}]
            sent, found, not_allowed = (await client.post("/v1/assess", json={"images": images})).json()["results"]
            assert found == sent
            assert not_allowed["reason"] == "forbidden"
            filled = {"prompt": "x" * (room - len(image)), "images": images[1:]}
            [found, _] = (await client.post("/v1/assess", json=filled)).json()["results"]
            assert found["reason"] == "too_large"

        ask(test, uri_allow=(f"{url}/made/",), max_body_bytes=room)


class Hanging:
    """What a server does that answers nothing, and what it has seen."""

    def __init__(self) -> None:
        self.is_asked, self.is_left = threading.Event(), threading.Event()

    def __call__(self, connection: socket.socket, head: bytes) -> None:
        self.is_asked.set()
        connection.recv(1)
        self.is_left.set()


@pytest.fixture
def hanging() -> Iterator[tuple[str, Hanging]]:
    site = Hanging()
    with saying(site) as url:
        yield url, site


def test_fetches_end_when_their_caller_hangs_up(hanging: tuple[str, Hanging]) -> None:
    url, site = hanging
    body = json.dumps({"images": [{"uri": f"{url}/made/a.png"}]})
    with listening(uri_allow=(f"{url}/made/",), uri_timeout_s=120) as endpoint:
        place = urlsplit(endpoint)
        head = f"POST /v1/assess HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((place.hostname or "", place.port or 0)) as caller:
            caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            assert site.is_asked.wait(60)
        assert site.is_left.wait(60)


def test_fetches_end_with_the_time_of_their_request(hanging: tuple[str, Hanging]) -> None:
    url, site = hanging

    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/assess", json={"images": [{"uri": f"{url}/made/a.png"}]})
        assert answer.status_code == 503

    for timeout_s in (0.2, 1, 5, 25):
        ask(test, uri_allow=(f"{url}/made/",), uri_timeout_s=120, request_timeout_s=timeout_s)
        if site.is_asked.is_set():  # a busy machine may need longer to get there
            break
    assert site.is_left.wait(60)


def test_unknown_paths_and_methods_are_refused_in_the_same_form() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("GET", "/v1/assess", 405),
            ("POST", "/v1/models", 405),
            ("DELETE", "/", 405),
            ("GET", "/../../etc/passwd", 404),
            ("GET", "/docs", 404),
            ("GET", "/%2e%2e/serve/settings.py", 404),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == status, path
            openais = {"type", "param"} if path == "/v1/models" else set()
            assert set(answer.json()["error"]) == {"code", "message", *openais}

    ask(test)


@pytest.mark.parametrize(
    ("path", "method", "headers", "status", "is_openais"),
    [
        ("/v1/chat/completions", "POST", {}, 401, True),
        ("/v1/chat/completions", "POST", {"Content-Length": "1, 2"}, 400, True),
        ("/v1/chat/completions", "POST", {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": "br"}, 415, True),
        ("/v1/chat/completions", "GET", {"Authorization": f"Bearer {TOKEN}"}, 405, True),
        ("/v1/embeddings", "POST", {"Authorization": f"Bearer {TOKEN}"}, 404, True),
        ("/v1/models", "GET", {}, 401, True),
        ("/v1/assess", "POST", {}, 401, False),
        ("/v1/describe", "GET", {"Authorization": f"Bearer {TOKEN}"}, 405, False),
        ("/score", "POST", {}, 401, False),
    ],
)
def test_whoever_refuses_openais_clients_speaks_their_form(
    path: str, method: str, headers: dict[str, str], status: int, is_openais: bool
) -> None:
    async def run() -> None:
        async with local_endpoint(TOKEN).client() as client:
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == status
            error = answer.json()["error"]
            assert ("type" in error, "param" in error) == (is_openais, is_openais)
            assert error.get("type", "invalid_request_error") == "invalid_request_error"

    asyncio.run(run())


def test_metrics_count_requests_images_reasons_and_batches() -> None:
    async def test() -> None:
        endpoint = local_endpoint()
        async with endpoint.client() as client, asyncio.timeout(60):
            await client.post("/v1/assess", files=[("images", tiny_png(1)), ("images", b"")])
            await client.get("/secret-looking-path")
            endpoint.metrics.turned_away["places"] += 1
            await endpoint.counts.target.add("ingress", endpoint.metrics.taken(), {"open_requests": 3})
            lines: dict[str, str] = {}
            while lines.get("iqa_batch_images_count") != "1.0":  # the replica hands its counts over once a second
                page = (await client.get("/metrics")).text
                lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
                await asyncio.sleep(0.05)
        assert lines['iqa_requests_total{path="/v1/assess",status="200"}'] == "1.0"
        assert lines['iqa_requests_total{path="other",status="404"}'] == "1.0"
        assert lines['iqa_images_total{outcome="scored"}'] == "1.0"
        assert lines['iqa_images_total{outcome="empty"}'] == "1.0"
        assert lines['iqa_turned_away_total{why="places"}'] == "1.0"
        assert lines["iqa_batch_images_count"] == "1.0"
        assert lines["iqa_batch_images_sum"] == "1.0"
        assert lines["iqa_reward_count"] == lines['iqa_reward_bucket{le="5.0"}'] == "1.0"
        assert lines["iqa_open_requests"] == "3.0"
        assert lines["iqa_waiting_images"] == "0.0"
        assert lines["iqa_request_seconds_count"] == "2.0"

    asyncio.run(test())


@pytest.mark.parametrize("error", [ConnectionError, asyncio.CancelledError])
def test_readyz_says_when_no_assessor_answers(error: type[BaseException]) -> None:
    class Gone:
        async def versions(self) -> None:
            raise error

    async def test() -> None:
        endpoint = local_endpoint()
        async with endpoint.client() as client:
            assert (await client.get("/readyz")).json()["status"] == "ready"
            endpoint.replicas.target = Gone()
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert (await client.get("/healthz")).status_code == 200

    asyncio.run(test())


def test_looks_that_pile_up_cost_one_look_and_are_bounded_beside_all_else() -> None:
    """An assessor or counts that hang are asked once, and whoever asks for scores has all the places."""

    class Hanging:
        def __init__(self) -> None:
            self.looks = 0

        async def versions(self) -> dict[str, str]:
            self.looks += 1
            await asyncio.Event().wait()
            raise AssertionError

        page = versions

    async def test() -> None:
        hanging = Hanging()
        endpoint = local_endpoint(max_requests=40)
        assess, endpoint.replicas.target, endpoint.counts.target = endpoint.replicas.target, hanging, hanging
        async with endpoint.client() as client:
            looks = [asyncio.create_task(client.get(path)) for path in ("/readyz", "/metrics") for _ in range(15)]
            await eventually(lambda: hanging.looks == 2)
            await eventually(lambda: endpoint.metrics.turned_away["places"] == 10)
            for path in ("/healthz", "/health"):
                assert (await client.get(path)).status_code == 200, "whoever is alive says so without a place"
            endpoint.replicas.target = assess
            assert (await client.post("/v1/assess", files=[("images", tiny_png(1))])).status_code == 200
            statuses = Counter(answer.status_code for answer in await asyncio.gather(*looks))
            assert statuses == {503: 20, 429: 10}, "half of them are one caller's"
            assert (hanging.looks, endpoint.metrics.turned_away["places"]) == (2, 10)
            assert (await client.get("/readyz")).status_code == 200

    asyncio.run(test())


def replaced(endpoint: LocalEndpoint, **settings: Any) -> None:
    """Another model behind the same handle, as in the middle of a rolling update."""
    endpoint.replicas.target = local_endpoint(fusion=None, **settings).replicas.target


@pytest.mark.parametrize("other", [{"rubric": "q-align"}, {"rubric": "interior-v2"}, {"min_side": 16}])
def test_an_answer_names_the_model_that_gave_it_also_while_another_takes_over(other: dict[str, Any]) -> None:
    image = tiny_png(1)

    async def test() -> None:
        endpoint = local_endpoint(fusion=None)
        async with endpoint.client() as client:
            before = (await client.post("/v1/assess", files=[("images", image)])).json()
            replaced(endpoint, assessor=FAKE, **other)
            after = (await client.post("/v1/assess", files=[("images", image)])).json()
            [model] = (await client.get("/v1/models")).json()["models"]
        assert before["fingerprint"] != after["fingerprint"] == model["fingerprint"]
        assert list(after["results"][0]["scores"]) == [one["name"] for one in model["dimensions"]]

    asyncio.run(test())


def test_weights_that_do_not_fit_the_new_model_make_no_reward() -> None:
    async def test() -> None:
        endpoint = local_endpoint()
        async with endpoint.client() as client:
            replaced(endpoint, assessor=FAKE, rubric="q-align")
            answer = await client.post("/v1/assess", files=[("images", tiny_png(1))])
            assert answer.status_code == 503
            assert "retry-after" in answer.headers

    asyncio.run(test())


def test_a_question_about_the_old_rubric_is_not_answered_by_the_new_one() -> None:
    async def test() -> None:
        endpoint = local_endpoint(fusion=None)
        async with endpoint.client() as client:
            replaced(endpoint, assessor=FAKE, rubric="q-align")
            asked = {"images": [IMAGE], "rubric": "interior-v1"}
            answer = await client.post("/v1/assess", json=asked)
            assert answer.status_code == 422
            assert "q-align" in answer.json()["error"]["message"]

    asyncio.run(test())


def test_openapi_describes_bodies_and_answers() -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()
        body = document["paths"]["/v1/assess"]["post"]["requestBody"]["content"]
        assert set(body) == {"application/json", "multipart/form-data"}
        form = body["multipart/form-data"]["schema"]["properties"]
        assert [name for name, one in form.items() if one["type"] == "array"] == ["images", "dimensions", "prompts"]
        text = json.dumps(document)
        for reference in set(json.dumps(document).split('"#/components/schemas/')[1:]):
            assert reference.partition('"')[0] in document["components"]["schemas"]
        assert "image_b64" in text
        example = body["application/json"]["example"]
        answer = await client.post("/v1/assess", json=example)
        assert answer.json()["results"][0]["status"] == "scored", answer.text

    ask(test)
