"""Prepared images -> where each is bad, and what is said of its boxes, in one call of the assessor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from iqa_core.assessor.isolation import assess_views_each, assess_with_views_each
from iqa_core.assessor.protocol import Assessor, View, Viewer
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.locating import Located, Region, located_of
from iqa_core.grounding.parts import few_tokens, no_views
from iqa_core.grounding.tokens import TokenGrid
from iqa_core.questions import Column
from iqa_core.records import Assessment, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MOST_VIEWS = 64
"""Views of one image that are asked about at once; for more, it goes through the model again."""


@dataclass(frozen=True, slots=True, eq=False)
class Viewable:
    """An image that is prepared for an assessor with views."""

    pixels: NDArray[np.uint8]
    """(H, W, 3), as the assessor's preparer made them."""
    width: int
    """Of the upright original, in pixels."""
    height: int
    boxes: Sequence[Box] = ()
    """In pixels of the upright original; they may reach beyond it, or lie outside."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Slot of the rubric -> text."""


@dataclass(frozen=True, slots=True, eq=False)
class Grounded:
    """What is said of the parts of an image."""

    located: Mapping[str, Located]
    """Dimension -> where the image is worst in it, in the rubric's order."""
    regions: tuple[Region | Rejection, ...]
    """One per box, in order; a box that lies outside the image is a Rejection in its place."""


def ground_each(
    assessor: Assessor, images: Sequence[Viewable], names: Sequence[str], cells: int
) -> list[Grounded | Rejection]:
    """One result per image, in order: of its cells x cells cells, as `locate` has them, and of its boxes.

    An image is the same alone or beside others, with boxes or without. One that the assessor fails on, or that has too
    few visual tokens, is a Rejection. names: dimensions, in any order.
    Raises CallerError for a model without views, AssessorBroken when the fault is the accelerator's.
    """
    viewer = viewer_of(assessor)
    asked = [_views(viewer, image, cells) for image in images]
    wholes = [[] if isinstance(views, Rejection) else [views.grid.everything] for views in asked]
    found = _views_said(
        assessor, images, [own + _parts(views) for own, views in zip(wholes, asked, strict=True)], names
    )
    columns = _columns(assessor, names)
    return [
        _grounded(columns, image, views, found[i]) for i, (image, views) in enumerate(zip(images, asked, strict=True))
    ]


def assess_and_ground_each(
    assessor: Assessor, images: Sequence[Viewable], names: Sequence[str], cells: int
) -> list[tuple[Assessment | Rejection, Grounded | Rejection]]:
    """What `assess_each` says of each image, and what `ground_each` does, while it goes through the model once.

    The score of a whole image is that of its assessment, to the last bit. An image with too few visual tokens for
    parts has its assessment all the same. Arguments and errors: as `ground_each`.
    """
    viewer = viewer_of(assessor)
    asked = [_views(viewer, image, cells) for image in images]
    parts = [_parts(views) for views in asked]
    pixels, texts = [image.pixels for image in images], _texts(assessor, images)
    first = assess_with_views_each(viewer, pixels, [own[:MOST_VIEWS] for own in parts], names, texts)
    rest = _views_said(assessor, images, [own[MOST_VIEWS:] for own in parts], names)
    columns = _columns(assessor, names)
    results: list[tuple[Assessment | Rejection, Grounded | Rejection]] = []
    for image, views, one, more in zip(images, asked, first, rest, strict=True):
        if isinstance(one, Rejection):
            results.append((one, one))
            continue
        said = more if isinstance(more, Rejection) else [_some(assessor, one.assessment, names), *one.views, *more]
        results.append((one.assessment, _grounded(columns, image, views, said)))
    return results


def passes_of(cells: int, boxes: int) -> int:
    """How often an image goes through the model that is asked about as a whole, in cells x cells cells and in boxes."""
    return ceil((1 + cells * cells + boxes) / MOST_VIEWS)


