"""Models of bodies and answers -> OpenAPI, where FastAPI cannot see them: bodies are read before it gets to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from iqa_core.rubrics import AnyRubric
from serve.errors import CODES, JSON, Error
from serve.protocol.answers import Answer, RankedAnswer
from serve.protocol.bodies import LISTS, MULTIPART_FIELDS, Question
from serve.protocol.chat import MAX_TOP, ChatBody, ChatCompletion
from serve.protocol.describing import DescribeAnswer, DescribeBody
from serve.protocol.dialects import REWARD, FlowFactoryAnswer, FlowFactoryBody, UniRlAnswer, UniRlBody
from serve.protocol.flow_grpo import PICKLE
from serve.protocol.grounding import FIELDS as GROUND_FIELDS
from serve.protocol.grounding import GroundAnswer, GroundBody
from serve.protocol.question_texts import askable

REF = "#/components/schemas/"

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mOMqpjGgA0wMeAAg1MCAB1LAXh3sACQAAAAAElFTkSuQmCC"
"""The smallest that is scored: 8 x 8 pixels of one colour."""
DATA_URI = f"data:image/png;base64,{PICTURE}"

TURN = {"text": "a hall", "image_b64": PICTURE}
EXAMPLES: Mapping[str, dict[str, Any]] = {
    "UniRlBody": {"requests": [{"history": [TURN], "required_rewards": [REWARD]}]},
    "FlowFactoryBody": {"prompt": ["a hall"], "image": [PICTURE]},
}
"""What a dialect's request looks like."""

SCHEMAS: Mapping[str, TypeAdapter[Any]] = {
    one.__name__: TypeAdapter(one)
    for one in (
        *(Question, GroundBody, DescribeBody, ChatBody, UniRlBody, FlowFactoryBody),
        *(Answer, RankedAnswer, GroundAnswer, DescribeAnswer, ChatCompletion, UniRlAnswer, FlowFactoryAnswer, Error),
    )
}
"""Name of what is sent and answered -> its type."""


SWITCHES = frozenset({"probs", "answers"})
"""Fields of a form that are true or false."""


def question_body(answer: str) -> dict[str, Any]:
    """A question as JSON or as multipart, and its answer, by its name in SCHEMAS."""
    fields: dict[str, Any] = {name: {"type": "boolean"} for name in sorted(SWITCHES)}
    return _with_images("Question", {"probs": True}, {**fields, **_texts(MULTIPART_FIELDS - SWITCHES)}, answer)


def parts_body() -> dict[str, Any]:
    """A question about parts of images as JSON or as multipart, and its answer."""
    fields = {"grid": {"type": "integer"}, **_texts(GROUND_FIELDS - {"grid"})}
    return _with_images("GroundBody", {"grid": 3, "boxes": [[0, 0, 4, 4]]}, fields, "GroundAnswer")


def _texts(names: frozenset[str]) -> dict[str, Any]:
    """Fields of a form that are texts, or lists of them."""
    lists = {name: {"type": "array", "items": {"type": "string"}} for name in sorted(names & LISTS)}
    return lists | {name: {"type": "string"} for name in sorted(names - LISTS)}


def free_question_body() -> dict[str, Any]:
    """A free question as JSON or as multipart, and its answer."""
    fields = {"question": {"type": "string"}, "max_tokens": {"type": "integer"}}
    return _with_images("DescribeBody", {"question": "What stands by the window?"}, fields, "DescribeAnswer")


def _with_images(body: str, example: Mapping[str, Any], fields: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """A body as JSON, with an example of what stands beside its images, or as a form with these fields."""
    form = {
        "type": "object",
        "required": ["images"],
        "properties": {
            "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
            **fields,
        },
    }
    content = {
        JSON: {"schema": {"$ref": f"{REF}{body}"}, "example": {"images": [{"data": DATA_URI}], **example}},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}, "responses": _responses(_named(answer))}


def dialect_body(body: str, answer: str) -> dict[str, Any]:
    """A dialect's request as JSON, and its answer, by their names in SCHEMAS."""
    content = {JSON: {"schema": {"$ref": f"{REF}{body}"}, "example": EXAMPLES[body]}}
    return {"requestBody": {"required": True, "content": content}, "responses": _responses(_named(answer))}


def chat_body(rubrics: Sequence[AnyRubric]) -> dict[str, Any]:
    """A request of OpenAI's clients, and its answer. rubrics: those that are served, the first one's in the example."""
    content: dict[str, Any] = {"schema": {"$ref": f"{REF}ChatBody"}}
    if asked := [(rubric, one) for rubric in rubrics for one in askable(rubric)]:
        rubric, question = asked[0]
        text = question.filled(dict.fromkeys(question.slots, "a hall")).query
        image = {"type": "image_url", "image_url": {"url": DATA_URI}}
        content["example"] = {
            "model": f"{rubric.id}/{question.name}",
            "messages": [{"role": "user", "content": [image, {"type": "text", "text": text}]}],
            "max_tokens": 1,
            "logprobs": True,
            "top_logprobs": MAX_TOP,
        }
    return {
        "requestBody": {"required": True, "content": {JSON: content}},
        "responses": _responses(_named("ChatCompletion")),
    }


def pickle_body() -> dict[str, Any]:
    """A pickled request and its pickled answer, which no schema can say."""
    content = {PICKLE: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content}, "responses": _responses(content)}


def _responses(content: Mapping[str, Any]) -> dict[str, Any]:
    refused = {JSON: {"schema": {"$ref": f"{REF}Error"}}}
    errors = {
        str(status): {"description": code.replace("_", " "), "content": refused}
        for status, code in CODES.items()
        if status != 500
    }
    return {"200": {"description": "one entry per image, in order", "content": content}, **errors}


def _named(answer: str) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": f"{REF}{answer}"}}}


def describe_bodies(app: FastAPI) -> None:
    """Add the schemas that routes refer to, and how a token is sent."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        document = plain()
        _, schemas = TypeAdapter.json_schemas(
            [(name, "validation", adapter) for name, adapter in SCHEMAS.items()], ref_template=f"{REF}{{model}}"
        )
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {}).update(schemas["$defs"])
        parts["schemas"]["ImageInput"]["properties"]["data"]["examples"] = [DATA_URI]
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        return document

    app.openapi = complete  # type: ignore[method-assign]
