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
    asked = [_views(TokenGrid(*viewer.view_grid(image.pixels)), image, cells) for image in images]
    pieces = [
        (i, piece) for i, views in enumerate(asked) if not isinstance(views, Rejection) for piece in _pieces(views.all)
    ]
    texts = [images[i].texts for i, _ in pieces] if assessor.rubric.slots else None
    found = assess_views_each(viewer, [images[i].pixels for i, _ in pieces], [own for _, own in pieces], names, texts)
    parts: list[list[Sequence[Assessment | Rejection] | Rejection]] = [[] for _ in images]
    for (i, _), part in zip(pieces, found, strict=True):
        parts[i].append(part)
    return [_grounded(assessor, names, *each) for each in zip(images, asked, parts, strict=True)]


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


def _pieces(views: Sequence[View]) -> list[Sequence[View]]:
    """The views of an image, as many as are asked about at once."""
    return [views[begin : begin + MOST_VIEWS] for begin in range(0, len(views), MOST_VIEWS)]


def _grounded(
    assessor: Assessor,
    names: Sequence[str],
    image: Viewable,
    views: _Views | Rejection,
    parts: Sequence[Sequence[Assessment | Rejection] | Rejection],
) -> Grounded | Rejection:
    """parts: what is said of the views, piece by piece."""
    if isinstance(views, Rejection):
        return views
    results: list[Assessment | Rejection] = []
    for part in parts:
        results += [part] if isinstance(part, Rejection) else part
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
