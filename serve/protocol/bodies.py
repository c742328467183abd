"""The body of a request, JSON or multipart -> a validated question about encoded images.

Raises `Refusal` (415, 422) on whatever is malformed: a request is understood as a whole or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from iqa_core.base64_text import bytes_of_pieces
from serve.errors import Refusal
from serve.model.asking import Texts
from serve.protocol.json_values import MAX_SHORT, LongStrings, Room, values_of
from serve.protocol.multipart import Part, options_of, parts_of
from serve.protocol.texts import check_number, texts_of_prompts
from serve.settings import MAX_TEXT

B = TypeVar("B", bound=BaseModel)
Q = TypeVar("Q", bound="RubricQuestion")

MULTIPART_FIELDS = frozenset({"rubric", "dimensions", "probs", "answers", "prompt", "prompts", "request_id"})
LISTS = frozenset({"dimensions", "prompts", "boxes"})
"""Fields of a form that have a part for each entry."""
MAX_FIELDS = 32
"""Fields of one object: each that is unknown is an error, and errors take memory."""
MAX_DIMENSIONS = 64
"""Names in one request. One that names none is shown all that the rubric has."""
MAX_FORM_PARTS = 2 * len(MULTIPART_FIELDS) + MAX_DIMENSIONS
"""Parts of a form beside its images and their prompts."""

Name = Annotated[str, StringConstraints(max_length=MAX_SHORT)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class FewFields(BaseModel):
    """An object without fields that are not known. Its lists fail fast: of a million wrong entries one is told."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _are_few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise ValueError(f"{len(given)} fields are more than {MAX_FIELDS}")
        return given


class ImageSource(FewFields):
    """One image: itself, or where it lies."""

    data: str | None = None
    """The encoded file in base64, in either alphabet, broken into lines or not, with or without `data:…;base64,`."""
    uri: str | None = None
    """Fetched by the endpoint if its operator allows it; else the image is rejected as `forbidden`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.data is None) == (self.uri is None):
            raise ValueError("give either data or uri")
        if self.uri is not None and self.uri[:5].lower() == "data:":
            raise ValueError("a data URI goes into data")
        return self


class ImageInput(ImageSource):
    """One image, and its texts."""

    texts: dict[Name, Text | None] | None = Field(default=None, max_length=MAX_FIELDS)
    """Slot of the rubric -> this image's text, for slots of any name; one that is blank or null rejects the image
    (`missing_text`). They go before the request's prompts."""


class RubricQuestion(FewFields):
    """What is asked of a rubric."""

    images: Sequence[ImageInput]
    rubric: Name | None = None
    """Id of one that is served (see /v1/models); the first of them answers who names none. With one that is not, the
    request is refused, so that nobody reads other scores than they meant."""
    dimensions: list[Name] | None = Field(default=None, min_length=1, max_length=MAX_DIMENSIONS, fail_fast=True)
    """Each once."""
    prompt: Text | None = None
    """What all images were made from: the text of the rubric's slot `prompt`, where it has one. Carried back."""
    prompts: list[Text | None] | None = Field(default=None, fail_fast=True)
    """The same with one per image; one that is blank or null rejects its image (`missing_text`)."""
    request_id: Name | None = None
    """Carried back."""

    @field_validator("dimensions")
    @classmethod
    def _once_each(cls, given: list[str] | None) -> list[str] | None:
        for name, times in Counter(given).items():
            if times > 1:
                raise ValueError(f"{name[:64]!r} is there {times} times")
        return given

    @model_validator(mode="after")
    def _prompts_once(self) -> Self:
        if self.prompt is not None and self.prompts is not None:
            raise ValueError("give either prompt or prompts")
        return self


