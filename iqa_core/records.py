"""The words that everything shares: the rating scale, an image as read and as seen, a rejection, an assessment.

All are frozen values. Arrays carry their shape in a suffix: H height, W width, C channels (always 3, RGB),
K dimensions of the rubric, L levels of the scale (worst to best).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


T = TypeVar("T", float, "NDArray[np.float64]")


@dataclass(frozen=True, slots=True)
class RatingScale:
    """A scale of levels worth 1, 2, 3, …, worst to best; opinions, scores and rewards lie between its ends."""

    num_levels: int

    @property
    def levels(self) -> tuple[int, ...]:
        """What each level is worth, worst to best."""
        return tuple(range(1, self.num_levels + 1))

    @property
    def worst(self) -> int:
        """The lower end."""
        return 1

    @property
    def best(self) -> int:
        """The upper end."""
        return self.num_levels

    @property
    def middle(self) -> float:
        """Halfway between the ends."""
        return (self.worst + self.best) / 2

    @property
    def max_std(self) -> float:
        """Largest standard deviation: half of everything at each end. An int where it is whole, as JSON shows it."""
        half, is_odd = divmod(self.best - self.worst, 2)
        return half + 0.5 if is_odd else half

    def nearest(self, value: float) -> int:
        """Index, from 0 (worst), of the level that is nearest to a value; halves go up."""
        return min(max(math.floor(value + 0.5), self.worst), self.best) - self.worst


FIVE_LEVELS = RatingScale(5)
"""The scale of every rubric, opinion and score of this project: 1 (worst) to 5 (best)."""


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """Where the scores of a dimension lie."""

    worst: float
    """The end that is worst; above `best` where less is better."""
    best: float
    """The other end."""

    @property
    def low(self) -> float:
        """The lower end."""
        return min(self.worst, self.best)

    @property
    def high(self) -> float:
        """The upper end."""
        return max(self.worst, self.best)

    @property
    def middle(self) -> float:
        """Halfway between the ends."""
        return (self.worst + self.best) / 2

    @property
    def width(self) -> float:
        """Distance of the ends."""
        return self.high - self.low

    @property
    def max_sample_std(self) -> float:
        """Largest unbiased standard deviation: that of two samples, one at each end; of more it is smaller."""
        return self.width * math.sqrt(0.5)

    def inside(self, score: float) -> float:
        """The score, or the end that it lies beyond."""
        return min(max(score, self.low), self.high)

    def rating(self, score: T) -> T:
        """A score of this range, or an array of them, brought to 1 (worst) to 5 (best); one beyond an end stays so."""
        if self == RATING:
            return score
        return RATING.worst + (RATING.best - RATING.worst) * ((score - self.worst) / (self.best - self.worst))

    def points(self, distance: T) -> T:
        """A distance of two scores, or their standard deviation, or an array of them, in points of 1 to 5."""
        return distance * RATING.width / self.width


RATING = ScoreRange(float(FIVE_LEVELS.worst), float(FIVE_LEVELS.best))
"""The range of rewards and opinions, and of every dimension that does not say otherwise."""


@dataclass(frozen=True, slots=True)
class AnswerScale:
    """A closed set of answers, what each is worth, and the range in which a score lies."""

    answers: tuple[str, ...]
    """Words or short phrases, 2 to 20, worst to best."""
    worths: tuple[float, ...]
    """One per answer, inside the range."""
    range: ScoreRange = RATING


class Reason(StrEnum):
    """Why an image has no score. The codes are a contract: they stand in score tables and in HTTP answers."""

    MISSING = "missing"
    FORBIDDEN = "forbidden"
    FETCH_FAILED = "fetch_failed"
    EMPTY = "empty"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    ASSESSOR_FAILED = "assessor_failed"
    MISSING_TEXT = "missing_text"
    UNPARSABLE = "unparsable"


RETRYABLE = frozenset({Reason.MISSING, Reason.FORBIDDEN, Reason.FETCH_FAILED, Reason.ASSESSOR_FAILED})
"""Reasons that can change from one run to the next; all others are a property of the bytes."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds on the encoded image, before anything is resized. Part of the fingerprint."""

    min_side: int = 8
    """Pixels of the shorter side, below which an image is `too_small`."""

    max_pixels: int = 100_000_000
    """Width x height above which an image is `too_large`; checked on the header, before pixels are allocated."""

    max_bytes: int = 256 * 2**20
    """Encoded size above which an image is `too_large`."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header of an encoded image says; width and height in pixels after EXIF orientation is applied."""

    width: int
    height: int
    format: str
    """Lower-case name of the container: jpeg, png, webp, gif, bmp, tiff, avif."""
    frames: int
    """1 for a still image; an animated image is scored on its first frame."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image that gets no score, and why. Data, not an exception: it takes the image's place."""

    reason: Reason
    detail: str
    """One sentence for a person; the same for the same bytes (no addresses, paths or times)."""
    header: ImageHeader | None = None
    """What was known of the image before it was rejected."""
    codes: tuple[str, ...] = ()
    """What is wrong with each of the written answers, where none could be parsed."""


