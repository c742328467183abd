"""An image -> its parts, and what an assessor says of each: by views of its visual tokens, or by tiles cut from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.protocol import Assessor, View, Viewer
from iqa_core.errors import CallerError
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.tokens import TokenGrid
from iqa_core.images.preparing import Preparable
from iqa_core.records import Assessment, ImageHeader, Reason, Rejection, RgbImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_TOKENS = 3
"""Visual tokens along a side, below which an image has no views."""

P = TypeVar("P")
Scores = Mapping[str, float]
"""Dimension -> score, in the dimension's own range."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which dimensions an assessor is asked about, with the texts of the rubric's slots."""

    assessor: Assessor
    names: tuple[str, ...]
    """In the rubric's order."""
    texts: Mapping[str, str]

    @property
    def slot_texts(self) -> list[Mapping[str, str]] | None:
        """As `Assessor.assess` takes those of one image."""
        return [self.texts] if self.assessor.rubric.slots else None


class Parts(ABC, Generic[P]):
    """The parts of an image by one method; P is what a part is to it."""

    def __init__(self, asked: Asked, header: ImageHeader) -> None:
        self.asked = asked
        self.width, self.height = header.width, header.height

    @property
    @abstractmethod
    def whole(self) -> P:
        """The image, whose scores are those that it has anyway."""

    @abstractmethod
    def cells(self, side: int) -> Sequence[P]:
        """Its side x side cells, row by row. Raises ValueError where they are too many."""

    @abstractmethod
    def of_box(self, box: Box) -> P:
        """The part that a box inside the image stands for."""

    @abstractmethod
    def outline(self, part: P) -> Box:
        """Where a part lies, in pixels of the upright image."""

    @abstractmethod
    def num_tokens(self, part: P) -> int | None:
        """Visual tokens that questions about a part see; None where they see an image of its own."""

    @abstractmethod
    def scores(self, parts: Sequence[P]) -> list[Scores | Rejection]:
        """What is said of each part."""

    def _scores(self, found: Assessment | Rejection, names: Sequence[str]) -> Scores | Rejection:
        """The scores that were asked for. names: of an assessment's dimensions."""
        if isinstance(found, Rejection):
            return found
        scores = dict(zip(names, map(float, found.scores_K), strict=True))
        return {name: scores[name] for name in self.asked.names}


class Views(Parts[View]):
    """The whole image goes through the model once, and each question sees some of its visual tokens."""

    def __init__(self, asked: Asked, header: ImageHeader, viewer: Viewer, prepared: NDArray[np.uint8]) -> None:
        super().__init__(asked, header)
        self._viewer = viewer
        self._prepared = prepared
        self._grid = TokenGrid(*viewer.view_grid(prepared))

    @classmethod
    def of(cls, asked: Asked, image: Preparable) -> Views | Rejection:
        """Raises CallerError when the assessor cannot be asked so."""
        viewer = asked.assessor
        if not isinstance(viewer, Viewer):
            raise no_views(viewer)
        prepared = image.prepare()
        if isinstance(prepared, Rejection):
            return prepared
        made = cls(asked, image.probe.header, viewer, prepared)
        return few_tokens(made._grid, image.probe.header) or made

    @property
    def whole(self) -> View:
        """See `Parts.whole`."""
        return self._grid.everything

    def cells(self, side: int) -> Sequence[View]:
        """See `Parts.cells`."""
        return self._grid.cells(side)

    def of_box(self, box: Box) -> View:
        """See `Parts.of_box`."""
        return self._grid.within(box, self.width, self.height)

    def outline(self, part: View) -> Box:
        """See `Parts.outline`."""
        return self._grid.outline(part, self.width, self.height)

    def num_tokens(self, part: View) -> int | None:
        """See `Parts.num_tokens`."""
        return len(part)

    def scores(self, parts: Sequence[View]) -> list[Scores | Rejection]:
        """See `Parts.scores`."""
        [found] = self._viewer.assess_views([self._prepared], [parts], self.asked.names, self.asked.slot_texts)
        if isinstance(found, Rejection):
            return [found] * len(parts)
        return [self._scores(one, self.asked.names) for one in found]


def no_views(assessor: Assessor) -> CallerError:
    """The error for an assessor that cannot be asked about views."""
    return CallerError(
        f"{type(assessor).__name__} has no visual tokens that a question could be kept from; "
        'ask about tiles instead (method="tiles"), which are parts of the image as images of their own'
    )


def few_tokens(grid: TokenGrid, header: ImageHeader | None = None) -> Rejection | None:
    """The rejection of an image with too few visual tokens for views; None where they are enough."""
    if min(grid.rows, grid.columns) >= MIN_TOKENS:
        return None
    tokens = f"{grid.rows} x {grid.columns} visual tokens"
    return Rejection(Reason.TOO_SMALL, f"{tokens}: views take {MIN_TOKENS} along a side", header)


class Tiles(Parts[Box]):
    """Each part is cut from the upright image and is assessed as an image of its own."""

    def __init__(self, asked: Asked, image: RgbImage) -> None:
        super().__init__(asked, image.header)
        self._image = image

    @classmethod
    def of(cls, asked: Asked, image: Preparable) -> Tiles | Rejection:
        """The decoded image's parts, or why it cannot be decoded."""
        decoded = image.inspected.decode()
        return decoded if isinstance(decoded, Rejection) else cls(asked, decoded)

    @property
    def whole(self) -> Box:
        """See `Parts.whole`."""
        return Box(0, 0, self.width, self.height)

    def cells(self, side: int) -> Sequence[Box]:
        """See `Parts.cells`."""
        width, height = self.width / side, self.height / side
        smallest = self.asked.assessor.preparer.limits.min_side
        if min(width, height) < smallest:
            raise ValueError(
                f"{side} x {side} cells of {self.width} x {self.height} pixels are below {smallest} pixels"
            )
        return [Box(column * width, row * height, width, height) for row in range(side) for column in range(side)]

    def of_box(self, box: Box) -> Box:
        """See `Parts.of_box`."""
        return box

    def outline(self, part: Box) -> Box:
        """See `Parts.outline`."""
        return part

    def num_tokens(self, part: Box) -> int | None:
        """See `Parts.num_tokens`."""
        return None

    def scores(self, parts: Sequence[Box]) -> list[Scores | Rejection]:
        """See `Parts.scores`."""
        return [self._score(self._cut(part)) for part in parts]

    def _cut(self, part: Box) -> RgbImage | Rejection:
        """Pixels whose centre lies in the part."""
        left, top, right, bottom = (int(np.ceil(side - 0.5)) for side in part.corners)
        pixels = np.ascontiguousarray(self._image.pixels_HWC[top:bottom, left:right])
        height, width = pixels.shape[:2]
        header = ImageHeader(width, height, self._image.header.format, 1)
        smallest = self.asked.assessor.preparer.limits.min_side
        if min(height, width) < smallest:
            return Rejection(
                Reason.TOO_SMALL, f"the tile has {width} x {height} pixels, a side is below {smallest}", header
            )
        return RgbImage(pixels, header)

    def _score(self, tile: RgbImage | Rejection) -> Scores | Rejection:
        if isinstance(tile, Rejection):
            return tile
        assessor = self.asked.assessor
        [found] = assess_each(assessor, [assessor.preparer.prepare(tile)], self.asked.slot_texts)
        return self._scores(found, assessor.rubric.names)
