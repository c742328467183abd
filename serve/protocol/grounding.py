"""The body of a request to /v1/ground -> questions about parts of encoded images, and local scores -> JSON.

Coordinates are pixels of the image as it is shown (upright), x to the right, y down. A box is x, y, width and height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, with_config
from typing_extensions import TypedDict

from iqa_core.errors import listed
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.locating import Located, Region
from iqa_core.grounding.question import LocalQuestion
from iqa_core.records import Rejection
from iqa_core.rubrics import AnyRubric, Rubric
from serve.errors import Refusal
from serve.model.asking import AskedLocally
from serve.model.results import DECIMALS, GroundedImage, Grounding, Model
from serve.protocol.answers import DESCRIBED, Head, Rejected, Size, head, rejected, size
from serve.protocol.bodies import MULTIPART_FIELDS, EncodedImage, ImageInput, RubricQuestion, asked_as

MAX_BOXES = 16
"""Of one image."""
CELLS = (2, 4)
"""Fewest and most cells along a side of an image."""
FIELDS = MULTIPART_FIELDS - {"probs", "answers"} | {"grid", "boxes"}
"""Fields of a form beside its images."""


def _numbers(given: object) -> object:
    """The four numbers of a box that a form has as text, `x,y,width,height`. Raises ValueError for true and false."""
    if isinstance(given, list) and any(isinstance(side, bool) for side in given):
        raise ValueError("a box is four numbers, none of which is true or false")
    return given.split(",", 4) if isinstance(given, str) and len(given) <= 256 else given


BoxInput = Annotated[list[float], BeforeValidator(_numbers), Field(min_length=4, max_length=4)]
Boxes = Annotated[list[BoxInput], Field(max_length=MAX_BOXES)]


class GroundedInput(ImageInput):
    """One image, its texts, and its boxes."""

    boxes: Boxes | None = None
    """x, y, width and height of each, in pixels of the upright image. They replace the request's."""


class GroundBody(RubricQuestion):
    """What `/v1/ground` is asked."""

    images: list[GroundedInput] = Field(min_length=1, fail_fast=True)
    grid: int = Field(default=2, ge=CELLS[0], le=CELLS[1])
    """Cells along each side of an image."""
    boxes: Boxes | None = None
    """Boxes of all images that bring none of their own; in a form one part `x,y,width,height` for each."""


@dataclass(frozen=True, slots=True)
class AskedAboutParts:
    """A body with its images decoded from base64."""

    question: GroundBody
    boxes: list[tuple[Box, ...]]
    """Of each image."""
    images: list[EncodedImage] = field(repr=False)

    def about(self, rubric: AnyRubric) -> AskedAboutParts:
        """The question with the dimensions that are meant, in the rubric's order.

        Without any, those are meant that the rubric marks as local. Raises Refusal: 404 where answers are written, 422
        for dimensions that the rubric does not have, and without any where it marks none.
        """
        if not isinstance(rubric, Rubric):
            raise Refusal(404, f"answers to {rubric.id} are written, from the whole image: its parts have no scores")
        asked = self.question.dimensions or rubric.local_names
        if not asked:
            raise Refusal(
                422,
                f"dimensions: rubric {rubric.id} marks none as local; name some that a part of an image has too, of "
                f"{listed(rubric.names)}",
            )
        if unknown := sorted({*asked} - {*rubric.names}):
            raise Refusal(422, f"dimensions: {unknown[0][:64]!r} is none of {listed(rubric.names)}")
        names = [name for name in rubric.names if name in asked]
        return AskedAboutParts(self.question.model_copy(update={"dimensions": names}), self.boxes, self.images)

    @property
    def questions(self) -> list[AskedLocally]:
        """One per image; its dimensions are those that `about` found."""
        names = tuple(self.question.dimensions or ())
        return [
            AskedLocally(LocalQuestion(names, self.question.grid, boxes), image.texts)
            for boxes, image in zip(self.boxes, self.images, strict=True)
        ]


@with_config(DESCRIBED)
class FoundRegion(TypedDict):
    """Where an image is worst in a dimension."""

    method: Literal["views"]
    cell: list[int]
    """Row and column, from 0 at the upper left."""
    box: list[float]
    """x, y, width and height."""
    score: float


@with_config(DESCRIBED)
class Point(TypedDict):
    """The centre of the worst cell."""

    x: float
    y: float
    relative: list[float]
    """x and y as fractions of the image's sides."""


