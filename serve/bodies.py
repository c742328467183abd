"""The body of a request, JSON or multipart -> a validated question about encoded images.

Raises `Refusal` (415, 422) on whatever is malformed: a request is understood as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from iqa_core.base64_text import bytes_of
from serve.errors import Refusal

MULTIPART_FIELDS = frozenset({"rubric", "dimensions", "probs", "prompt", "request_id"})
MAX_TEXT = 16_384
"""Characters of a prompt: far more than any text encoder reads."""


class ImageInput(BaseModel):
    """One image: itself, or where it lies."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    data: str | None = Field(default=None, examples=["data:image/png;base64,iVBORw0KGgo…"])
    """The encoded file in base64, in either alphabet, broken into lines or not, with or without `data:…;base64,`."""
    uri: str | None = None
    """Fetched by the endpoint if its operator allows it; else the image is rejected as `forbidden`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ImageInput:
        if (self.data is None) == (self.uri is None):
            raise ValueError("give either data or uri")
        if self.uri is not None and self.uri[:5].lower() == "data:":
            raise ValueError("a data URI goes into data")
        return self


class Question(BaseModel):
    """What `/v1/assess` and `/v1/rank` are asked."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    images: list[ImageInput] = Field(min_length=1)
    rubric: str | None = None
    """Must be the one that is served (see /v1/models), so that nobody reads other scores than they meant."""
    dimensions: list[str] | None = Field(default=None, min_length=1)
    """Those to show; the reward is that of all dimensions in any case."""
    probs: bool = False
    """Also the probabilities of the five levels."""
    prompt: str | None = Field(default=None, max_length=MAX_TEXT)
    """What the images were made from. Carried back; the score does not depend on it."""
    request_id: str | None = Field(default=None, max_length=256)
    """Carried back."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One image of a request: bytes, or a URI."""

    data: bytes | None
    uri: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its images decoded from base64."""

    question: Question
    images: list[EncodedImage] = field(repr=False)


def understood(body: bytes, content_type: str, max_images: int) -> Asked:
    """The question in a body."""
    kind, options = parse_options_header(content_type)
    if kind == b"application/json":
        return from_json(body, max_images)
    if kind == b"multipart/form-data":
        return _from_multipart(body, options, max_images)
    raise Refusal(415, "send application/json, or multipart/form-data with parts named images")


def from_json(body: bytes, max_images: int) -> Asked:
    try:
        question = Question.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None
    check_count(len(question.images), max_images)
    images = [_encoded(image, place) for place, image in enumerate(question.images)]
    return Asked(question.model_copy(update={"images": []}), images)


def invalid(error: ValidationError) -> Refusal:
    """Where and why, without what was sent."""
    faults = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors()[:3]]
    return Refusal(422, "; ".join(faults))


def check_count(num_images: int, max_images: int) -> None:
    if num_images > max_images:
        raise Refusal(422, f"{num_images} images are more than the {max_images} of one request; send several")


def from_base64(text: str, field: str) -> bytes:
    """The bytes of a base64 text or data URI; field: where it stands, for the message."""
    try:
        return bytes_of(text)
    except ValueError as error:
        raise Refusal(422, f"{field}: {error}") from None


def _encoded(image: ImageInput, place: int) -> EncodedImage:
    return EncodedImage(None if image.data is None else from_base64(image.data, f"images.{place}.data"), image.uri)


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)

    @property
    def name(self) -> str:
        kind, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"")
        if kind != b"form-data" or not name.isascii():
            raise Refusal(422, "multipart: a part has no name")
        return name.decode()


def _from_multipart(body: bytes, options: Mapping[bytes, bytes], max_images: int) -> Asked:
    images: list[EncodedImage] = []
    fields: dict[str, Any] = {}
    for part in _parts(body, options.get(b"boundary", b""), max_images + 2 * len(MULTIPART_FIELDS) + 64):
        name = part.name
        if name == "images":
            images.append(EncodedImage(_file(part, len(images)), None))
        elif name == "dimensions":
            fields.setdefault(name, []).append(_text(part))
        elif name not in MULTIPART_FIELDS or name in fields:
            raise Refusal(422, f"multipart: part {name[:64]!r} is unknown or there twice; images go into `images`")
        else:
            fields[name] = _text(part)
    if not images:
        raise Refusal(422, "images: no part of this name")
    check_count(len(images), max_images)
    try:
        question = Question.model_validate({"images": [{"uri": ""}], **fields})
    except ValidationError as error:
        raise invalid(error) from None
    return Asked(question.model_copy(update={"images": []}), images)


def _file(part: _Part, place: int) -> bytes:
    """Of a part named images, in base64 where it says so (libraries for mail do that)."""
    coding = part.headers.get(b"content-transfer-encoding", b"binary").strip().lower()
    if coding == b"base64":
        return from_base64(bytes(part.content).decode("latin-1"), f"images.{place}")
    if coding not in (b"binary", b"8bit", b"7bit"):
        raise Refusal(422, f"images.{place}: send it as it is, without Content-Transfer-Encoding, or in base64")
    return bytes(part.content)


def _text(part: _Part) -> str:
    try:
        return bytes(part.content).decode()
    except UnicodeDecodeError:
        raise Refusal(422, f"multipart: part {part.name!r} is not UTF-8") from None


def _parts(body: bytes, boundary: bytes, max_parts: int) -> list[_Part]:
    parts: list[_Part] = []
    names: list[bytearray] = [bytearray(), bytearray()]  # of the header being read: its name and its value
    is_ended = False

    def begin() -> None:
        if len(parts) == max_parts:
            raise Refusal(422, f"multipart: more than {max_parts} parts")
        parts.append(_Part())

    def header_end() -> None:
        parts[-1].headers[bytes(names[0]).lower()] = bytes(names[1])
        names[:] = [bytearray(), bytearray()]

    def end() -> None:
        nonlocal is_ended
        is_ended = True

    callbacks: Any = {
        "on_part_begin": begin,
        "on_header_field": lambda data, start, stop: names[0].extend(data[start:stop]),
        "on_header_value": lambda data, start, stop: names[1].extend(data[start:stop]),
        "on_header_end": header_end,
        "on_part_data": lambda data, start, stop: parts[-1].content.extend(data[start:stop]),
        "on_end": end,
    }
    try:
        MultipartParser(boundary, callbacks).write(body)
    except (FormParserError, ValueError):
        raise Refusal(422, "the multipart body is malformed") from None
    if not is_ended:
        raise Refusal(422, "the multipart body is cut")
    return parts
