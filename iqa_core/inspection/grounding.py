"""An assessor and good images -> how often it finds the cell in which a flaw was planted: whether it can locate at all.

Nobody has to say what is wrong where: a flaw of a known kind is put into a random cell of an image without any. What is
found is held against chance, against the middle of the image, and against a search for sharp edges, which has no model.
Each image is mirrored, too: its worst cell must go along. It says nothing of flaws that no filter makes, such as a hand
with six fingers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np

from iqa_core.assessor.direct import assess_images
from iqa_core.assessor.protocol import Assessor
from iqa_core.errors import CallerError, RunError
from iqa_core.grounding.locating import Located, Method, locate
from iqa_core.grounding.sharpness import sharpest_cell
from iqa_core.images.distortions import Pixels
from iqa_core.images.in_memory import ImageLike
from iqa_core.inspection.grounding_results import FALSE_ALARMS, GridResult, KindResult, SelfTest
from iqa_core.inspection.own_images import read_bounded
from iqa_core.inspection.planting import KINDS, Planted, plant
from iqa_core.records import Assessment, Rejection

GRIDS = (2, 3)
"""Cells along a side."""
SEED = 22
UNCHANGED = "unchanged"
"""Why an image is left out whose pixels a flaw does not change, beside the reasons of rejections."""
_AT_ONCE = 16
"""Images in memory at once where the best are chosen."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """One dimension asked about one image with a flaw in one grid, and about the image without it."""

    dimension: str
    side: int
    kind: str
    is_hit: bool
    is_central: bool
    """Whether the flaw is in the middle cell, where there is one."""
    is_sharpest: bool
    is_mirrored: bool
    fall: float
    """Of the whole image's score."""
    spoilt_fall: float
    """Of the worst cell against the best."""
    clean_fall: float
    """The same without the flaw."""


def self_test(
    assessor: Assessor,
    images: Iterable[ImageLike],
    names: Sequence[str] | None = None,
    *,
    method: Method = "views",
    min_fall: float = 0.0,
    seed: int = SEED,
    progress: Callable[[int], None] = lambda done: None,
) -> SelfTest:
    """Plant a flaw in each image, once in a cell of 2 x 2 and once of 3 x 3, and see which cell is the worst.

    Kinds of flaws take turns, and every other round is weaker. images: good ones, read one after the other; with 200,
    50 of each kind, .38 is told from .25. names, method: as `locate` takes them. min_fall: see GridResult. progress: is
    told the number of images done. An image that cannot be read, or has too few cells, is counted and left out.
    Raises CallerError as `require_askable`; RunError when no image could be tried.
    """
    require_askable(assessor, names, method)
    trials, rejected, number = list[_Trial](), Counter[str](), 0
    for number, image in enumerate(images, start=1):
        found = _tried(_Asking(assessor, names, method), image, number - 1, seed)
        if isinstance(found, str):
            rejected[found] += 1
        else:
            trials += found
        progress(number)
    if not trials:
        reasons = ", ".join(f"{reason} {count}" for reason, count in rejected.items())
        raise RunError(f"none of {number} images could be read and located in: {reasons or 'there are none'}")
    dimensions = dict.fromkeys(trial.dimension for trial in trials)
    pairs = [(name, side) for name in dimensions for side in GRIDS]
    results = [_result([t for t in trials if (t.dimension, t.side) == pair], min_fall) for pair in pairs]
    return SelfTest(method, seed, number - rejected.total(), MappingProxyType(rejected), tuple(results))


def require_askable(assessor: Assessor, names: Sequence[str] | None, method: Method) -> None:
    """Raises CallerError where `locate` would of any image, and for a rubric with slots. Asks about a grey square."""
    rubric = assessor.rubric
    if rubric.slots:
        slots = ", ".join(rubric.slots)
        raise CallerError(f"rubric {rubric.id} has slots ({slots}), and these images have no texts; give one without")
    locate(assessor, np.full((256, 256, 3), 128, np.uint8), names, method=method)