class Question(RubricQuestion):
    """What `/v1/assess` and `/v1/rank` are asked."""

    images: list[ImageInput] = Field(min_length=1, fail_fast=True)
    dimensions: list[Name] | None = Field(default=None, min_length=1, max_length=MAX_DIMENSIONS, fail_fast=True)
    """Dimensions to show; the reward is that of all dimensions in any case."""
    probs: bool = False
    """Whether to show the probabilities of the answers, too; of closed sets alone."""
    answers: bool = False
    """Whether to show every answer that was written, verbatim; where a written rubric is served."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One image of a request: bytes, or a URI, and its texts."""

    data: bytes | None
    uri: str | None
    texts: Texts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its images decoded from base64."""

    question: Question
    images: list[EncodedImage] = field(repr=False)


def understood(body: bytes, content_type: str, max_images: int) -> Asked:
    """The question in a body. Raises Refusal: 415 for another content type, 422 for what is malformed."""
    return Asked(*asked_as(Question, MULTIPART_FIELDS, body, content_type, max_images))


def asked_as(
    kind: type[Q], fields: frozenset[str], body: bytes, content_type: str, max_images: int
) -> tuple[Q, list[EncodedImage]]:
    """The question of a kind in a body, and its images with their texts; what it says of an image stays in it.

    fields: of a form, beside `images`. Raises Refusal as `understood` does.
    """
    boundary = boundary_in(content_type)
    if boundary is None:
        return _from_json(kind, body, max_images)
    return _from_multipart(kind, fields, body, boundary, max_images)


def boundary_in(content_type: str) -> bytes | None:
    """The boundary of a form; None for JSON. Raises Refusal (415) for all else."""
    kind, options = options_of(content_type.encode("latin-1"))
    if kind == b"application/json":
        return None
    if kind == b"multipart/form-data":
        return options.get(b"boundary", b"")
    raise Refusal(415, "send application/json, or multipart/form-data with parts named images")


def from_json(body: bytes, max_images: int) -> Asked:
    """The question in a JSON body. Raises Refusal (422) for what is malformed."""
    return Asked(*_from_json(Question, body, max_images))


def _from_json(kind: type[Q], body: bytes, max_images: int) -> tuple[Q, list[EncodedImage]]:
    question, strings = validated(kind, body, "images", max_images)
    prompt = None if question.prompt is None else whole_text(question.prompt, "prompt", strings)
    given = texts_of_prompts(_prompts(question, strings) or prompt, len(question.images))
    images = [
        _encoded(image, place, texts, strings)
        for place, (image, texts) in enumerate(zip(question.images, given, strict=True))
    ]
    bare = [image.model_copy(update={"data": None, "texts": None}) for image in question.images]
    return question.model_copy(update={"images": bare, "prompt": prompt, "prompts": None}), images


def with_prompts(images: Sequence[bytes], prompts: str | Sequence[str | None] | None) -> list[EncodedImage]:
    """The images, each with its prompt. prompts: one for all of them, one for each, or none.

    Raises Refusal (422) where they are more or fewer than the images.
    """
    texts = texts_of_prompts(prompts, len(images))
    return [EncodedImage(data, None, own) for data, own in zip(images, texts, strict=True)]


def validated(model: type[B], body: bytes, images: str, max_images: int) -> tuple[B, LongStrings]:
    """A body as its model says, and its strings that are too long to be validated.

    images: the field whose list has an entry per image; it is counted before anything is validated.
    Raises Refusal (422) for what is malformed.
    """
    values, strings = values_of(body, Room.of(max_images))
    entries = values.get(images) if isinstance(values, dict) else None
    check_count(len(entries) if isinstance(entries, list) else 0, max_images)
    try:
        return model.model_validate(values), strings
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Refusal:
    """The refusal of a body: where and why, without what was sent."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:3]
    return Refusal(422, "; ".join(f"{_place(fault['loc'])}: {fault['msg']}" for fault in faults))


def _place(location: tuple[int | str, ...]) -> str:
    """An unknown field is named by its sender."""
    return ".".join(str(part)[:64] for part in location) or "body"


def check_count(num_images: int, max_images: int) -> None:
    """Raise Refusal (422) for more images than one request may have."""
    if num_images > max_images:
        raise Refusal(422, f"{num_images} images are more than the {max_images} of one request; send several")


def from_base64(pieces: Iterable[str], field: str) -> bytes:
    """The bytes of a base64 text or data URI. Raises Refusal (422), which names the field where it stands."""
    try:
        return bytes_of_pieces(pieces)
    except ValueError as error:
        raise Refusal(422, f"{field}: {error}") from None


