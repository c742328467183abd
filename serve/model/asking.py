"""Images of which the headers are read, and what was sent for their slots -> images as a rubric asks about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from iqa_core.assessor.preparing.preparers import BYTES_PER_TOKEN
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.records import FreeQuestion, Rejection
from iqa_core.slots import TextLimits, texts_of
from serve.decoding.groups import Probed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Texts: TypeAlias = Mapping[str, str | None]
"""Slot -> what was sent for it with one image; slots that a rubric does not have may be among them."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as the assessor takes it, and what it is asked about with: they travel as one."""

    pixels_HWC: NDArray[np.uint8]
    rubric: str
    """Id."""
    texts: Mapping[str, str]
    """One for each slot of the rubric; none beside a question."""
    question: FreeQuestion | None = None
    """What it is asked instead of the rubric's question."""


def asked(
    image: Probed | Rejection, texts: Texts | FreeQuestion, spec: AssessorSpec, limits: TextLimits
) -> Probed | Rejection:
    """The image as the rubric asks about it, or as somebody else does: what that costs, and a text for each slot.

    Its rejection where a text is missing or too long. image: as any rubric of the checkpoint has it probed.
    """
    if isinstance(image, Rejection):
        return image
    image = replace(image, shape=spec.preparer.shape(image.header))
    if isinstance(texts, FreeQuestion):
        return replace(image, question=texts, text_tokens=math.ceil(len(texts.text.encode()) / BYTES_PER_TOKEN))
    slots = spec.rubric.slots
    if not slots:
        return image
    found = texts_of(slots, texts, limits)
    if isinstance(found, Rejection):
        return replace(found, header=image.header)
    return replace(image, texts=found, text_tokens=spec.preparer.text_tokens(found))


def num_cut(texts: Texts, slots: tuple[str, ...], limits: TextLimits) -> int:
    """Number of an image's texts of which only the beginning is asked about."""
    return sum(limits.is_cut(texts.get(slot) or "") for slot in slots)
