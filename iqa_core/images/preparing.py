"""Encoded bytes and a model's preparer -> what its assessor takes, or the rejection: the image boundary of preparing.

Jobs, the endpoint and notebooks all go through here, so the same bytes are rejected for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_core.images.decoding import decode
from iqa_core.images.inspection import inspect
from iqa_core.records import ImageHeader, PreparedShape, Preparer, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREPARED_BYTES = 2**31 - 1
"""Of one prepared image at most: it travels as one Arrow value. Of the memory that preparing it takes, too."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is known of an image before a pixel is decoded."""

    header: ImageHeader
    shape: PreparedShape
    peak_bytes: int
    """Memory that decoding and preparing it hold at their highest, the result among it, the encoded file not."""


def probe(data: bytes | memoryview, preparer: Preparer) -> Probe | Rejection:
    """What the header says, and what the image will be and cost; no pixel is decoded."""
    found = inspect(data, preparer.limits)
    if isinstance(found, Rejection):
        return found
    shape = _shape(found.header, preparer)
    if isinstance(shape, Rejection):
        return shape
    prepared_bytes = 3 * shape.height * shape.width
    image_bytes = 3 * found.width * found.height
    return Probe(found.header, shape, max(found.peak_bytes, image_bytes + shape.work_bytes, prepared_bytes))


def prepare(data: bytes | memoryview, preparer: Preparer) -> NDArray[np.uint8] | Rejection:
    """Pixels as the assessor takes them, (H, W, 3). Raises MemoryError, which says nothing of the image."""
    image = decode(data, preparer.limits)
    if isinstance(image, Rejection):
        return image
    shape = _shape(image.header, preparer)
    if isinstance(shape, Rejection):
        return shape
    try:
        return preparer.prepare(image)
    except Exception as error:  # whatever an image does to a preparer is that image's fault
        return _unprepared(error, image.header)


def _shape(header: ImageHeader, preparer: Preparer) -> PreparedShape | Rejection:
    try:
        shape = preparer.shape(header)
    except Exception as error:  # as above
        return _unprepared(error, header)
    num_bytes = shape.height * shape.width * 3
    if num_bytes > PREPARED_BYTES:
        return Rejection(Reason.TOO_LARGE, f"prepared it has {num_bytes} bytes; the bound is {PREPARED_BYTES}", header)
    if shape.work_bytes > PREPARED_BYTES:
        detail = f"preparing it takes {shape.work_bytes} bytes; the bound is {PREPARED_BYTES}"
        return Rejection(Reason.TOO_LARGE, detail, header)
    return shape


def _unprepared(error: Exception, header: ImageHeader) -> Rejection:
    if isinstance(error, MemoryError):
        raise error
    return Rejection(Reason.CORRUPT, f"preparing it failed with {type(error).__name__}", header)
