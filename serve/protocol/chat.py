"""What OpenAI's clients post to /v1/chat/completions -> one question of a rubric, and its answer -> their completion.

    {"model": "<rubric>", "messages": [{"role": "user", "content": [an image_url, a text]}],
     "max_tokens": 1, "logprobs": true, "top_logprobs": 20, "temperature": 0}

So Flow-Factory's `vllm_evaluate` asks, and reads `choices[0].logprobs.content[0].top_logprobs`. Here these are the
logarithms of the probabilities inside the question's closed set of answers, which sum to 1. The text is the question as
the rubric asks it, so that the model reads what the caller wrote. What would need another answer than that is refused.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from iqa_core.base64_text import bytes_of_pieces
from iqa_core.records import Rejection
from iqa_core.rubrics import Rubric
from iqa_core.slots import TextLimits, texts_of
from serve.errors import Refusal
from serve.model.results import ImageResult, Model, ScoredImage
from serve.protocol.bodies import EncodedImage, FewFields, Name
from serve.protocol.json_values import LongStrings, Room, values_of
from serve.protocol.question_texts import AskedQuestion, model_names
from serve.settings import MAX_TEXT

MAX_TOP = 20
"""Entries of `top_logprobs` at most, as OpenAI has it; a closed set has no more answers."""

UNLIKELY = -9999.0
"""OpenAI's logarithm of a probability that is too small to tell."""

NO_TEXT = "no text is written here; send 1: the answer is one of a closed set. /v1/assess has the scores"
ONE_OF_EACH = "one user message with one image_url and one text is asked; /v1/assess takes several images"
WAYS_OUT: Mapping[str, str] = {
    "model": "send the id of a rubric; GET /v1/models has them",
    "max_tokens": NO_TEXT,
    "max_completion_tokens": NO_TEXT,
    "logprobs": "send true: the answer is the probabilities of a closed set",
    "top_logprobs": f"send how many answers to name, up to {MAX_TOP}",
    "temperature": "send 0: the content is the likeliest answer, and nothing is drawn",
    "n": "send 1: the same image has the same answer each time",
    "stream": "send false: the answer comes whole",
    "messages": ONE_OF_EACH,
    "detail": "leave it out: the checkpoint says in which size it sees an image",
}
"""Field -> what to send instead of what is refused."""


def _parts(content: Any) -> Any:
    """A text alone is a list of one part."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class ChatImage(FewFields):
    """An image: itself as a data URI, or where it lies."""

    url: str
    """A data URI, or a URI that is fetched as the `uri` of `/v1/assess` is."""
    detail: Literal["auto"] | None = None


class ChatPart(FewFields):
    """A text, or an image."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ChatImage | None = None

    @model_validator(mode="after")
    def _as_its_type_says(self) -> ChatPart:
        if {name for name in ("text", "image_url") if getattr(self, name) is not None} != {self.type}:
            raise ValueError(f"a part of type {self.type} has {self.type}, and nothing else")
        return self


class ChatMessage(FewFields):
    """What is asked; or a system message without a text."""

    role: Literal["user", "system"]
    content: Annotated[list[ChatPart], Field(fail_fast=True), BeforeValidator(_parts)]


class ChatBody(FewFields):
    """What OpenAI's clients ask, as far as a closed set has an answer to it. Fields that are null are not there."""

    model: Name
    """The rubric's id; `<id>/<dimension>` where several of its questions fit the text."""
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    max_tokens: int | None = Field(None, ge=1, le=1)
    """1; or `max_completion_tokens`, which is the same."""
    max_completion_tokens: int | None = Field(None, ge=1, le=1)
    logprobs: Literal[True]
    top_logprobs: int = Field(0, ge=0, le=MAX_TOP)
    """Answers to name with their logarithms, likeliest first."""
    temperature: float = Field(0, ge=0, le=0)
    n: int = Field(1, ge=1, le=1)
    stream: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


@dataclass(frozen=True, slots=True)
class ChatQuestion:
    """One image, and a text in which a rubric's question is looked for."""

    model: str
    text: str
    image: EncodedImage
    top_logprobs: int


def chat_question(body: bytes, max_images: int) -> ChatQuestion:
    """The question in a body. Raises Refusal (422) in words where a closed set has no answer to what is asked."""
    values, strings = values_of(body, Room.of(max_images))
    try:
        asked = ChatBody.model_validate(values)
    except ValidationError as error:
        raise _in_words(error) from None
    if asked.max_tokens is None and asked.max_completion_tokens is None:
        raise _refused("max_tokens", f"max_tokens: {NO_TEXT}")
    url, text = _image_and_text(asked.messages)
    return ChatQuestion(asked.model, _whole(text, strings), _encoded(url, strings), asked.top_logprobs)


class AnswerLogprob(TypedDict):
    """An answer of the closed set."""

    token: str
    """The answer as the rubric spells it."""
    logprob: float
    """Logarithm of its probability inside the closed set."""
    bytes: list[int]


class ChatLogprob(AnswerLogprob):
    """The likeliest answer, and the others."""

    top_logprobs: list[AnswerLogprob]


