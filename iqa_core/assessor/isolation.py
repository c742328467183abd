"""Prepared images and their texts -> one result each; an image on which the assessor fails costs only itself.

This is the only place where an exception of an assessor becomes the rejection of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from iqa_core.assessor.protocol import Assessor
from iqa_core.records import Assessment, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AssessorBroken(Exception):
    """Raised when this process can assess nothing more: a fault of the accelerator lasts until the process ends."""


def assess_each(
    assessor: Assessor, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
) -> list[Assessment | Rejection]:
    """One result per image, in order. A batch that raises is tried image by image; an image that raises is rejected.

    texts: as `Assessor.assess` takes them.
    Raises AssessorBroken when the fault is the accelerator's.
    """
    try:
        return assessor.assess(images, texts)
    except Exception as error:
        if type(error).__name__ == "AcceleratorError":
            raise AssessorBroken(str(error)) from error
        if len(images) == 1:
            return [Rejection(Reason.ASSESSOR_FAILED, f"assessing it failed with {type(error).__name__}")]
    texts_of = [None] * len(images) if texts is None else [[own] for own in texts]
    return [
        result for image, own in zip(images, texts_of, strict=True) for result in assess_each(assessor, [image], own)
    ]
