"""Encoded images, their texts and boxes -> requests to an endpoint, and how its answers are read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from iqa_core.endpoint.answers import Description, Score, descriptions_of, models_of, scores_of
from iqa_core.endpoint.groundings import Grounding, groundings_of

T = TypeVar("T")

BYTES_PER_REQUEST = 32 * 2**20
"""Half of what an endpoint takes unless it is told otherwise."""

MAX_TEXT = 16_384
"""Characters of all texts of an image that an endpoint reads; its slots together take no more."""

Texts: TypeAlias = Mapping[str, str | None]
"""Slot of the endpoint's rubric -> an image's text."""
Box: TypeAlias = tuple[float, float, float, float]
"""x, y, width and height, in pixels of the image as it is shown."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One image to send, and what is said of it."""

    data: bytes
    prompt: str | None
    """None where no image of the call has one."""
    texts: Texts | None
    boxes: tuple[Box, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Of the image and its texts."""
        return len(self.data) + len(self.prompt or "") + sum(len(text or "") for text in (self.texts or {}).values())

    def as_json(self) -> dict[str, Any]:
        """The image among those of a JSON body."""
        given = {**({} if self.prompt is None else {"prompt": self.prompt}), **(self.texts or {})}
        texts = {slot: text and _sendable(text) for slot, text in given.items()}
        if sum(map(len, filter(None, texts.values()))) > MAX_TEXT:
            share = MAX_TEXT // len(texts)  # more than a slot takes where there are no more texts than slots
            texts = {slot: text and text[:share] for slot, text in texts.items()}
        return {"data": base64.b64encode(self.data).decode(), "texts": texts}


@dataclass(frozen=True)
class Request(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    content: Mapping[str, Any]
    """What httpx2 takes as a body."""
    read: Callable[[Any], T]
    """Raises ValueError where it is no such answer."""


MODELS = Request("GET", "/v1/models", {}, models_of)


def in_parts(images: Sequence[Asked], most: int) -> Iterator[list[Asked]]:
    """The images of each request, in order. most: of one request."""
    part: list[Asked] = []
    size = 0
    for image in images:
        if part and (len(part) == most or size + image.num_bytes > BYTES_PER_REQUEST):
            yield part
            part, size = [], 0
        part.append(image)
        size += image.num_bytes
    if part:
        yield part


def assessing(part: Sequence[Asked], probs: bool, rubric: str | None) -> Request[list[Score]]:
    """The request for scores of some images; those with texts of their own go as JSON."""
    chosen = {} if rubric is None else {"rubric": rubric}
    content: dict[str, Any]
    if any(image.texts is not None for image in part):
        content = {"json": {"images": [image.as_json() for image in part], "probs": probs, **chosen}}
    else:
        prompts = _prompts([image.prompt for image in part])
        content = {"files": _files(part), "data": {"probs": str(probs).lower(), **chosen, **prompts}}
    return Request("POST", "/v1/assess", content, lambda answer: scores_of(answer, len(part), probs))


def grounding(
    part: Sequence[Asked], dimensions: Sequence[str] | None, grid: int, rubric: str | None
) -> Request[list[Grounding]]:
    """The request for local scores of some images."""
    chosen = {"grid": grid, **({} if rubric is None else {"rubric": rubric})}
    named = {} if dimensions is None else {"dimensions": [*dimensions]}
    images = [{**image.as_json(), "boxes": image.boxes} for image in part]
    boxes = [len(image.boxes) for image in part]
    content = {"json": {"images": images, **chosen, **named}}
    return Request("POST", "/v1/ground", content, lambda answer: groundings_of(answer, boxes, grid))


def describing(part: Sequence[Asked], question: str, max_tokens: int | None) -> Request[list[Description]]:
    """The request for an answer in words about each of some images."""
    limit = {} if max_tokens is None else {"max_tokens": str(max_tokens)}
    content = {"files": _files(part), "data": {"question": _sendable(question), **limit}}
    return Request("POST", "/v1/describe", content, lambda answer: descriptions_of(answer, len(part)))


def _files(part: Sequence[Asked]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{place}", image.data, "application/octet-stream")) for place, image in enumerate(part)]


def _prompts(prompts: Sequence[str | None]) -> dict[str, str | list[str]]:
    """Fields of a form, which has no null: a blank prompt says the same."""
    given = [_sendable(prompt) for prompt in prompts if prompt is not None]
    if not given:
        return {}
    return {"prompt": given[0]} if len(set(given)) == 1 else {"prompts": given}


def _sendable(text: str) -> str:
    """The text, no longer than it takes to be told too long; half a surrogate pair, which UTF-8 lacks, as letters."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]
