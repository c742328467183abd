"""Prepared images -> a result for each, whatever a single one of them does to the assessor.

The image boundary of assessing: the one place where any exception becomes the rejection of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iqa_core.assessor.protocol import Assessor
from iqa_core.records import Assessment, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AssessorBroken(Exception):
    """The process can assess nothing any more (a fault on the accelerator stays until it ends)."""


def assess_each(assessor: Assessor, images: Sequence[NDArray[np.uint8]]) -> list[Assessment | Rejection]:
    """`assessor.assess`, but a batch that raises is tried image by image, and one that raises alone is rejected.

    Raises AssessorBroken when the fault is not the image's but stays in the process.
    """
    try:
        return assessor.assess(images)
    except Exception as error:
        if type(error).__name__ == "AcceleratorError":
            raise AssessorBroken(str(error)) from error
        if len(images) == 1:
            return [Rejection(Reason.ASSESSOR_FAILED, f"assessing it failed with {type(error).__name__}")]
    return [result for image in images for result in assess_each(assessor, [image])]