def best_quarter(assessor: Assessor, images: Iterable[ImageLike]) -> list[ImageLike]:
    """The quarter of the images with the best mean of all scores, at least one, in the order in which they came.

    Without those that cannot be read or scored, unless that is all of them.
    """
    ranges = [column.scale.range for column in assessor.rubric.columns]
    kept, ratings = list[ImageLike](), list[float]()
    images = iter(images)
    while some := [*islice(images, _AT_ONCE)]:
        for image, result in zip(some, assess_images(assessor, some), strict=True):
            rating = -np.inf
            if isinstance(result, Assessment):
                pairs = zip(ranges, map(float, result.scores_K), strict=True)
                rating = float(np.mean([ends.rating(score) for ends, score in pairs]))
            kept.append(image)
            ratings.append(rating)
    best = sorted(np.argsort(ratings, kind="stable")[::-1][: max(1, len(kept) // 4)])
    return [kept[i] for i in best]


@dataclass(frozen=True, slots=True)
class _Asking:
    """Whom to ask, about which dimensions, and how."""

    assessor: Assessor
    names: Sequence[str] | None
    method: Method

    def located(self, pixels_HWC: Pixels, side: int) -> dict[str, Located] | Rejection:
        return locate(self.assessor, pixels_HWC, self.names, cells=side, method=self.method)

    def rating(self, name: str, score: float) -> float:
        """A score in points of 1 to 5."""
        [ends] = [column.scale.range for column in self.assessor.rubric.columns if column.name == name]
        return ends.rating(score)


def _tried(asking: _Asking, image: ImageLike, number: int, seed: int) -> list[_Trial] | str:
    """The trials of an image in all grids, or the reason why there are none."""
    pixels_HWC = read_bounded(image, asking.assessor.preparer.limits)
    if isinstance(pixels_HWC, Rejection):
        return pixels_HWC.reason
    kind, is_weak = KINDS[number % len(KINDS)], number // len(KINDS) % 2 == 1
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    trials = list[_Trial]()
    for side in GRIDS:
        planted = plant(pixels_HWC, kind, is_weak, side, rng)
        if planted is None:
            return UNCHANGED
        forms = (pixels_HWC, planted.pixels_HWC, np.ascontiguousarray(planted.pixels_HWC[:, ::-1]))
        located = [asking.located(form, side) for form in forms]
        for found in located:
            if isinstance(found, Rejection):
                return found.reason
        trials += _trials(asking, kind, planted, side, *located)  # type: ignore[arg-type]
    return trials


def _trials(
    asking: _Asking,
    kind: str,
    planted: Planted,
    side: int,
    clean: Mapping[str, Located],
    spoilt: Mapping[str, Located],
    mirrored: Mapping[str, Located],
) -> Iterator[_Trial]:
    is_sharpest = sharpest_cell(planted.pixels_HWC, side) == planted.cell
    for name, found in spoilt.items():
        other = mirrored[name].cell
        yield _Trial(
            dimension=name,
            side=side,
            kind=kind,
            is_hit=found.cell == planted.cell,
            is_central=planted.cell == (side // 2, side // 2),
            is_sharpest=is_sharpest,
            is_mirrored=other is not None and (other[0], side - 1 - other[1]) == found.cell,
            fall=asking.rating(name, clean[name].score) - asking.rating(name, found.score),
            spoilt_fall=float(found.falls.max()),
            clean_fall=float(clean[name].falls.max()),
        )


def _result(trials: Sequence[_Trial], min_fall: float) -> GridResult:
    """Of one dimension in one grid."""
    clean, spoilt = (np.array([getattr(t, name) for t in trials]) for name in ("clean_fall", "spoilt_fall"))
    strict_fall = float(np.quantile(clean, 1 - FALSE_ALARMS, method="higher"))
    return GridResult(
        dimension=trials[0].dimension,
        side=trials[0].side,
        kinds=tuple(_kind_result(kind, trials[0].side, [t for t in trials if t.kind == kind]) for kind in KINDS),
        mirrored=float(np.mean([t.is_mirrored for t in trials])),
        min_fall=min_fall,
        false_alarms=float(np.mean((clean > 0) & (clean >= min_fall))),
        strict_fall=strict_fall,
        noticed=float(np.mean(spoilt > strict_fall)),
    )


def _kind_result(kind: str, side: int, trials: Sequence[_Trial]) -> KindResult:
    return KindResult(
        kind=kind,
        side=side,
        trials=len(trials),
        hits=sum(t.is_hit for t in trials),
        central=sum(t.is_central for t in trials) if side % 2 else None,
        sharpest=sum(t.is_sharpest for t in trials),
        fall=float(np.mean([t.fall for t in trials])) if trials else float("nan"),
    )