@dataclass(frozen=True, slots=True)
class RgbImage:
    """A decoded image: 8-bit sRGB, upright."""

    pixels_HWC: NDArray[np.uint8]
    header: ImageHeader


@dataclass(frozen=True, slots=True)
class PreparedShape:
    """What an image will be once it is prepared, known from its header."""

    height: int
    width: int
    """Height and width of the pixel array that travels: the resized image, or all of its tiles."""
    tokens: int
    """Tokens that assessing the image costs, all dimensions together; batches are bounded by them."""
    work_bytes: int = 0
    """Peak bytes while the array is made, itself included and the source image not. 0: it is the source image."""


class Preparer(Protocol):
    """What readers must do to an image for one model. Picklable, small, and free of torch."""

    @property
    def limits(self) -> ImageLimits:
        """Bounds on the encoded images that it takes."""
        ...

    def shape(self, header: ImageHeader) -> PreparedShape:
        """The prepared size and the token cost, from the header alone."""
        ...

    def text_tokens(self, texts: Mapping[str, str]) -> int:
        """Tokens that an image's texts cost beside those of its shape; slot of the rubric -> text."""
        ...

    def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
        """Pixels of exactly `shape(image.header)`, (H, W, 3), C-contiguous."""
        ...


class Finish(StrEnum):
    """Why a written answer ended."""

    STOP = "stop"
    """The model, or a text that stops it, ended it."""
    LENGTH = "length"
    """It was cut at the limit of tokens."""


@dataclass(frozen=True, slots=True)
class FreeQuestion:
    """What somebody asks about an image, to be answered in the model's own words."""

    text: str
    max_tokens: int
    """Tokens after which the answer is cut, 1 to `max_new_tokens` of the written rubric that is served."""


@dataclass(frozen=True, slots=True)
class FreeAnswer:
    """What a model wrote in answer to a free question; nothing is parsed."""

    text: str
    """Verbatim."""
    finish: Finish


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote about one image, of which at least one answer was parsed."""

    caption: str | None
    """Of the first answer that was parsed; None where the grammar has none."""
    reasoning: str | None
    """Likewise."""
    finish: Finish
    """Likewise."""
    answers: tuple[str, ...]
    """Every answer, verbatim."""
    parsed: int
    """Answers that were parsed."""
    codes: tuple[str, ...] = ()
    """What is wrong with each of the others."""
    lenient: tuple[str, ...] = ()
    """Lenient switches without which an answer would not have been parsed, once for each such answer."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the assessor thinks of one image: one entry per dimension of the rubric, in the rubric's order."""

    scores_K: NDArray[np.float32]
    """Expected score, in the dimension's own range: 1 (worst) to 5 (best) unless the rubric says otherwise."""
    stds_K: NDArray[np.float32]
    """Standard deviation of the distribution over answers, in score units; of written answers over samples, or NaN."""
    probs_K: tuple[NDArray[np.float32], ...]
    """A dimension's probabilities of its answers, worst to best, sum 1; a group's of yes to each of its statements.

    None where answers are written."""
    written: Written | None = None
    """What a written rubric made the model write."""

    def of(self, dimensions: Sequence[int]) -> Assessment:
        """What it says of closed sets in these dimensions, by number."""
        kept = [*dimensions]
        return Assessment(self.scores_K[kept], self.stds_K[kept], tuple(self.probs_K[k] for k in kept))
