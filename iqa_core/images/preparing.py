"""Encoded bytes and a model's preparer -> what its assessor takes, or the rejection: no image raises.

Jobs, the endpoint, notebooks and evaluation all go through here, so the same bytes are rejected for the same reason.
An image is probed, which walks its container and decodes nothing, and then prepares itself. Where both are not done in
one process (the endpoint's decoders keep nothing between two questions) the container is walked in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_core.images.inspection import Inspected, inspect
from iqa_core.records import ImageHeader, PreparedShape, Preparer, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREPARED_BYTES = 2**31 - 1
"""Bytes of one prepared image at most, since it travels as one Arrow value, and of the memory that preparing takes."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is known of an image before a pixel is decoded; it may travel."""

    header: ImageHeader
    shape: PreparedShape
    peak_bytes: int
    """Memory that decoding and preparing it hold at their highest, the result among it, the encoded file not."""


@dataclass(frozen=True, slots=True)
class Preparable:
    """An image that was probed, and is decoded when it is asked for; it holds on to the file's bytes."""

    probe: Probe
    inspected: Inspected
    preparer: Preparer

    def prepare(self) -> NDArray[np.uint8] | Rejection:
        """Pixels as the assessor takes them, (H, W, 3). Raises MemoryError, which says nothing of the image."""
        image = self.inspected.decode()
        if isinstance(image, Rejection):
            return image
        try:
            return self.preparer.prepare(image)
        except Exception as error:  # whatever an image does to a preparer is that image's fault
            return _unprepared(error, image.header)


def probe(data: bytes | memoryview, preparer: Preparer) -> Preparable | Rejection:
    """What the image will be and cost, and the way to its pixels. Raises MemoryError, as `prepare`."""
    found = inspect(data, preparer.limits)
    if isinstance(found, Rejection):
        return found
    header = found.header
    shape = _shape(header, preparer)
    if isinstance(shape, Rejection):
        return shape
    prepared_bytes = 3 * shape.height * shape.width
    image_bytes = 3 * header.width * header.height
    peak_bytes = max(found.container.peak_bytes, image_bytes + shape.work_bytes, prepared_bytes)
    return Preparable(Probe(header, shape, peak_bytes), found, preparer)


def prepare(data: bytes | memoryview, preparer: Preparer) -> NDArray[np.uint8] | Rejection:
    """Pixels as the assessor takes them, (H, W, 3), of an image that is not to be probed before. Raises MemoryError."""
    found = probe(data, preparer)
    return found if isinstance(found, Rejection) else found.prepare()


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
