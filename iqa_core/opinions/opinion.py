"""What people thought of images: one opinion per image and dimension, always on 1 (worst) to 5 (best)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from iqa_core.errors import CallerError
from iqa_core.records import ScoreRange

SLACK = 1e-9
"""Of numbers that were rounded, in parts of their range."""


@dataclass(frozen=True, slots=True)
class NumberRange(ScoreRange):
    """The range of a data set's numbers, and which end of it is good."""

    def mos(self, value: float, place: str) -> float:
        """The value on 1..5. Raises CallerError, with `place`, when it is outside of the range."""
        if not abs(value - self.inside(value)) <= SLACK * self.width:
            raise CallerError(
                f"{place}: {value:g} is outside of {self.worst:g} (worst) to {self.best:g} (best); give the data set's "
                "own range, as in ?worst=0&best=100"
            )
        return self.rating(self.inside(value))

    def std(self, value: float, place: str) -> float:
        """A standard deviation in points of 1..5. Raises CallerError, with `place`, when no ratings can have it."""
        if not 0 <= value <= self.max_sample_std + SLACK:
            raise CallerError(
                f"{place}: {value:g} is no standard deviation of ratings from {self.worst:g} to {self.best:g}, which "
                f"lies between 0 and {self.max_sample_std:.4g}; is it on another scale, or a variance?"
            )
        return self.points(value)


Texts = tuple[tuple[str, str], ...]
"""Slot of a rubric and text, in the rubric's order: what an image was judged against, such as its prompt."""

ONE_TO_FIVE = NumberRange(1, 5)
"""The range of DeQA's and SA-BENCH's numbers, and of our own tables unless they say otherwise."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What people thought of one image in one respect."""

    image: str
    """As the annotation file names it."""
    path: Path
    """Where the image lies; it need not exist."""
    dimension: str
    mos: float
    """Mean opinion, 1 (worst) to 5 (best)."""
    dataset: str
    std: float | None = None
    """Standard deviation of single opinions, in the same units; None where it is not known."""
    num_raters: int | None = None
    """How many people gave an opinion; None where it is not known."""
    raters: tuple[float, ...] = ()
    """Single opinions on 1..5; empty where only the mean is known."""
    group: str | None = None
    """What must not be split between training and test, such as the generator or the content; None: not known."""
    texts: Texts = ()
    """Those that the question has slots for."""
    is_cut: bool = False
    """Whether a text is only its beginning."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """All opinions of one or more annotation files, and what was left out of them."""

    rows: tuple[Opinion, ...]
    dropped: Mapping[str, int]
    """Reason -> rows of the files that gave no opinion."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Every dimension once, in order."""
        return tuple(dict.fromkeys(row.dimension for row in self.rows))

    @property
    def images(self) -> tuple[Path, ...]:
        """Every image once, in order."""
        return tuple(dict.fromkeys(row.path for row in self.rows))

    @property
    def datasets(self) -> tuple[str, ...]:
        """Every data set once, in order."""
        return tuple(dict.fromkeys(row.dataset for row in self.rows))


SECOND_OPINION = "a second opinion on the same image and dimension"
CUT_TEXT = "a text of which the beginning is asked about"


def collected(found: Iterable[Opinion | str], origin: str) -> Opinions:
    """Opinions, and for each row without one the reason; the first on an image, dimension and texts counts.

    Raises CallerError when there is not a single opinion.
    """
    rows: dict[tuple[Path, str, Texts], Opinion] = {}
    dropped: Counter[str] = Counter()
    for row in found:
        if isinstance(row, str):
            dropped[row] += 1
        elif (row.path, row.dimension, row.texts) in rows:
            dropped[SECOND_OPINION] += 1
        else:
            rows[row.path, row.dimension, row.texts] = row
    if not rows:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in dropped.items()) or "no rows"
        raise CallerError(f"{origin} holds no opinion ({reasons})")
    return Opinions(tuple(rows.values()), dict(dropped))


def spread_of(ratings: tuple[float, ...]) -> float | None:
    """Sample standard deviation; None for fewer than two ratings."""
    if len(ratings) < 2:
        return None
    mean = sum(ratings) / len(ratings)
    return math.sqrt(sum((rating - mean) ** 2 for rating in ratings) / (len(ratings) - 1))
