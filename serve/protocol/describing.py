"""The body of a request to /v1/describe -> a free question about encoded images, and the answers -> JSON.

Nothing is parsed of what is written, so there are no scores and no reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field, with_config
from typing_extensions import TypedDict

from iqa_core.records import FreeQuestion, Rejection
from iqa_core.rubrics import AnyRubric, WrittenRubric
from serve.errors import Refusal
from serve.model.results import Description, Model
from serve.protocol.answers import DESCRIBED, Rejected, Size, rejected, size
from serve.protocol.bodies import (
    EncodedImage,
    FewFields,
    ImageSource,
    Text,
    boundary_in,
    encoded,
    from_form,
    validated,
    whole_text,
)

FIELDS = frozenset({"question", "max_tokens"})
"""Fields of a form beside its images."""


class DescribeBody(FewFields):
    """What `/v1/describe` is asked."""

    images: list[ImageSource] = Field(min_length=1, fail_fast=True)
    question: Text
    """Any text, up to `slot_chars` characters (2,000 unless the operator says otherwise)."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens after which an answer is cut; the rubric's `max_new_tokens` at most, and by default."""


@dataclass(frozen=True, slots=True)
class AskedFreely:
    """A body with its images decoded from base64."""

    question: str
    max_tokens: int | None
    images: list[EncodedImage] = field(repr=False)


@with_config(DESCRIBED)
class Described(Size):
    """An image with an answer."""

    status: Literal["described"]
    text: str
    """Verbatim."""
    finish: Literal["stop", "length"]
    """Whether the answer ended by itself, or was cut at its limit."""


@with_config(DESCRIBED)
class DescribeAnswer(TypedDict):
    """What `/v1/describe` says."""

    fingerprint: str
    """Names the model, under the rubric that is served."""
    rubric: str
    results: list[Described | Rejected]


def asked_freely(body: bytes, content_type: str, max_images: int) -> AskedFreely:
    """The question in a body. Raises Refusal: 415 for another content type, 422 for what is malformed."""
    boundary = boundary_in(content_type)
    if boundary is None:
        asked, strings = validated(DescribeBody, body, "images", max_images)
        images = [encoded(image, place, strings) for place, image in enumerate(asked.images)]
        return AskedFreely(whole_text(asked.question, "question", strings), asked.max_tokens, images)
    asked, files = from_form(DescribeBody, body, boundary, max_images, FIELDS)
    return AskedFreely(asked.question, asked.max_tokens, [EncodedImage(data, None) for data in files])


def writing(rubric: AnyRubric) -> WrittenRubric:
    """The rubric, if its model writes. Raises Refusal (404) where answers are closed sets."""
    if isinstance(rubric, WrittenRubric):
        return rubric
    raise Refusal(
        404, f"answers to {rubric.id} are closed sets; questions are answered where a written rubric is served"
    )


def free_question(asked: AskedFreely, rubric: WrittenRubric, max_chars: int) -> FreeQuestion:
    """The question as the model gets it, without white space around it.

    max_chars: of the question. Raises Refusal (422) for one that is blank or longer, and for more tokens than the
    rubric's `max_new_tokens`.
    """
    text = asked.question.strip()
    most = rubric.decoding.max_new_tokens
    if not text:
        raise Refusal(422, "question: is blank")
    if len(text) > max_chars:
        raise Refusal(422, f"question: its {len(text)} characters are more than {max_chars}")
    if asked.max_tokens is not None and asked.max_tokens > most:
        raise Refusal(422, f"max_tokens: {asked.max_tokens} is more than the {most} of rubric {rubric.id}")
    return FreeQuestion(text, asked.max_tokens or most)


def described(model: Model, results: Sequence[Description]) -> DescribeAnswer:
    """What is answered, one result per image, in order."""
    return {
        "fingerprint": model.fingerprint,
        "rubric": model.spec.rubric.id,
        "results": [_result(one) for one in results],
    }


def _result(one: Description) -> Described | Rejected:
    if isinstance(one, Rejection):
        return rejected(one)
    return {"status": "described", "text": one.answer.text, "finish": one.answer.finish.value, **size(one.header)}
