"""Parts of images over HTTP: the local scores that a notebook gets, in any company, and what is refused in words.

Tests iqa_core/grounding/question.py, iqa_core/endpoint/requests.py, iqa_core/endpoint/groundings.py and
iqa_core/endpoint/values.py too.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.protocol import Assessor
from iqa_core.client import AsyncRewardClient, Grounding, RequestRefused, RewardClient
from iqa_core.demo.flaws import cell, make_flawed_scene
from iqa_core.endpoint.groundings import groundings_of
from iqa_core.errors import CallerError
from iqa_core.grounding.locating import Located, Region, assess_regions, locate
from iqa_core.records import Rejection
from tests.assessor import tiny
from tests.corpora import tiny_png
from tests.serve.local import listening, local_endpoint
from tests.serve.test_api import ask, b64

DEMO: Mapping[str, Any] = {"assessor": {"checkpoint": "demo", "threads": 1}, "fusion": None}
BOXES = [[56.0, 0.0, 56.0, 56.0], [-20.0, 80.0, 60.0, 400.0], [112.0, 0.0, 10.0, 10.0]]
"""The spoilt quarter; one of which a corner lies in the picture; one beside it."""
FAKE_BODY = {"images": [{"data": b64(tiny_png(1))}]}


def png(number: int, size: tuple[int, int] = (112, 112), orientation: int = 1) -> bytes:
    """A room whose upper right quarter is spoilt, stored as an EXIF orientation turns it."""
    scene = make_flawed_scene(22, number, region=cell(0, 1, 2), kind="mix").scene
    buffer, exif = BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(scene.pixels_HWC).resize(size).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


IMAGES = [png(6), png(7, (160, 112), orientation=6), png(8, (96, 140))]


@pytest.fixture(scope="module")
def demo() -> Assessor:
    return load_assessor("demo", threads=1)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(**DEMO) as found:
        yield found


def check(entry: Mapping[str, Any], located: Any, regions: Sequence[Region | Rejection]) -> None:
    """Compare an image's entry with what a notebook says of it."""
    assert entry["status"] == "grounded"
    assert list(entry["dimensions"]) == list(located)
    for name, own in located.items():
        assert isinstance(own, Located)
        found = entry["dimensions"][name]
        assert found["score"] == pytest.approx(own.score, abs=2e-5)
        assert [one for row in found["cells"] for one in row] == pytest.approx(own.cell_scores.ravel(), abs=2e-5)
        [region] = found["regions"]
        assert (found["status"], tuple(region["cell"]), region["method"]) == ("located", own.cell, "views")
        assert own.box is not None
        assert region["box"] == pytest.approx(list(own.box), abs=1e-5)
        assert region["score"] == pytest.approx(own.cell_scores.min(), abs=2e-5)
        centre = (own.box.x + own.box.width / 2, own.box.y + own.box.height / 2)
        assert (found["point"]["x"], found["point"]["y"]) == pytest.approx(centre, abs=1e-5)
        assert found["point"]["relative"] == pytest.approx(
            [centre[0] / entry["width"], centre[1] / entry["height"]], abs=1e-5
        )
    for own_box, found in zip(regions, entry["boxes"], strict=True):
        if isinstance(own_box, Rejection):
            assert found == {"status": "rejected", "reason": str(own_box.reason), "detail": own_box.detail}
        else:
            assert (found["status"], found["tokens"]) == ("scored", own_box.num_tokens)
            assert found["box"] == pytest.approx(list(own_box.box), abs=1e-5)
            assert found["scores"] == pytest.approx(own_box.scores, abs=2e-5)