def _encoded(image: ImageInput, place: int, prompts: Texts, strings: LongStrings) -> EncodedImage:
    return encoded(image, place, strings, {**prompts, **_texts(image, place, strings)})


def encoded(image: ImageSource, place: int, strings: LongStrings, texts: Texts = MappingProxyType({})) -> EncodedImage:
    """An image of a JSON body, with its texts. Raises Refusal (422) where it is no base64. place: among the images."""
    if image.data is None:
        return EncodedImage(None, image.uri, texts)
    return EncodedImage(from_base64(strings.pieces(image.data), f"images.{place}.data"), None, texts)


def _prompts(question: RubricQuestion, strings: LongStrings) -> list[str | None] | None:
    """One per image, or None where there are none. Raises Refusal (422) for another number, before any is read."""
    if question.prompts is None:
        return None
    check_number(question.prompts, len(question.images))
    return [text and whole_text(text, f"prompts.{place}", strings) for place, text in enumerate(question.prompts)]


def _texts(image: ImageInput, place: int, strings: LongStrings) -> Texts:
    texts: dict[str, str | None] = {}
    num_characters = 0
    for slot, text in (image.texts or {}).items():
        texts[slot] = whole = text and whole_text(text, f"images.{place}.texts.{slot[:64]}", strings)
        num_characters += len(whole or "")
        if num_characters > MAX_TEXT:
            raise Refusal(422, f"images.{place}.texts: together they have more than {MAX_TEXT} characters")
    return texts


def whole_text(text: str, field: str, strings: LongStrings) -> str:
    """A text of a JSON body, which may be too long to be validated there. Raises Refusal (422) above MAX_TEXT."""
    try:
        return strings.text(text, MAX_TEXT)
    except ValueError as error:
        raise Refusal(422, f"{field}: {error}") from None


def _from_multipart(
    kind: type[Q], fields: frozenset[str], body: bytes, boundary: bytes, max_images: int
) -> tuple[Q, list[EncodedImage]]:
    question, images = from_form(kind, body, boundary, max_images, fields)
    prompts = question.prompt if question.prompts is None else question.prompts
    return question.model_copy(update={"prompts": None}), with_prompts(images, prompts)


def from_form(
    model: type[B], body: bytes, boundary: bytes, max_images: int, names: frozenset[str]
) -> tuple[B, list[bytes]]:
    """The fields of a form as a model says, with a stand-in for its images, and the images.

    names: of the fields beside `images`. Raises Refusal (422) for what is malformed.
    """
    images: list[bytes] = []
    fields: dict[str, Any] = {}
    for part in parts_of(body, boundary, 2 * max_images + MAX_FORM_PARTS):
        name = part.name
        if name == "images":
            check_count(len(images) + 1, max_images)
            images.append(_file(part, len(images)))
        elif name not in names or (name in fields and name not in LISTS):
            raise Refusal(422, f"multipart: part {name[:64]!r} is unknown or there twice; images go into `images`")
        elif name in LISTS:
            fields.setdefault(name, []).append(_text(part))
        else:
            fields[name] = _text(part)
    if not images:
        raise Refusal(422, "images: no part of this name")
    try:
        return model.model_validate({"images": [{"uri": ""}], **fields}), images
    except ValidationError as error:
        raise invalid(error) from None


def _file(part: Part, place: int) -> bytes:
    """The image in a part, which is in base64 where the part says so (libraries for mail do that)."""
    coding = part.headers.get(b"content-transfer-encoding", b"binary").strip().lower()
    if coding == b"base64":
        return from_base64(part.latin_pieces(), f"images.{place}")
    if coding not in (b"binary", b"8bit", b"7bit"):
        raise Refusal(422, f"images.{place}: send it as it is, without Content-Transfer-Encoding, or in base64")
    return part.content


def _text(part: Part) -> str:
    """The text in a part that holds no image. Raises Refusal (422) where it is longer than any may be, or no UTF-8."""
    if part.num_bytes > 4 * MAX_TEXT:
        raise Refusal(422, f"{part.name}: it has more than {MAX_TEXT} characters")
    try:
        return part.content.decode()
    except UnicodeDecodeError:
        raise Refusal(422, f"multipart: part {part.name!r} is not UTF-8") from None
