"""The JSON of an answer of /v1/ground -> local scores, or a ValueError that says where it is no such answer.

Coordinates are pixels of the image as it is shown, x to the right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from iqa_core.endpoint.answers import RATED, Scale, inside, results_of, scales_of, why_rejected
from iqa_core.endpoint.values import list_of, number_of, shown, text_of, value_of

Sides: TypeAlias = tuple[float, float, float, float]
"""x, y, width and height of a box."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the endpoint says that an image is worst in one dimension."""

    score: float
    """Of the whole image."""
    cells: list[list[float]]
    """Scores of the cells, rows from the top."""
    cell: tuple[int, int] | None
    """Row and column of the worst; None where all are alike."""
    box: Sides | None
    """The worst cell; None where `cell` is."""
    point: tuple[float, float] | None
    """x and y of its centre; None where `cell` is: never the centre of the image."""


@dataclass(frozen=True, slots=True)
class BoxScore:
    """What the endpoint says of a box."""

    box: Sides | None
    """The part of it that lies in the image; None where it has no scores."""
    scores: dict[str, float]
    """Dimension -> score; empty where it has none."""
    tokens: int | None
    """Visual tokens that the questions saw: with one or two, little can be said."""
    reason: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Grounding:
    """What the endpoint says of the parts of one image."""

    dimensions: dict[str, Place]
    """Empty when the image was rejected."""
    boxes: list[BoxScore]
    """One per box that was sent, in order."""
    width: int | None
    """Of the image as it is shown, in pixels; None when it was rejected."""
    height: int | None
    reason: str | None
    detail: str | None
    fingerprint: str
    """The model that gave the scores."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a result has to have."""

    scales: Mapping[str, Scale]
    cells: int
    """Along each side."""
    num_boxes: int
    fingerprint: str = field(repr=False)


def groundings_of(answer: Any, num_boxes: Sequence[int], cells: int) -> list[Grounding]:
    """The local scores in an answer, one per image.

    num_boxes: that were sent, of each image. cells: along each side. Raises ValueError where it is no such answer.
    """
    fingerprint = text_of(value_of(answer, "fingerprint", ""), "fingerprint")
    if (frame := value_of(answer, "coordinates", "")) != "upright":
        raise ValueError(f"coordinates is {shown(frame)}, not upright")
    scales = scales_of(answer.get("scales", {}))
    results = results_of(answer, len(num_boxes))
    return [
        _grounding(one, f"results.{place}.", _Expected(scales, cells, count, fingerprint))
        for place, (one, count) in enumerate(zip(results, num_boxes, strict=True))
    ]


def _grounding(result: Any, where: str, expected: _Expected) -> Grounding:
    status = value_of(result, "status", where)
    if status == "rejected":
        why = why_rejected(result, where, {"dimensions", "boxes"})
        return Grounding({}, [], None, None, *why, expected.fingerprint)
    if status != "grounded":
        raise ValueError(f"{where}status is {shown(status)}, neither grounded nor rejected")
    found = value_of(result, "dimensions", where)
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{where}dimensions is {shown(found)}, no places by dimension")
    places = {name: _place(one, name, f"{where}dimensions.{name[:64]}.", expected) for name, one in found.items()}
    boxes = list_of(value_of(result, "boxes", where), expected.num_boxes, f"{where}boxes")
    scored = [_box_score(one, places.keys(), f"{where}boxes.{i}.", expected) for i, one in enumerate(boxes)]
    width, height = (int(_positive(result, side, where)) for side in ("width", "height"))
    return Grounding(places, scored, width, height, None, None, expected.fingerprint)


def _place(found: Any, name: str, where: str, expected: _Expected) -> Place:
    scale = expected.scales.get(name, RATED)
    score = inside(value_of(found, "score", where), scale, f"{where}score")
    rows = list_of(value_of(found, "cells", where), expected.cells, f"{where}cells")
    cells = [
        [
            inside(one, scale, f"{where}cells.{r}.{c}")
            for c, one in enumerate(list_of(row, expected.cells, f"{where}cells.{r}"))
        ]
        for r, row in enumerate(rows)
    ]
    status = value_of(found, "status", where)
    if status not in ("located", "unlocated"):
        raise ValueError(f"{where}status is {shown(status)}, neither located nor unlocated")
    regions = list_of(value_of(found, "regions", where), int(status == "located"), f"{where}regions")
    if not regions:
        return Place(score, cells, None, None, None)
    inner = f"{where}regions.0."
    cell = list_of(value_of(regions[0], "cell", inner), 2, f"{inner}cell")
    row, column = (int(number_of(one, 0, expected.cells - 1, f"{inner}cell.{i}")) for i, one in enumerate(cell))
    point = value_of(found, "point", where)
    x, y = (number_of(value_of(point, axis, f"{where}point."), 0, math.inf, f"{where}point.{axis}") for axis in "xy")
    return Place(score, cells, (row, column), _sides(regions[0], inner), (x, y))


def _box_score(found: Any, names: Any, where: str, expected: _Expected) -> BoxScore:
    status = value_of(found, "status", where)
    if status == "rejected":
        return BoxScore(None, {}, None, *why_rejected(found, where, {"scores", "box"}))
    if status != "scored":
        raise ValueError(f"{where}status is {shown(status)}, neither scored nor rejected")
    scores = value_of(found, "scores", where)
    if not isinstance(scores, dict) or scores.keys() != names:
        raise ValueError(f"{where}scores has other dimensions than the image")
    values = {
        name: inside(one, expected.scales.get(name, RATED), f"{where}scores.{name[:64]}")
        for name, one in scores.items()
    }
    return BoxScore(_sides(found, where), values, int(_positive(found, "tokens", where)), None, None)


def _sides(found: Any, where: str) -> Sides:
    sides = list_of(value_of(found, "box", where), 4, f"{where}box")
    x, y, width, height = (number_of(one, 0, math.inf, f"{where}box.{i}") for i, one in enumerate(sides))
    return x, y, width, height


def _positive(found: Any, name: str, where: str) -> float:
    return number_of(value_of(found, name, where), 1, 2**31, f"{where}{name}")