@pytest.mark.slow
def test_an_image_gets_what_a_notebook_says_by_json_by_form_and_by_the_clients(demo: Assessor, url: str) -> None:
    """Upright, square or not; each with boxes of its own; a bad image in its place."""
    boxes = [BOXES, [[0.0, 100.0, 112.0, 60.0]], []]
    located = [locate(demo, image, cells=3) for image in IMAGES]
    regions = [assess_regions(demo, image, own) for image, own in zip(IMAGES, boxes, strict=True)]
    corrupt = IMAGES[0][:60]

    with httpx2.Client(base_url=url, timeout=60) as client:
        sent = [{"data": b64(image), "boxes": own} for image, own in zip(IMAGES, boxes, strict=True)]
        answer = client.post("/v1/ground", json={"images": [*sent, {"data": b64(corrupt)}], "grid": 3})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert {name: body[name] for name in body.keys() - {"results", "fingerprint"}} == {
            "rubric": "interior-v4",
            "coordinates": "upright",
        }
        for entry, own, own_regions in zip(body["results"][:-1], located, regions, strict=True):
            check(entry, own, own_regions)
        assert (body["results"][1]["width"], body["results"][1]["height"]) == (112, 160), "as it is shown"
        assert body["results"][-1]["reason"] in ("truncated", "corrupt")
        form = [("images", IMAGES[0]), ("grid", b"3"), *(("boxes", f"{box}"[1:-1].encode()) for box in BOXES)]
        answer = client.post("/v1/ground", files=form)
        check(answer.json()["results"][0], located[0], regions[0])
        shared = {"images": [sent[1], {"data": b64(IMAGES[0])}], "boxes": BOXES, "grid": 3, "dimensions": ["layout"]}
        answer = client.post("/v1/ground", json=shared)
        assert [len(one["boxes"]) for one in answer.json()["results"]] == [1, 3], "its own go before the request's"
        check(
            answer.json()["results"][1],
            locate(demo, IMAGES[0], ["layout"], cells=3),
            assess_regions(demo, IMAGES[0], BOXES, ["layout"]),
        )
    with RewardClient(url, images_per_request=2) as rewards:
        found = rewards.ground([*IMAGES, corrupt], [*boxes, []], grid=3)
        with pytest.raises(RequestRefused, match="dimensions: 'smell' is none of layout, harmony"):
            rewards.ground(IMAGES, dimensions=["smell"])
        with pytest.raises(CallerError, match="2 lists of boxes for 3 images"):
            rewards.ground(IMAGES, [[], []])
        with pytest.raises(CallerError, match=r"image 1: box 0 is \(1, 2, 3\), not x, y, width and height"):
            rewards.ground(IMAGES[:2], [[], [(1, 2, 3)]])

    async def asynchronously() -> list[Grounding]:
        async with AsyncRewardClient(url) as client:
            return await client.ground([*IMAGES, corrupt], [*boxes, []], grid=3)

    again = asyncio.run(asynchronously())
    assert [one.reason for one in again] == [one.reason for one in found]
    assert [{name: place.cell for name, place in one.dimensions.items()} for one in again] == [
        {name: place.cell for name, place in one.dimensions.items()} for one in found
    ]
    own = located[0]
    assert isinstance(own, dict)
    assert own["distortion"].box is not None
    assert found[0].dimensions["distortion"].cell == own["distortion"].cell
    assert found[0].dimensions["distortion"].box == pytest.approx(tuple(own["distortion"].box), abs=1e-5)
    assert [one.reason for one in found[0].boxes] == [None, None, "too_small"]
    assert (found[1].width, found[1].height, found[-1].dimensions, found[-1].boxes) == (112, 160, {}, [])
    assert found[-1].reason in ("truncated", "corrupt")


@pytest.mark.slow
def test_parts_and_whole_images_share_batches_and_are_counted() -> None:
    async def test() -> None:
        endpoint = local_endpoint(**DEMO)
        async with endpoint.client() as client:
            body = {"images": [{"data": b64(image)} for image in IMAGES]}
            ninths = {**body, "grid": 3, "dimensions": ["distortion"]}
            sent = [("ground", body), ("assess", body), ("ground", ninths)]
            alone, plain, alone_3 = [(await client.post(f"/v1/{path}", json=own)).json() for path, own in sent]
            asked = [client.post(f"/v1/{path}", json=own) for path, own in sent]
            together = [answer.json() for answer in await asyncio.gather(*asked)]
        for found, own in ((together[0], alone), (together[2], alone_3)):
            for mine, other in zip(found["results"], own["results"], strict=True):
                assert mine["dimensions"].keys() == other["dimensions"].keys()
                for name, part in mine["dimensions"].items():
                    assert part["score"] == pytest.approx(other["dimensions"][name]["score"], abs=2e-5)
                    for row, same in zip(part["cells"], other["dimensions"][name]["cells"], strict=True):
                        assert row == pytest.approx(same, abs=2e-5)
        for mine, other in zip(alone["results"], plain["results"], strict=True):
            assert mine["dimensions"]["lighting"]["score"] == pytest.approx(other["scores"]["lighting"], abs=2e-5)
        assert [one["reward"] for one in together[1]["results"]] == pytest.approx(
            [one["reward"] for one in plain["results"]], abs=2e-5
        )
        assert (endpoint.metrics.images["", "grounded"], endpoint.metrics.images["", "scored"]) == (12, 6)

    asyncio.run(test())


@pytest.mark.slow
def test_a_model_without_views_is_404_by_name(tmp_path: Path) -> None:
    folder = tiny.save_idefics3(tmp_path / "idefics3")

    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/ground", json={"images": [{"data": b64(png(1))}]})
        assert answer.status_code == 404
        assert answer.json()["error"]["message"].startswith(
            "a question to idefics3 cannot be kept from some of an image"
        )
        assert (await client.post("/v1/assess", json={"images": [{"data": b64(png(1))}]})).status_code == 200

    ask(test, assessor={"checkpoint": str(folder), "threads": 1}, rubric="interior-v1", fusion=None)


