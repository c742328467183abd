"""An image -> local scores: of the cells of a grid, the worst of which is named, or of boxes that somebody brings.

In a notebook:

    from iqa_core.assessor.direct import load_assessor
    from iqa_core.grounding.locating import assess_regions, locate
    assessor = load_assessor("demo")
    locate(assessor, "kitchen.jpg")["distortion"].box
    assess_regions(assessor, "kitchen.jpg", [(120, 40, 64, 64)])

A local score is the answer to the ordinary question while it may see only the visual tokens of a part of the image
("views"); the tokens are those of the whole image, which goes through the model once. "tiles" cuts the image instead
and assesses each part as an image of its own, which any model can.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from iqa_core.assessor.direct import encoded, texts_asked
from iqa_core.assessor.protocol import Assessor
from iqa_core.errors import CallerError
from iqa_core.grounding.boxes import Box
from iqa_core.grounding.parts import Asked, Parts, Scores, Tiles, Views
from iqa_core.grounding.tokens import as_bytes
from iqa_core.images.in_memory import ImageLike
from iqa_core.images.preparing import probe
from iqa_core.questions import Column
from iqa_core.records import Reason, Rejection
from iqa_core.rubrics import AnyRubric, Rubric
from iqa_core.slots import TextLimits

if TYPE_CHECKING:
    from numpy.typing import NDArray

Method = Literal["views", "tiles"]
Unit = Literal["pixels", "fractions"]


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Where an image is worst in one dimension."""

    score: float
    """Of the whole image, as it is scored anyway."""
    cell_scores: NDArray[np.float32]
    """Of each cell, (rows, columns), in the dimension's own range."""
    cell: tuple[int, int] | None
    """Row and column of the worst, of the first of several; None where all cells are alike, or there is one."""
    box: Box | None
    """The worst cell, in pixels of the upright image; None where `cell` is."""
    falls: NDArray[np.float32]
    """By how much each cell is worse than the best one, (rows, columns), in points of 1 to 5."""

    @property
    def map(self) -> tuple[NDArray[np.uint8], float]:
        """`falls` as a small picture, white where it is worst, and the fall that white stands for."""
        return as_bytes(self.falls)


@dataclass(frozen=True, slots=True)
class Region:
    """What is said of a box that somebody brought."""

    box: Box
    """The part of it that lies in the image, in pixels of the upright image."""
    scores: Scores
    num_tokens: int | None
    """Visual tokens that the questions saw; None for tiles."""


def locate(
    assessor: Assessor,
    image: ImageLike,
    names: Iterable[str] | None = None,
    *,
    cells: int = 2,
    method: Method = "views",
    text: object = None,
) -> dict[str, Located] | Rejection:
    """Dimension -> where the image is worst in it; or why the image cannot be read, or has no such cells.

    It says where, not whether: some cell is the worst unless all are alike. So ask it about images that were selected.
    names: dimensions; None takes those that the rubric marks as `local`. cells: along each side of the image. text: as
    `assess_images` takes one, where the rubric has slots.
    Raises CallerError where the rubric has no such dimensions, and with "views" for a model that cannot be asked so.
    """
    side = _side(cells)
    parts = _parts(assessor, image, names, method, text)
    if isinstance(parts, Rejection):
        return parts
    try:
        asked = [parts.whole, *parts.cells(side)]
    except ValueError as error:
        return Rejection(Reason.TOO_SMALL, str(error))
    scores: list[Scores] = []
    for found in parts.scores(asked):
        if isinstance(found, Rejection):
            return found
        scores.append(found)
    outlines = [parts.outline(part) for part in asked[1:]]
    columns = [column for column in assessor.rubric.columns if column.name in scores[0]]
    return {column.name: located_of(column, [one[column.name] for one in scores], outlines) for column in columns}


