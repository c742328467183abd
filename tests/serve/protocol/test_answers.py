"""Results of a written rubric -> answers with the text beside the numbers, which the client takes as they are."""

from __future__ import annotations

import base64
from typing import Any

import httpx2
import numpy as np
import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.endpoint.answers import scores_of
from iqa_core.records import Assessment
from tests.corpora import tiny_png
from tests.serve.test_api import ask

RUBRIC = "perception-v1"
IMAGES = [tiny_png(i) for i in range(6)]
CUT = {"checkpoint": "fake:?cut_share=0.4"}
SENT = [{"data": base64.b64encode(image).decode()} for image in IMAGES]


def ask_written(test: Any, **settings: Any) -> None:
    ask(test, **{"rubric": RUBRIC, "assessor": CUT, "fusion": None, **settings})


def test_an_answer_has_the_text_that_a_notebook_gets() -> None:
    expected = assess_images(load_assessor(CUT["checkpoint"], RUBRIC), IMAGES)

    async def test(client: httpx2.AsyncClient) -> None:
        answer = (await client.post("/v1/assess", json={"images": SENT, "answers": True})).json()
        for result, own in zip(answer["results"], expected, strict=True):
            if not isinstance(own, Assessment):
                assert (result["reason"], result["detail"]) == ("unparsable", own.detail)
                continue
            assert own.written is not None
            assert result["written"] == {
                "caption": own.written.caption,
                "reasoning": own.written.reasoning,
                "parsed": 1,
                "finish": "stop",
                "answers": list(own.written.answers),
            }
            assert result["scores"] == {"quality": round(float(own.scores_K[0]), 6)}
            assert (result["std"], result["reward"]) == ({}, result["scores"]["quality"])
            assert "probs" not in result
        plain = (await client.post("/v1/rank", json={"images": SENT})).json()
        assert all("answers" not in one["written"] for one in plain["results"] if one["status"] == "scored")
        taken = scores_of(answer, len(IMAGES), with_probs=False)
        assert [one.written and one.written.caption for one in taken] == [
            own.written.caption if isinstance(own, Assessment) and own.written else None for own in expected
        ]
        [model] = (await client.get("/v1/models")).json()["models"]
        assert (model["kind"], "levels" in model) == ("written", False)
        [quality] = model["dimensions"]
        assert quality["name"] == "quality"
        assert quality["std_max"] == pytest.approx(np.std([1, 5], ddof=1)), "of two samples"

    assert len({*map(type, expected)}) == 2, "some are parsed, and some are not"
    ask_written(test)


@pytest.mark.parametrize(
    ("rubric", "field", "words"),
    [
        (RUBRIC, "probs", "answers to perception-v1 are written, and have no probabilities"),
        ("interior-v1", "answers", "answers to interior-v1 are not written"),
    ],
)
def test_what_only_the_other_kind_has_is_refused(rubric: str, field: str, words: str) -> None:
    async def test(client: httpx2.AsyncClient) -> None:
        for sent in ({"json": {"images": SENT, field: True}}, {"files": [("images", IMAGES[0])], "data": {field: "1"}}):
            answer = await client.post("/v1/assess", **sent)
            assert answer.status_code == 422
            assert words in answer.json()["error"]["message"]

    ask_written(test, rubric=rubric)