REFUSED: list[tuple[Mapping[str, Any], str]] = [
    ({"grid": 1}, "grid: Input should be greater than or equal to 2"),
    ({"grid": 5}, "grid: Input should be less than or equal to 4"),
    ({"boxes": [[0, 0, 10, 10]] * 17}, "boxes: List should have at most 16 items"),
    ({"boxes": [[0, 0, 10]]}, "boxes.0: Value should have at least 4 items"),
    ({"boxes": [[0, 0, 10, 10], [0, 0, 0, 10]]}, "boxes.1: a box is x, y, width and height, the last two above 0"),
    ({"images": [{**FAKE_BODY["images"][0], "boxes": [[0, 0, -1, 10]]}]}, "images.0.boxes.0: a box is x, y"),
    ({"boxes": [[True, 0, 10, 10]]}, "a box is four numbers, none of which is true or false"),
    ({"boxes": ["a,b,c,d"]}, "boxes.0.0: Input should be a valid number"),
    ({"dimensions": ["smell"]}, "dimensions: 'smell' is none of layout, harmony, lighting, distortion"),
    ({"dimensions": []}, "dimensions"),
    ({"rubric": "none-such"}, "rubric: this endpoint serves interior-v1"),
    ({"probs": True}, "probs: Extra inputs are not permitted"),
    ({"images": []}, "images"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_is_out_of_bounds_is_refused_before_anything_is_asked(given: Mapping[str, Any], words: str) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/ground", json={**FAKE_BODY, **given})
        assert answer.status_code == 422, answer.text
        assert words in answer.json()["error"]["message"]
        assert "type" not in answer.json()["error"]

    ask(test)


def test_a_rubric_without_local_dimensions_and_one_that_is_written_say_so(tmp_path: Path) -> None:
    whole = tmp_path / "whole.toml"
    text = (Path(__file__).parents[3] / "iqa_core" / "rubrics" / "interior-v1.toml").read_text()
    whole.write_text(text.replace("local = true\n", ""))

    async def unmarked(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/ground", json=FAKE_BODY)
        assert answer.status_code == 422
        assert "marks none as local; name some that a part of an image has too" in answer.text

    async def written(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/ground", json=FAKE_BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert "answers to perception-v1 are written" in answer.json()["error"]["message"]

    ask(unmarked, rubric=str(whole), fusion=None)
    ask(written, rubric="perception-v1", fusion=None)


@pytest.mark.slow
def test_openapi_has_an_example_that_is_answered(url: str) -> None:
    with httpx2.Client(base_url=url, timeout=60) as client:
        content = client.get("/openapi.json").json()["paths"]["/v1/ground"]["post"]["requestBody"]["content"]
        answer = client.post("/v1/ground", json=content["application/json"]["example"])
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["status"] == "grounded", answer.text
        form = content["multipart/form-data"]["schema"]["properties"]
        assert (form["grid"]["type"], form["boxes"]["type"]) == ("integer", "array")
        assert not {"probs", "answers"} & form.keys()


ANSWER: Mapping[str, Any] = {
    "fingerprint": "f",
    "rubric": "r",
    "coordinates": "upright",
    "results": [
        {
            "status": "grounded",
            "width": 10,
            "height": 20,
            "dimensions": {
                "a": {
                    "status": "located",
                    "score": 3,
                    "cells": [[1, 2], [3, 4]],
                    "point": {"x": 2.5, "y": 5, "relative": [0.25, 0.25]},
                    "regions": [{"method": "views", "cell": [0, 0], "box": [0, 0, 5, 10], "score": 1}],
                }
            },
            "boxes": [{"status": "scored", "box": [0, 0, 5, 5], "scores": {"a": 2}, "tokens": 3}],
        }
    ],
}
LIES: list[tuple[Sequence[Any], Any, str]] = [
    (["coordinates"], "resized", "coordinates is 'resized', not upright"),
    (["results", 0, "dimensions", "a", "cells", 1, 1], 6, "results.0.dimensions.a.cells.1.1 is 6, no number"),
    (["results", 0, "dimensions", "a", "cells"], [[1, 2]], "cells is a list of 1, no list of 2"),
    (["results", 0, "dimensions", "a", "score"], float("nan"), "score is nan"),
    (["results", 0, "dimensions", "a", "point"], None, "it has no results.0.dimensions.a.point.x"),
    (["results", 0, "dimensions", "a", "status"], "unlocated", "regions is a list of 1, no list of 0"),
    (["results", 0, "dimensions", "a", "regions", 0, "cell"], [0, 2], "cell.1 is 2, no number from 0 to 1"),
    (["results", 0, "boxes"], [], "boxes is a list of 0, no list of 1"),
    (["results", 0, "boxes", 0, "scores"], {"b": 2}, "other dimensions than the image"),
    (["results", 0, "status"], "rejected", "it has no results.0.reason"),
]


def test_an_answer_is_taken_whole() -> None:
    [found] = groundings_of(ANSWER, [1], 2)
    assert (found.dimensions["a"].point, found.dimensions["a"].box) == ((2.5, 5), (0, 0, 5, 10))
    assert (found.boxes[0].scores, found.boxes[0].tokens) == ({"a": 2}, 3)


@pytest.mark.parametrize(("place", "lie", "words"), LIES)
def test_one_lie_in_an_answer_is_told_with_its_place(place: Sequence[Any], lie: Any, words: str) -> None:
    answer: Any = copy.deepcopy(ANSWER)
    *path, last = place
    inner = answer
    for name in path:
        inner = inner[name]
    inner[last] = lie
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        groundings_of(answer, [1], 2)