class ChatLogprobs(TypedDict):
    """One entry: the place at which the answers are read."""

    content: list[ChatLogprob]
    refusal: None


class ChatAnswer(TypedDict):
    """What the assessor says."""

    role: Literal["assistant"]
    content: str
    """The likeliest answer."""
    refusal: None


class ChatChoice(TypedDict):
    """The answer and its distribution."""

    index: int
    finish_reason: Literal["length"]
    message: ChatAnswer
    logprobs: ChatLogprobs


class ChatUsage(TypedDict):
    """Tokens of the image and all questions of the rubric, and the one place that is read."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(TypedDict):
    """What OpenAI's clients are answered."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    """Names the model that gave the answer."""
    choices: list[ChatChoice]
    usage: ChatUsage


def completion(
    asked: ChatQuestion, found: AskedQuestion, model: Model, result: ImageResult, limits: TextLimits
) -> ChatCompletion:
    """The answer. limits: of the texts of slots.

    Raises Refusal (422), with the reason as its code, where the image was rejected.
    """
    if isinstance(result, Rejection):
        raise Refusal(422, result.detail, code=str(result.reason), param="messages")
    answers = _answers(found, model, result)
    likeliest: ChatLogprob = {**answers[0], "top_logprobs": answers[: asked.top_logprobs]}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": model.fingerprint,
        "choices": [
            {
                "index": 0,
                "finish_reason": "length",
                "message": {"role": "assistant", "content": likeliest["token"], "refusal": None},
                "logprobs": {"content": [likeliest], "refusal": None},
            }
        ],
        "usage": _usage(found, model, result, limits),
    }


def listed_models(rubrics: Sequence[Rubric], created: int) -> dict[str, Any]:
    """What the field `model` may be, as OpenAI's clients list it. created: in seconds since 1970."""
    model = {"object": "model", "created": created, "owned_by": "iqa-ray"}
    return {"object": "list", "data": [{"id": name, **model} for one in rubrics for name in model_names(one)]}


def _answers(found: AskedQuestion, model: Model, result: ScoredImage) -> list[AnswerLogprob]:
    """All of the closed set, likeliest first."""
    column = model.spec.rubric.names.index(found.question.name)
    probs = result.assessment.probs_K[column].tolist()
    ordered = sorted(zip(found.question.scale.answers, probs, strict=True), key=lambda answer: -answer[1])
    return [{"token": word, "logprob": _log(prob), "bytes": list(word.encode())} for word, prob in ordered]


def _log(prob: float) -> float:
    return math.log(prob) if prob > 0 else UNLIKELY


def _usage(found: AskedQuestion, model: Model, result: ScoredImage, limits: TextLimits) -> ChatUsage:
    preparer = model.spec.preparer
    texts = texts_of(model.spec.rubric.slots, found.texts, limits)
    assert not isinstance(texts, Rejection)
    prompt = preparer.shape(result.header).tokens + preparer.text_tokens(texts)
    return {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1}


def _image_and_text(messages: Sequence[ChatMessage]) -> tuple[str, str]:
    """The image's URL, and the text beside it. Raises Refusal (422) where there is not one of each."""
    asked = [message.content for message in messages if message.role == "user"]
    others = [part for message in messages if message.role == "system" for part in message.content]
    if any(part.image_url or (part.text or "").strip() for part in others):
        raise _refused("messages", "messages: the rubric says what the system message is; leave it out")
    images = [part.image_url.url for parts in asked for part in parts if part.image_url]
    texts = [part.text for parts in asked for part in parts if part.text is not None]
    if (len(asked), len(images), len(texts)) != (1, 1, 1):
        counted = f"not {len(asked)} messages with {len(images)} images and {len(texts)} texts"
        raise _refused("messages", f"messages: {ONE_OF_EACH}; {counted}")
    return images[0], texts[0]


def _whole(text: str, strings: LongStrings) -> str:
    try:
        return strings.text(text, MAX_TEXT)
    except ValueError as error:
        raise _refused("messages", f"messages: text: {error}") from None


def _encoded(url: str, strings: LongStrings) -> EncodedImage:
    if url[:5].lower() != "data:":
        return EncodedImage(None, url)
    try:
        return EncodedImage(bytes_of_pieces(strings.pieces(url)), None)
    except ValueError as error:
        raise _refused("messages", f"messages: image_url.url: {error}") from None


def _in_words(error: ValidationError) -> Refusal:
    """The refusal of a body, with what to send instead of its first fault."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    names = [str(name)[:64] for name in fault["loc"]] or ["body"]
    if fault["type"] == "extra_forbidden" and len(names) == 1:
        way_out = f"a closed set has no use for it; send no more than {', '.join(ChatBody.model_fields)}"
    else:
        way_out = WAYS_OUT.get(names[-1]) or WAYS_OUT.get(names[0], "send JSON as OpenAI's clients do")
    return _refused(names[0], f"{'.'.join(names)}: {fault['msg']}; {way_out}")


def _refused(param: str, message: str) -> Refusal:
    return Refusal(422, message, param=param)
