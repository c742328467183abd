"""Images of which the headers are read, and what was sent for their slots -> images as a rubric asks about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from iqa_core.assessor.preparing.preparers import BYTES_PER_TOKEN
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.grounding.question import LocalQuestion
from iqa_core.questions import asked_alone
from iqa_core.records import FreeQuestion, ImageHeader, Rejection
from iqa_core.rubrics import AnyRubric, Rubric
from iqa_core.slots import TextLimits, texts_of
from serve.decoding.groups import Probed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Texts: TypeAlias = Mapping[str, str | None]
"""Slot -> what was sent for it with one image; slots that a rubric does not have may be among them."""


@dataclass(frozen=True, slots=True)
class AskedLocally:
    """A question about the parts of one image, and what was sent for the slots."""

    question: LocalQuestion
    texts: Texts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as the assessor takes it, and what it is asked about with: they travel as one."""

    pixels_HWC: NDArray[np.uint8]
    header: ImageHeader
    """Of the file that it was made from."""
    rubric: str
    """Id."""
    texts: Mapping[str, str]
    """One for each slot of the rubric; none beside a free question."""
    question: FreeQuestion | LocalQuestion | None = None
    """What it is asked instead of the rubric's questions about the whole image."""


def asked(
    image: Probed | Rejection, texts: Texts | AskedLocally | FreeQuestion, spec: AssessorSpec, limits: TextLimits
) -> Probed | Rejection:
    """The image as the rubric asks about it, or as somebody else does: what that costs, and a text for each slot.

    Its rejection where a text is missing or too long. image: as any rubric of the checkpoint has it probed.
    """
    if isinstance(image, Rejection):
        return image
    image = replace(image, shape=spec.preparer.shape(image.header))
    if isinstance(texts, FreeQuestion):
        return replace(image, question=texts, text_tokens=_tokens(texts.text))
    if isinstance(texts, AskedLocally):
        image = replace(image, question=texts.question)
        texts = texts.texts
    found = texts_of(spec.rubric.slots, texts, limits) if spec.rubric.slots else {}
    if isinstance(found, Rejection):
        return replace(found, header=image.header)
    text_tokens = spec.preparer.text_tokens(found) if found else 0
    if isinstance(image.question, LocalQuestion):
        text_tokens += _tokens_of_views(image.question, spec.rubric, found)
    return replace(image, texts=found, text_tokens=text_tokens)


def _tokens_of_views(question: LocalQuestion, rubric: AnyRubric, texts: Mapping[str, str]) -> int:
    """Bound on the tokens of the questions about each part of an image but the whole, which `Probed.shape` has."""
    names = [name for name in question.names if name in rubric.names]
    if not isinstance(rubric, Rubric) or not names:  # another model took over; its replica says so
        return 0
    numbers, _ = asked_alone(rubric.columns, names)
    asked = [rubric.questions[number].filled(texts) for number in numbers]
    return (question.num_views - 1) * sum(_tokens(f"{one.query}{one.answer_start}") for one in asked)


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def num_cut(texts: Texts, slots: tuple[str, ...], limits: TextLimits) -> int:
    """Number of an image's texts of which only the beginning is asked about."""
    return sum(limits.is_cut(texts.get(slot) or "") for slot in slots)