def _texts(assessor: Assessor, images: Sequence[Viewable]) -> list[Mapping[str, str]] | None:
    return [image.texts for image in images] if assessor.rubric.slots else None


def _views_said(
    assessor: Assessor, images: Sequence[Viewable], views: Sequence[Sequence[View]], names: Sequence[str]
) -> list[list[Assessment | Rejection] | Rejection]:
    """What is said of the views of each image, MOST_VIEWS at once."""
    pieces = [
        (i, own[begin : begin + MOST_VIEWS]) for i, own in enumerate(views) for begin in range(0, len(own), MOST_VIEWS)
    ]
    asked = [images[i] for i, _ in pieces]
    found = assess_views_each(
        viewer_of(assessor),
        [image.pixels for image in asked],
        [own for _, own in pieces],
        names,
        _texts(assessor, asked),
    )
    said: list[list[Assessment | Rejection] | Rejection] = [[] for _ in images]
    for (i, _), part in zip(pieces, found, strict=True):
        before = said[i]
        if not isinstance(before, Rejection):
            said[i] = part if isinstance(part, Rejection) else before + part
    return said


def viewer_of(assessor: Assessor) -> Viewer:
    """The assessor as one that has views. Raises CallerError where it has none."""
    if not isinstance(assessor, Viewer):
        raise no_views(assessor)
    return assessor


@dataclass(frozen=True, slots=True)
class _Views:
    """What is asked about one image."""

    grid: TokenGrid
    cells: Sequence[View]
    boxes: Sequence[tuple[Box, View] | None]
    """A box's part inside the image, and its tokens; None where it lies outside."""


def _views(viewer: Viewer, image: Viewable, cells: int) -> _Views | Rejection:
    grid = TokenGrid(*viewer.view_grid(image.pixels))
    if (rejection := few_tokens(grid)) is not None:
        return rejection
    try:
        parts = grid.cells(cells)
    except ValueError as error:
        return Rejection(Reason.TOO_SMALL, str(error))
    inside = [box.inside(image.width, image.height) for box in image.boxes]
    boxes = [None if box is None else (box, grid.within(box, image.width, image.height)) for box in inside]
    return _Views(grid, parts, boxes)


def _parts(views: _Views | Rejection) -> list[View]:
    """The cells of an image, then its boxes; none where it has no cells."""
    if isinstance(views, Rejection):
        return []
    return [*views.cells, *(box[1] for box in views.boxes if box is not None)]


def _columns(assessor: Assessor, names: Sequence[str]) -> list[Column]:
    """Those of the rubric's that are asked about, in its order."""
    return [column for column in assessor.rubric.columns if column.name in names]


def _some(assessor: Assessor, found: Assessment | Rejection, names: Sequence[str]) -> Assessment | Rejection:
    """What was found of all dimensions, of these alone."""
    if isinstance(found, Rejection):
        return found
    return found.of([k for k, column in enumerate(assessor.rubric.columns) if column.name in names])


def _grounded(
    columns: Sequence[Column],
    image: Viewable,
    views: _Views | Rejection,
    found: Sequence[Assessment | Rejection] | Rejection,
) -> Grounded | Rejection:
    """found: what is said of the whole image, of its cells, of its boxes."""
    if isinstance(views, Rejection):
        return views
    if isinstance(found, Rejection):
        return found
    scores = []
    for result in found:
        if isinstance(result, Rejection):
            return result
        scores.append(dict(zip([column.name for column in columns], map(float, result.scores_K), strict=True)))
    count = 1 + len(views.cells)
    outlines = [views.grid.outline(cell, image.width, image.height) for cell in views.cells]
    located = {
        column.name: located_of(column, [one[column.name] for one in scores[:count]], outlines) for column in columns
    }
    said = iter(scores[count:])
    outside = Rejection(Reason.TOO_SMALL, f"no part of the box lies in the {image.width} x {image.height} pixels")
    regions = tuple(outside if box is None else Region(box[0], next(said), len(box[1])) for box in views.boxes)
    return Grounded(located, regions)