def assess_regions(
    assessor: Assessor,
    image: ImageLike,
    boxes: Iterable[Box | Sequence[float]],
    names: Iterable[str] | None = None,
    *,
    unit: Unit = "pixels",
    method: Method = "views",
    text: object = None,
) -> list[Region | Rejection]:
    """One result per box, in order; a box that lies outside the image is a Rejection in its place.

    boxes: x, y, width and height of the image as it is shown, which is upright, whatever its EXIF orientation.
    unit: of the boxes: pixels, or fractions of the image's sides. Other arguments and errors: as `locate`; raises
    CallerError on a box without an area, too.
    """
    if unit not in ("pixels", "fractions"):
        raise CallerError(f"boxes are in 'pixels' or 'fractions', not {unit!r}")
    given = [_box(box) for box in boxes]
    parts = _parts(assessor, image, names, method, text)
    if isinstance(parts, Rejection):
        return [parts] * len(given)
    scaled = [box if unit == "pixels" else _scaled(box, parts.width, parts.height) for box in given]
    inside = [box.inside(parts.width, parts.height) for box in scaled]
    asked = [parts.of_box(box) for box in inside if box is not None]
    scores = iter(zip(asked, parts.scores(asked), strict=True))
    outside = Rejection(Reason.TOO_SMALL, f"no part of the box lies in the {parts.width} x {parts.height} pixels")
    return [outside if box is None else _region(parts, box, *next(scores)) for box in inside]


def located_of(column: Column, scores: Sequence[float], outlines: Sequence[Box]) -> Located:
    """Where an image is worst. scores: of the whole image, then of its cells; outlines: of the cells, in pixels."""
    side = math.isqrt(len(outlines))
    cell_scores = np.asarray(scores[1:], np.float32)
    ratings = np.asarray([column.scale.range.rating(score) for score in scores[1:]], np.float32)
    worst, grid = int(ratings.argmin()), (side, side)
    falls = (ratings.max() - ratings).reshape(grid)
    score, cell_scores = scores[0], cell_scores.reshape(grid)
    if not falls.any():
        return Located(score, cell_scores, None, None, falls)
    return Located(score, cell_scores, divmod(worst, side), outlines[worst], falls)


def _region(parts: Parts[Any], box: Box, part: Any, scores: Scores | Rejection) -> Region | Rejection:
    return scores if isinstance(scores, Rejection) else Region(box, scores, parts.num_tokens(part))


def _side(cells: int) -> int:
    try:
        side = operator.index(cells)
    except TypeError:
        side = 0
    if side < 1:
        raise CallerError(f"an image has at least one cell along a side, and no part of one, not {cells!r}")
    return side


def _box(box: Box | Sequence[float]) -> Box:
    """The box in floats: the sum of two numbers of 8 bits would not be theirs."""
    try:
        sides = [*box]
        if not any(isinstance(side, str | bytes | bool) for side in sides):
            return Box(*map(float, sides))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: torch, a tensor of two sides
        raise _no_box(box) from error
    raise _no_box(box)


def _scaled(box: Box, width: int, height: int) -> Box:
    try:
        return box.scaled(width, height)
    except ValueError as error:
        raise _no_box(box) from error


def _no_box(box: object) -> CallerError:
    return CallerError(f"a box is x, y, width and height, finite and the last two above 0, not {box!s:.80}")


def _parts(
    assessor: Assessor, image: ImageLike, names: Iterable[str] | None, method: Method, text: object
) -> Parts[Any] | Rejection:
    if method not in ("views", "tiles"):
        raise CallerError(f"a method is 'views' or 'tiles', not {method!r}")
    chosen = names_asked(assessor.rubric, names)
    own = next(texts_asked(assessor.rubric.slots, None if text is None else [text], TextLimits()))
    data = encoded(image)
    found = data if isinstance(data, Rejection) else probe(data, assessor.preparer)
    if isinstance(found, Rejection):
        return found
    if isinstance(own, Rejection):
        return own
    asked = Asked(assessor, chosen, own)
    return Views.of(asked, found) if method == "views" else Tiles.of(asked, found)


def names_asked(rubric: AnyRubric, names: Iterable[str] | None, called: str = "names") -> tuple[str, ...]:
    """The dimensions that are asked about, in the rubric's order: those that are named, else those marked as `local`.

    called: what the list of names is, in messages. Raises CallerError where the rubric has no such dimensions.
    """
    known = ", ".join(rubric.names)
    if names is None:
        names = rubric.local_names if isinstance(rubric, Rubric) else ()
        if not names:
            raise CallerError(
                f"rubric {rubric.id} marks no dimension as `local`; name some that a part of an image has too: {known}"
            )
    chosen = names if isinstance(names, str) else [*names]
    if isinstance(chosen, str) or not chosen or not {*chosen} <= {*rubric.names}:
        raise CallerError(f"{called} is a list of dimensions of rubric {rubric.id}, not {chosen!r}; it has {known}")
    return tuple(name for name in rubric.names if name in chosen)
