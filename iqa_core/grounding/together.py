"""Prepared images, each with cells and boxes of its own -> local scores, asked about many images at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_core.assessor.isolation import view_each
from iqa_core.assessor.protocol import Assessor, View
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.locating import Located, Region, located, outside, region
from iqa_core.grounding.parts import Asked, Scores, Views, viewer_of
from iqa_core.records import Assessment, ImageHeader, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LocalQuestion:
    """Which parts of an image are asked about, and in which dimensions."""

    names: tuple[str, ...]
    """In the rubric's order."""
    cells: int
    """Along each side of the image."""
    boxes: tuple[Box, ...] = ()
    """In pixels of the upright image."""

    @property
    def num_views(self) -> int:
        """Parts that are asked about at most, the whole image among them."""
        return 1 + self.cells**2 + len(self.boxes)


@dataclass(frozen=True, slots=True, eq=False)
class ViewedImage:
    """An image as an assessor takes it, and what it is asked."""

    pixels_HWC: NDArray[np.uint8]
    header: ImageHeader
    texts: Mapping[str, str]
    """One for each slot of the rubric."""
    question: LocalQuestion


@dataclass(frozen=True, slots=True, eq=False)
class Grounded:
    """What is said of the parts of one image."""

    dimensions: Mapping[str, Located]
    regions: tuple[Region | Rejection, ...]
    """One per box, in order."""


def ground_each(assessor: Assessor, images: Sequence[ViewedImage]) -> list[Grounded | Rejection]:
    """One result per image, in order, as `locate` and `assess_regions` give them, from one call for all alike.

    Images are alike if they are asked about the same dimensions. One that has no such cells is rejected, and so is one
    on which the assessor fails, which costs no other. Raises CallerError for a model that cannot be asked so.
    """
    results: dict[int, Grounded | Rejection] = {}
    by_names: dict[tuple[str, ...], dict[int, _Parts]] = {}
    for place, image in enumerate(images):
        parts = _Parts.of(assessor, image)
        if isinstance(parts, Rejection):
            results[place] = parts
        else:
            by_names.setdefault(image.question.names, {})[place] = parts
    for names, alike in by_names.items():
        own = [images[place] for place in alike]
        found = view_each(
            viewer_of(assessor),
            [image.pixels_HWC for image in own],
            [parts.asked for parts in alike.values()],
            names,
            [image.texts for image in own] if assessor.rubric.slots else None,
        )
        results.update((place, parts.read(one)) for (place, parts), one in zip(alike.items(), found, strict=True))
    return [results[place] for place in range(len(images))]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of one image."""

    views: Views
    cells: Sequence[View]
    boxes: Sequence[Box | None]
    """What of each box lies in the image."""

    @classmethod
    def of(cls, assessor: Assessor, image: ViewedImage) -> _Parts | Rejection:
        question, header = image.question, image.header
        asked = Asked(assessor, question.names, image.texts)
        views = Views.over(asked, header, viewer_of(assessor), image.pixels_HWC)
        if isinstance(views, Rejection):
            return views
        try:
            cells = views.cells(question.cells)
        except ValueError as error:
            return Rejection(Reason.TOO_SMALL, str(error), header)
        return cls(views, cells, [box.inside(header.width, header.height) for box in question.boxes])

    @property
    def asked(self) -> list[View]:
        """The whole image, its cells, and its boxes, but for those outside."""
        return [self.views.whole, *self.cells, *(self.views.of_box(box) for box in self.boxes if box is not None)]

    def read(self, found: Sequence[Assessment | Rejection] | Rejection) -> Grounded | Rejection:
        """What is said of the image. found: of each part that is asked."""
        asked = self.asked
        count = 1 + len(self.cells)
        every = self.views.scores_of(asked, found)
        scores: list[Scores] = []
        for one in every[:count]:
            if isinstance(one, Rejection):
                return one
            scores.append(one)
        outlines = [self.views.outline(cell) for cell in self.cells]
        of_boxes = iter(zip(asked[count:], every[count:], strict=True))
        regions = [
            outside(self.views) if box is None else region(self.views, box, *next(of_boxes)) for box in self.boxes
        ]
        return Grounded(located(self.views.asked.assessor.rubric.columns, scores, outlines), tuple(regions))
