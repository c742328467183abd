"""Prepared images -> where each is bad, and what is said of its boxes, in one call of the assessor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from iqa_core.assessor.isolation import assess_views_each
from iqa_core.assessor.protocol import Assessor, View, Viewer
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.locating import Located, Region, located_of
from iqa_core.grounding.parts import few_tokens, no_views
from iqa_core.grounding.tokens import TokenGrid
from iqa_core.records import Assessment, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    asked = [_views(TokenGrid(*viewer.view_grid(image.pixels)), image, cells) for image in images]
    there = [i for i, views in enumerate(asked) if not isinstance(views, Rejection)]
    views = [views for views in asked if not isinstance(views, Rejection)]
    texts = [images[i].texts for i in there] if assessor.rubric.slots else None
    found = assess_views_each(viewer, [images[i].pixels for i in there], [one.all for one in views], names, texts)
    said = {
        i: _grounded(assessor, names, images[i], own, results)
        for i, own, results in zip(there, views, found, strict=True)
    }
    return [said[i] if i in said else _rejected(asked[i]) for i in range(len(images))]


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

    @property
    def all(self) -> list[View]:
        """The whole image, its cells, its boxes."""
        return [self.grid.everything, *self.cells, *(box[1] for box in self.boxes if box is not None)]


def _views(grid: TokenGrid, image: Viewable, cells: int) -> _Views | Rejection:
    if (rejection := few_tokens(grid)) is not None:
        return rejection
    try:
        parts = grid.cells(cells)
    except ValueError as error:
        return Rejection(Reason.TOO_SMALL, str(error))
    inside = [box.inside(image.width, image.height) for box in image.boxes]
    boxes = [None if box is None else (box, grid.within(box, image.width, image.height)) for box in inside]
    return _Views(grid, parts, boxes)


def _grounded(
    assessor: Assessor,
    names: Sequence[str],
    image: Viewable,
    views: _Views,
    results: Sequence[Assessment | Rejection] | Rejection,
) -> Grounded | Rejection:
    if isinstance(results, Rejection):
        return results
    columns = [column for column in assessor.rubric.columns if column.name in names]
    scores = []
    for result in results:
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


def _rejected(found: _Views | Rejection) -> Rejection:
    assert isinstance(found, Rejection), "an image with views was asked about"
    return found
