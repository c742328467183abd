"""The words that everything shares: an image as it is read, an image as it is seen, a rejection, an assessment.

All are frozen values. Arrays carry their shape in a suffix: H height, W width, C channels (always 3, RGB),
K dimensions of the rubric, L levels (always 5, worst to best).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL_SCORES = (1, 2, 3, 4, 5)
"""What each level is worth on the opinion scale, worst to best; every score of this project lies in 1..5."""


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
    """Of the array of pixels that travels: the resized image, or all of its tiles."""
    tokens: int
    """Tokens that assessing it costs, all dimensions together: what batches are bounded by."""
    work_bytes: int = 0
    """Held at most while it is made, the array among them; the image it is made from is not. 0: it is that image."""


class Preparer(Protocol):
    """What readers must do to an image for one model. Picklable, small, and free of torch."""

    @property
    def limits(self) -> ImageLimits: ...

    def shape(self, header: ImageHeader) -> PreparedShape:
        """The prepared size and the token cost, from the header alone."""
        ...

    def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
        """Pixels of exactly `shape(image.header)`, (H, W, 3), C-contiguous."""
        ...


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the assessor thinks of one image: one entry per dimension of the rubric, in the rubric's order."""

    scores_K: NDArray[np.float32]
    """Expected score, 1 (worst) to 5 (best)."""
    stds_K: NDArray[np.float32]
    """Standard deviation of the level distribution, in score units."""
    probs_KL: NDArray[np.float32]
    """Probabilities of the five levels, worst to best; each row sums to 1."""
