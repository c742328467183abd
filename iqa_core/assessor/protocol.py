"""The protocol of assessors: all that jobs, endpoint and tests know of one, whichever model is behind it.

Assessor.preparer -> Preparer      runs where images are read: no torch, small, picklable
Preparer.shape(header) -> (h, w)   from the header alone, so that batches are fixed before anything is decoded
Preparer.prepare(image) -> uint8   resized pixels, ready to travel
Assessor.assess(pixels, texts) -> one Assessment or Rejection per image, in order
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from iqa_core.assessor.checkpoint.calibration import Calibration
from iqa_core.assessor.checkpoint.system_prompt import SystemPrompt
from iqa_core.records import Assessment, FreeAnswer, FreeQuestion, Preparer, Rejection
from iqa_core.rubrics import AnyRubric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


View = tuple[int, ...]
"""Numbers of an image's visual tokens, ascending: 0 is the first, and rows come one after another from the top."""


@dataclass(frozen=True, slots=True, eq=False)
class Viewed:
    """What is said of an image, and of views of it."""

    assessment: Assessment | Rejection
    """That of `assess`."""
    views: list[Assessment | Rejection]
    """One per view, in order, of the dimensions that were named."""


class Assessor(Protocol):
    """A loaded model with its rubric. Not thread-safe: one caller at a time."""

    @property
    def rubric(self) -> AnyRubric:
        """The questions that it answers."""
        ...

    @property
    def preparer(self) -> Preparer:
        """What makes of an image the array that `assess` takes."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Device and library versions; they are noted beside scores, and not part of the fingerprint."""
        ...

    def assess(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        """One result per prepared image, in order; the same image and texts get the same result in any batch.

        images: arrays (H, W, 3) uint8 as `preparer.prepare` returns them; sizes may differ. May be empty.
        texts: of each image, slot of the rubric -> text, as `iqa_core.slots.texts_of` returns them; None where the
        rubric has no slots. Raises ValueError when a rubric with slots gets none.
        A result that is not finite is a Rejection (`assessor_failed`), never a number.
        """
        ...


@runtime_checkable
class Describer(Protocol):
    """What an assessor with a written rubric can do beside assessing."""

    @property
    def images_at_once(self) -> int:
        """Images that are written about at once at most, each with all samples of the rubric."""
        ...

    def describe(
        self, images: Sequence[NDArray[np.uint8]], questions: Sequence[FreeQuestion]
    ) -> list[FreeAnswer | Rejection]:
        """One answer per prepared image, in order, each to its own question; the same in any batch.

        The likeliest token is taken at each step, whatever the rubric's decoding is. Raises ValueError unless there is
        one question per image.
        """
        ...


@runtime_checkable
class CaptionReader(Protocol):
    """What an assessor with a written rubric whose answers have a caption can do beside assessing."""

    def rate_captions(self, captions: Sequence[str]) -> NDArray[np.float64]:
        """Ratings from 1 (worst) to 5 (best) that the model reads from each caption alone, without image, shape (N,).

        NaN where what it says to a caption is no rating. Each caption is read by itself, whatever stands beside it.
        Raises TypeError where the rubric's answers have no caption.
        """
        ...


@runtime_checkable
class Viewer(Protocol):
    """What an assessor can do beside assessing if a question may see some of an image's visual tokens only."""

    def view_grid(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """Rows and columns of the visual tokens of a prepared image; each covers an equal part of the whole picture.

        Raises CallerError when the model is of a family in which no question can be kept from tokens.
        """
        ...

    def assess_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        names: Sequence[str],
        texts: Sequence[Mapping[str, str]] | None = None,
    ) -> list[list[Assessment | Rejection] | Rejection]:
        """Of each prepared image in order one result per view, as if the questions saw these tokens alone.

        The tokens themselves are those of the whole image; a view of all gives the result of `assess`. A result has the
        dimensions that are named, in the rubric's order, and is the same whatever other views there are. texts: as
        `assess` takes them. Raises ValueError on a name that the rubric lacks, and on a view that is empty, not in
        order, or has a token that its image lacks. `view_grid` says whether the model can be asked so.
        """
        ...

    def assess_with_views(
        self,
        images: Sequence[NDArray[np.uint8]],
        views: Sequence[Sequence[View]],
        names: Sequence[str],
        texts: Sequence[Mapping[str, str]] | None = None,
    ) -> list[Viewed | Rejection]:
        """Both at once, `assess` and `assess_views`, while an image goes through the model once; it may have no views.

        Arguments and errors: as `assess_views`.
        """
        ...


def texts_of_images(
    slots: Sequence[str], texts: Sequence[Mapping[str, str]] | None, num_images: int
) -> Sequence[Mapping[str, str]]:
    """What `Assessor.assess` was given, one mapping per image: empty ones where the rubric has no slots.

    Raises ValueError where slots and texts, or images and texts, do not belong together.
    """
    if (texts is None) == bool(slots):
        raise ValueError(f"the rubric has {len(slots)} slots, and images come {'without' if slots else 'with'} texts")
    if texts is not None and len(texts) != num_images:
        raise ValueError(f"there are {len(texts)} texts for {num_images} images")
    return [{}] * num_images if texts is None else texts


@dataclass(frozen=True, slots=True)
class AssessorSpec:
    """All that is known of an assessor before it is loaded: cheap, picklable, no torch.

    The driver plans with it, readers prepare images with it, and actors load the `Assessor` from it.
    """

    checkpoint: str
    """Local folder, hub id, fsspec URI, `demo`, or `fake:...`."""
    rubric: AnyRubric
    """The rubric, with the system prompt that is used."""
    system: SystemPrompt
    preparer: Preparer
    fingerprint_parts: Mapping[str, str]
    """Part -> value, of all that determines a score (see `iqa_core.assessor.load.fingerprint`)."""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Options of fsspec for a checkpoint that is a URI; may hold secrets."""
    domain: str | None = None
    """Images that the checkpoint was trained for, in one line, where its assessor.toml says so."""

    generation_config: Mapping[str, Any] | None = None
    """Of a written rubric: what the checkpoint's generation_config.json says, empty where there is none. It is noted
    beside scores, and nothing is taken from it."""
    calibration: Calibration | None = None
    """What becomes of written scores; None where its assessor.toml has none for this rubric."""

    @property
    def meant_for(self) -> dict[str, str]:
        """`rubric` and, if it says so, `checkpoint` -> the images that it is meant for, in one line for people."""
        own = {} if self.domain is None else {"checkpoint": self.domain}
        return {"rubric": self.rubric.domain, **own}
