"""Prepared images and texts -> deterministic assessments without a model, to try a pipeline, its faults, its speed.

The checkpoint is `fake:?option=value&…`. Colours are hex RGB of an image's top-left pixel, such as `ff00ff`:

    sleep_s=0.5           how long a batch takes
    prepare_sleep_s=0.1   how long the preparing of an image takes
    exit_on, raise_on, hang_on, nan_on
                          an image of this colour ends the assessing process, raises, never returns, or has no score
    prepare_exit_on, prepare_raise_on, prepare_hang_on
                          the same where images are prepared
    no_load_while=/a/b    loading raises as long as this file is there
    cut_share=0.1         this share of written answers is cut off somewhere
    view_px=8             it has views: a visual token for each square of so many pixels, what is left over shared out

Options change faults, times and what can be asked, not scores, so they are not part of the fingerprint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iqa_core.addresses import parse_address
from iqa_core.assessor.batching import MOST_IMAGES
from iqa_core.assessor.fake_writer import FakeWriter, Seen, turn_of, turn_of_texts
from iqa_core.assessor.protocol import View, Viewed, texts_of_images
from iqa_core.errors import CallerError
from iqa_core.levels import PADDING, Readout
from iqa_core.questions import asked_alone
from iqa_core.records import (
    Assessment,
    FreeAnswer,
    FreeQuestion,
    ImageHeader,
    ImageLimits,
    PreparedShape,
    Rejection,
    RgbImage,
)
from iqa_core.rubrics import AnyRubric, Rubric, WrittenRubric

if TYPE_CHECKING:
    from numpy.typing import NDArray

PREFIX = "fake:"
TOKENS_PER_IMAGE = 512
"""Tokens of an image of any size: a batch of 8192 tokens holds 16 images."""
NO_FAKE_VIEWS = (
    "a fake assessor has no visual tokens that a question could be kept from, but as fake:?view_px=8 with a rubric of "
    "closed sets; ask about tiles instead, which are parts of the image as images of their own"
)
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
    cut_share: float = Field(default=0, ge=0, le=1)
    view_px: int | None = Field(default=None, ge=1)

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

    def __init__(self, rubric: AnyRubric, preparer: FakePreparer) -> None:
        blocked_by = preparer.options.no_load_while
        if blocked_by is not None and os.path.exists(blocked_by):
            raise RuntimeError(f"asked not to load while {blocked_by} is there")
        self.rubric = rubric
        self.preparer = preparer
        self._answers: _Levels | FakeWriter
        if isinstance(rubric, WrittenRubric):
            self._answers = FakeWriter(rubric, preparer.options.cut_share)
        else:
            self._answers = _Levels(rubric)

    @property
    def versions(self) -> Mapping[str, str]:
        """NumPy's version, and no device."""
        return {"device": "none", "numpy": np.__version__}

    @property
    def images_at_once(self) -> int:
        """As many as any batch holds."""
        return MOST_IMAGES

    def assess(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        """One result per image, after the sleep and the fault that the options ask for."""
        return self._answers.results(self._seen(images, texts_of_images(self.rubric.slots, texts, len(images))))

    def describe(
        self, images: Sequence[NDArray[np.uint8]], questions: Sequence[FreeQuestion]
    ) -> list[FreeAnswer | Rejection]:
        """One answer per image, likewise. Raises TypeError where the rubric is not written."""
        if not isinstance(self._answers, FakeWriter):
            raise TypeError(f"rubric {self.rubric.id} is not written")
        return self._answers.described(self._seen(images, [{}] * len(images)), questions)

    def rate_captions(self, captions: Sequence[str]) -> NDArray[np.float64]:
        """See `CaptionReader.rate_captions`: the level that a caption names. Raises TypeError where there are none."""
        if not isinstance(self._answers, FakeWriter):
            raise TypeError(f"rubric {self.rubric.id} is not written")
        return self._answers.rated(captions)

    def view_grid(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """See `Viewer.view_grid`; only with the option `view_px`, and a rubric of closed sets."""
        side = self.preparer.options.view_px
        if side is None or not isinstance(self._answers, _Levels):
            raise CallerError(NO_FAKE_VIEWS)
        height, width = image.shape[:2]
        return max(1, height // side), max(1, width // side)

    def assess_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        names: Sequence[str],
        texts: Sequence[Mapping[str, str]] | None = None,
    ) -> list[list[Assessment | Rejection] | Rejection]:
        """See `Viewer.assess_views`: a view is scored by the mean colour of its tokens' pixels."""
        return [one.views for one in self._viewed(images, views, names, texts)]

    def assess_with_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        names: Sequence[str],
        texts: Sequence[Mapping[str, str]] | None = None,
    ) -> list[Viewed | Rejection]:
        """See `Viewer.assess_with_views`."""
        return [*self._viewed(images, views, names, texts)]

    def _viewed(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        names: Sequence[str],
        texts: Sequence[Mapping[str, str]] | None,
    ) -> list[Viewed]:
        _, columns = asked_alone(self.rubric.columns, names)
        kept = [k for k, column in enumerate(self.rubric.columns) if column.name in {one.name for one in columns}]
        seen = self._seen(images, texts_of_images(self.rubric.slots, texts, len(images)))
        found = []
        for image, own, whole in zip(images, views, seen, strict=True):
            parts = [(turn_of(_pixels_of(image, self.view_grid(image), view)), *whole[1:]) for view in own]
            assessment, *said = self._answers.results([whole, *parts])
            found.append(Viewed(assessment, [one if isinstance(one, Rejection) else one.of(kept) for one in said]))
        return found

    def _seen(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]]) -> list[Seen]:
        options = self.preparer.options
        if images:
            time.sleep(options.sleep_s)
        for pixels in images:
            _misbehave(pixels, options.exit_on, options.raise_on, options.hang_on)
        are_nan = [_colour(pixels) == options.nan_on for pixels in images]
        return list(zip(map(turn_of, images), texts, are_nan, strict=True))


class _Levels:
    """Answers from closed sets."""

    def __init__(self, rubric: Rubric) -> None:
        self._questions = rubric.questions
        self._readout = Readout(rubric.questions, rubric.columns)

    def results(self, seen: Sequence[Seen]) -> list[Assessment | Rejection]:
        """One per image."""
        return self._readout.assessments([self._logits(*one) for one in seen]) if seen else []

    def _logits(self, turn_of_image: float, texts: Mapping[str, str], is_nan: bool) -> NDArray[np.float64]:
        """Logits, shape (K, L): the image's turn and its texts shift the answer that each question prefers."""
        scales = [question.scale for question in self._questions]
        logits_KL = np.full((len(scales), max(len(scale.answers) for scale in scales)), PADDING)
        for k, (scale, question) in enumerate(zip(scales, self._questions, strict=True)):
            turn = turn_of_image + k / len(scales) + turn_of_texts([texts[slot] for slot in question.slots])
            places_L = np.arange(1, len(scale.answers) + 1)
            middle, reach = (len(places_L) + 1) / 2, (len(places_L) - 1) / 2
            wanted = middle + reach * np.sin(2 * np.pi * turn)
            logits_KL[k, : len(places_L)] = np.nan if is_nan else -((places_L - wanted) ** 2)
        return logits_KL


def _pixels_of(image: NDArray[np.uint8], grid: tuple[int, int], view: View) -> NDArray[np.uint8]:
    """Pixels of a view's tokens, as an image of one row."""
    down, across = (np.arange(size) * count // size for size, count in zip(image.shape[:2], grid, strict=True))
    token_of_pixel = down[:, None] * grid[1] + across
    return image[np.isin(token_of_pixel, view)][None]


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