@with_config(DESCRIBED)
class LocatedPart(TypedDict):
    """What is said of one dimension. Some cell is the worst in a flawless image too."""

    status: Literal["located", "unlocated"]
    """`unlocated` where all cells are alike."""
    score: float
    """Of the whole image, as `/v1/assess` gives it."""
    cells: list[list[float]]
    """Scores of the cells, rows from the top."""
    point: Point | None
    """null where it is not located."""
    regions: list[FoundRegion]


@with_config(DESCRIBED)
class BoxScored(TypedDict):
    """A box with scores."""

    status: Literal["scored"]
    box: list[float]
    """The part of it that lies in the image."""
    scores: dict[str, float]
    tokens: int | None
    """Visual tokens that the questions saw."""


@with_config(DESCRIBED)
class BoxRejected(TypedDict):
    """A box without scores."""

    status: Literal["rejected"]
    reason: str
    detail: str


@with_config(DESCRIBED)
class GroundedEntry(Size):
    """An image with local scores."""

    status: Literal["grounded"]
    dimensions: dict[str, LocatedPart]
    boxes: list[BoxScored | BoxRejected]
    """One per box that was sent, in order."""


@with_config(DESCRIBED)
class GroundAnswer(Head):
    """What `/v1/ground` says."""

    coordinates: Literal["upright"]
    """Pixels of the image as it is shown, whatever its EXIF orientation."""
    results: list[GroundedEntry | Rejected]


def asked_about_parts(body: bytes, content_type: str, max_images: int) -> AskedAboutParts:
    """The question in a body. Raises Refusal: 415 for another content type, 422 for what is malformed."""
    question, images = asked_as(GroundBody, FIELDS, body, content_type, max_images)
    everywhere = _boxes(question.boxes or [], "boxes")
    own = [image.boxes for image in question.images] if len(question.images) == len(images) else [None] * len(images)
    boxes = [everywhere if given is None else _boxes(given, f"images.{place}.boxes") for place, given in enumerate(own)]
    return AskedAboutParts(question, boxes, images)


def _boxes(given: Sequence[Sequence[float]], where: str) -> tuple[Box, ...]:
    boxes = []
    for place, sides in enumerate(given):
        try:
            boxes.append(Box(*sides))
        except ValueError as error:
            raise Refusal(422, f"{where}.{place}: {error}") from None
    return tuple(boxes)


def grounded(question: GroundBody, model: Model, results: Sequence[Grounding]) -> GroundAnswer:
    """What is answered, one result per image, in order."""
    return {**head(question, model), "coordinates": "upright", "results": [_entry(one) for one in results]}


def _entry(one: Grounding) -> GroundedEntry | Rejected:
    if isinstance(one, Rejection):
        return rejected(one)
    found = one.found
    return {
        "status": "grounded",
        "dimensions": {name: _part(located, one) for name, located in found.located.items()},
        "boxes": [_box(region) for region in found.regions],
        **size(one.header),
    }


def _part(located: Located, image: GroundedImage) -> LocatedPart:
    cells: list[list[float]] = [[_rounded(score) for score in row] for row in located.cell_scores.tolist()]
    score = _rounded(located.score)
    if located.cell is None or located.box is None:
        return {"status": "unlocated", "score": score, "cells": cells, "point": None, "regions": []}
    row, column = located.cell
    return {
        "status": "located",
        "score": score,
        "cells": cells,
        "point": _point(located.box, image),
        "regions": [
            {"method": "views", "cell": [row, column], "box": _sides(located.box), "score": cells[row][column]}
        ],
    }


def _point(box: Box, image: GroundedImage) -> Point:
    x, y = box.x + box.width / 2, box.y + box.height / 2
    relative = [_rounded(x / image.header.width), _rounded(y / image.header.height)]
    return {"x": _rounded(x), "y": _rounded(y), "relative": relative}


def _box(region: Region | Rejection) -> BoxScored | BoxRejected:
    if isinstance(region, Rejection):
        return {"status": "rejected", "reason": str(region.reason), "detail": region.detail}
    scores = {name: _rounded(score) for name, score in region.scores.items()}
    return {"status": "scored", "box": _sides(region.box), "scores": scores, "tokens": region.num_tokens}


def _sides(box: Box) -> list[float]:
    return [_rounded(side) for side in box]


def _rounded(number: Any) -> float:
    return round(float(number), DECIMALS)
