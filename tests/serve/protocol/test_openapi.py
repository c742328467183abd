"""Answers are of the schemas in the OpenAPI document; requests made up from it do not end in a server error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, settings

from tests.corpora import tiny_png
from tests.serve.local import UNEVEN, asking, listening

OF_SCHEMATHESIS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
"""At import and while it makes up bodies."""

MADE_UP = 8
"""Per operation; thirteen operations, six of them also with what is wrong."""


def test_every_example_is_answered() -> None:
    async def test() -> None:
        async with asking(assessor={"checkpoint": "fake:?view_px=2"}) as client:
            document = (await client.get("/openapi.json")).json()
            schemas = document["components"]["schemas"]
            for path, operations in document["paths"].items():
                for kind, content in operations.get("post", {}).get("requestBody", {}).get("content", {}).items():
                    if kind == "application/json":
                        answer = await client.post(path, json=content["example"])
                        assert answer.status_code == 200, (path, answer.text)
                        text = answer.text.replace('"reasons": [null]', "").replace("finish_reason", "")
                        assert any(word in text for word in ("reward", "logprobs", "cells"))
                        assert "reason" not in text, "the picture is scored"
            alone = {
                name: field["examples"]
                for name, field in schemas["ImageInput"]["properties"].items()
                if "examples" in field
            }
            for example in alone["data"]:
                answer = await client.post("/v1/assess", json={"images": [{"data": example}]})
                assert answer.json()["results"][0]["status"] == "scored"
            num_examples = json.dumps(document).count('"example"') + json.dumps(document).count('"examples"')
            assert num_examples == 7, "six bodies and a field: each was sent"

    asyncio.run(test())


def test_every_answer_is_what_the_document_says() -> None:
    """Every name in an answer, too, is one of the schema's."""
    asked = {"prompt": "a hall", "request_id": "7", "probs": True, "dimensions": ["layout"]}
    files = [("images", tiny_png(1)), ("images", b"no image"), ("images", tiny_png(2, size=4))]

    local = {"boxes": ["0,0,9,9", "90,90,1,1"], "request_id": "7"}

    async def test() -> None:
        async with asking(assessor={"checkpoint": "fake:?view_px=2"}) as client:
            document = (await client.get("/openapi.json")).json()
            for path, data, status in (
                ("/v1/assess", {}, 200),
                ("/v1/assess", asked, 200),
                ("/v1/rank", asked, 200),
                ("/v1/rank", {"rubric": "another"}, 422),
                ("/v1/ground", local, 200),
            ):
                answer = await client.post(path, data=data, files=files)
                _validate(document, path, status, answer)
            for path in ("/score", "/compute", "/v1/chat/completions"):
                content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
                _validate(document, path, 200, await client.post(path, json=content["example"]))
            _validate(document, "/v1/chat/completions", 422, await client.post("/v1/chat/completions", json={}))
        async with asking(rubric=str(UNEVEN.with_name("prompted.toml")), fusion=None) as client:
            answer = await client.post("/v1/rank", data={"prompt": "a hall", "probs": True}, files=files)
            assert answer.json()["scales"]
            _validate(document, "/v1/rank", 200, answer)

    asyncio.run(test())


def _validate(document: dict[str, Any], path: str, status: int, answer: Any) -> None:
    assert answer.status_code == status, answer.text
    content = document["paths"][path]["post"]["responses"][str(status)]["content"]["application/json"]
    schemas = {
        name: schema | {"additionalProperties": False} for name, schema in document["components"]["schemas"].items()
    }
    jsonschema.validate(answer.json(), content["schema"] | {"components": {"schemas": schemas}})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as found:
        yield found


@pytest.mark.slow
@OF_SCHEMATHESIS
def test_no_made_up_request_is_a_server_error(url: str) -> None:
    import schemathesis
    from schemathesis.checks import not_a_server_error

    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    seen: set[str] = set()
    for found in document.get_all_operations():
        operation: Any = found.ok()
        seen.add(operation.label)
        _run(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE), not_a_server_error)
        if operation.method == "post":  # in the others there is nothing to get wrong
            _run(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE), not_a_server_error)
    assert {"POST /v1/assess", "POST /v1/rank", "POST /score", "POST /compute", "POST /v1/chat/completions"} <= seen
    assert "GET /v1/models" in seen


def _run(strategy: Any, check: Any) -> None:
    from hypothesis import given

    @settings(max_examples=MADE_UP, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def ask(case: Any) -> None:
        answer = case.call()
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=[check])

    ask()
