"""Prepared images and texts -> deterministic assessments without a model, to try a pipeline, its faults, its speed.

The checkpoint is `fake:?option=value&…`. Colours are hex RGB of an image's top-left pixel, such as `ff00ff`:

    sleep_s=0.5           how long a batch takes
    prepare_sleep_s=0.1   how long the preparing of an image takes
    exit_on, raise_on, hang_on, nan_on
                          an image of this colour ends the assessing process, raises, never returns, or has no score
    prepare_exit_on, prepare_raise_on, prepare_hang_on
                          the same where images are prepared
    no_load_while=/a/b    loading raises as long as this file is there

Options change faults and times, not scores, so they are not part of the fingerprint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iqa_core.addresses import parse_address
from iqa_core.assessor.protocol import texts_of_images
from iqa_core.errors import CallerError
from iqa_core.levels import PADDING, Readout
from iqa_core.questions import Question
from iqa_core.records import Assessment, ImageHeader, ImageLimits, PreparedShape, Rejection, RgbImage
from iqa_core.rubrics import Rubric

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREFIX = "fake:"
TOKENS_PER_IMAGE = 512
"""Tokens of an image of any size: a batch of 8192 tokens holds 16 images."""
COLOUR = r"^[0-9a-f]{6}$"


class FakeOptions(BaseModel):
    """What a fake assessor does besides scoring."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sleep_s: float = Field(default=0, ge=0)
    prepare_sleep_s: float = Field(default=0, ge=0)
    exit_on: str | None = Field(default=None, pattern=COLOUR)
    raise_on: str | None = Field(default=None, pattern=COLOUR)
    hang_on: str | None = Field(default=None, pattern=COLOUR)
    nan_on: str | None = Field(default=None, pattern=COLOUR)
    prepare_exit_on: str | None = Field(default=None, pattern=COLOUR)
    prepare_raise_on: str | None = Field(default=None, pattern=COLOUR)
    prepare_hang_on: str | None = Field(default=None, pattern=COLOUR)
    no_load_while: str | None = None

    @classmethod
    def parse(cls, checkpoint: str) -> FakeOptions:
        """The options in `fake:?a=b&c=d`. Raises CallerError on one that is unknown, repeated or malformed."""
        try:
            address = parse_address(checkpoint, frozenset({PREFIX.rstrip(":")}))
            if address.place:
                raise ValueError(f"{address.place!r} does not begin with ?")
            return cls.model_validate(address.options)
        except ValidationError as error:
            faults = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
            raise CallerError(f"{checkpoint}: {faults}; options are {', '.join(cls.model_fields)}") from None
        except ValueError as error:
            raise CallerError(f"{checkpoint}: {error}; write {PREFIX}?option=value&option=value") from None


@dataclass(frozen=True, slots=True)
class FakePreparer:
    """A preparer that leaves images as they are."""

    limits: ImageLimits
    options: FakeOptions

    def shape(self, header: ImageHeader) -> PreparedShape:
        """The image's own size, and TOKENS_PER_IMAGE."""
        return PreparedShape(header.height, header.width, TOKENS_PER_IMAGE)

    def text_tokens(self, texts: Mapping[str, str]) -> int:
        """One per 4 characters."""
        return sum(map(len, texts.values())) // 4

    def prepare(self, image: RgbImage) -> NDArray[np.uint8]:
        """The image's pixels, after the sleep and the fault that the options ask for."""
        options = self.options
        time.sleep(options.prepare_sleep_s)
        _misbehave(image.pixels_HWC, options.prepare_exit_on, options.prepare_raise_on, options.prepare_hang_on)
        return np.ascontiguousarray(image.pixels_HWC)


class FakeAssessor:
    """Scores images by their mean colour and their texts; obeys `iqa_core.assessor.protocol.Assessor`."""

    def __init__(self, rubric: Rubric, preparer: FakePreparer) -> None:
        blocked_by = preparer.options.no_load_while
        if blocked_by is not None and os.path.exists(blocked_by):
            raise RuntimeError(f"asked not to load while {blocked_by} is there")
        self.rubric = rubric
        self.preparer = preparer
        self._readout = Readout(rubric.questions, rubric.columns)

    @property
    def versions(self) -> Mapping[str, str]:
        """NumPy's version, and no device."""
        return {"device": "none", "numpy": np.__version__}

    def assess(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        """One result per image, after the sleep and the fault that the options ask for."""
        asked = texts_of_images(self.rubric.slots, texts, len(images))
        options = self.preparer.options
        if images:
            time.sleep(options.sleep_s)
        for pixels in images:
            _misbehave(pixels, options.exit_on, options.raise_on, options.hang_on)
        logits = [self._logits(pixels, own) for pixels, own in zip(images, asked, strict=True)]
        return self._readout.assessments(logits) if images else []

    def _logits(self, pixels_HWC: NDArray[np.uint8], texts: Mapping[str, str]) -> NDArray[np.float64]:
        """Logits, shape (K, L): the mean colour and its texts shift the answer that each question prefers."""
        scales = [question.scale for question in self.rubric.questions]
        logits_KL = np.full((len(scales), max(len(scale.answers) for scale in scales)), PADDING)
        is_nan = _colour(pixels_HWC) == self.preparer.options.nan_on
        # sums of whole numbers are exact in any order; this one takes a seventh of the time of `mean`
        red, green, blue = pixels_HWC.sum(axis=0, dtype=np.uint64).sum(axis=0) / pixels_HWC[..., 0].size / 255
        for k, (scale, question) in enumerate(zip(scales, self.rubric.questions, strict=True)):
            turn = 0.61 * red + 0.83 * green + 1.07 * blue + k / len(scales) + _turn(question, texts)
            places_L = np.arange(1, len(scale.answers) + 1)
            middle, reach = (len(places_L) + 1) / 2, (len(places_L) - 1) / 2
            wanted = middle + reach * np.sin(2 * np.pi * turn)
            logits_KL[k, : len(places_L)] = np.nan if is_nan else -((places_L - wanted) ** 2)
        return logits_KL


def _turn(question: Question, texts: Mapping[str, str]) -> float:
    """A share of a circle that depends on every letter of the question's texts; 0 where it has none."""
    return crc32("\0".join(texts[slot] for slot in question.slots).encode("utf-8", "surrogatepass")) / 2**32


def _colour(pixels_HWC: NDArray[np.uint8]) -> str:
    return pixels_HWC[0, 0].tobytes().hex()


def _misbehave(pixels_HWC: NDArray[np.uint8], exit_on: str | None, raise_on: str | None, hang_on: str | None) -> None:
    colour = _colour(pixels_HWC)
    if colour == exit_on:
        os._exit(1)
    if colour == raise_on:
        raise RuntimeError(f"asked to raise on an image of colour {colour}")
    while colour == hang_on:
        time.sleep(1)
