"""Models of bodies and answers -> OpenAPI, where FastAPI cannot see them: bodies are read before it gets to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.errors import CODES, JSON
from serve.protocol.bodies import MULTIPART_FIELDS, Question
from serve.protocol.dialects import REWARD, FlowFactoryBody, UniRlBody

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


class Result(BaseModel):
    """One image. Either `scored`, with numbers, or `rejected`, with a reason; sizes where the header was read."""

    status: str
    scores: dict[str, float] | None = None
    std: dict[str, float] | None = None
    probs: dict[str, list[float]] | None = None
    reward: float | None = None
    reason: str | None = None
    detail: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    frames: int | None = None


class Answer(BaseModel):
    """Of /v1/assess; /v1/rank adds `order`, `best` and `rewards`."""

    fingerprint: str
    rubric: str
    request_id: str | None = None
    prompt: str | None = None
    order: list[int] | None = None
    best: int | None = None
    rewards: list[float | None] | None = None
    results: list[Result]


class ErrorBody(BaseModel):
    code: str
    message: str


class Error(BaseModel):
    error: ErrorBody


def question_body() -> dict[str, Any]:
    """A question as JSON or as multipart."""
    fields = {name: {"type": "string"} for name in sorted(MULTIPART_FIELDS - {"dimensions", "probs"})}
    form = {
        "type": "object",
        "required": ["images"],
        "properties": {
            "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
            "dimensions": {"type": "array", "items": {"type": "string"}},
            "probs": {"type": "boolean"},
            **fields,
        },
    }
    example = {"images": [{"data": DATA_URI}], "probs": True}
    content = {
        JSON: {"schema": {"$ref": f"{REF}Question"}, "example": example},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}, "responses": _responses("Answer")}


def json_body(model: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": f"{REF}{model}"}, "example": EXAMPLES[model]}}
    return {"requestBody": {"required": True, "content": content}, "responses": _responses(None)}


def _responses(answer: str | None) -> dict[str, Any]:
    schema: Mapping[str, Any] = {"$ref": f"{REF}{answer}"} if answer else {"type": "object"}
    refused = {JSON: {"schema": {"$ref": f"{REF}Error"}}}
    errors = {
        str(status): {"description": code.replace("_", " "), "content": refused}
        for status, code in CODES.items()
        if status != 500
    }
    return {"200": {"description": "one entry per image, in order", "content": {JSON: {"schema": schema}}}, **errors}


def describe_bodies(app: FastAPI) -> None:
    """Add the schemas that routes refer to, and how a token is sent."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        document = plain()
        models = (Question, UniRlBody, FlowFactoryBody, Answer, Error)
        _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=f"{REF}{{model}}")
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {}).update(schemas["$defs"])
        parts["schemas"]["ImageInput"]["properties"]["data"]["examples"] = [DATA_URI]
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        return document

    app.openapi = complete  # type: ignore[method-assign]
