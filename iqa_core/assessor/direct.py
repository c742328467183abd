"""Paths, bytes, Pillow images or arrays -> assessments, without Ray: for a notebook or somebody else's pipeline.

In three lines:

    from iqa_core.assessor.direct import assess_images, load_assessor
    assessor = load_assessor("demo")
    results = assess_images(assessor, ["kitchen.jpg", "hall.png"])
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from iqa_core.assessor.boundary import assess_each
from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.load import describe, load, own_limits
from iqa_core.assessor.protocol import Assessor
from iqa_core.errors import CallerError
from iqa_core.images.preparing import prepare
from iqa_core.records import Assessment, Reason, Rejection

ImageLike = str | Path | bytes | Image.Image | NDArray[np.uint8]


def load_assessor(checkpoint: str = "demo", rubric: str | None = None, **settings: Any) -> Assessor:
    """An assessor by the name of its checkpoint; settings are those of AssessorConfig. Raises CallerError."""
    config = AssessorConfig(checkpoint=checkpoint, **settings)
    return load(describe(config, rubric, own_limits(config)), config)


def assess_images(assessor: Assessor, images: Iterable[ImageLike]) -> list[Assessment | Rejection]:
    """One result per image, in order; an image that cannot be read or assessed is a Rejection in its place.

    An image gets the score that it gets in a job: it goes through the same decoder. Arrays are (H, W, 3) uint8.
    All prepared images are in memory at once, a few megabytes each.
    """
    prepared: list[NDArray[np.uint8] | Rejection] = []
    for image in images:
        data = _encoded(image)
        prepared.append(data if isinstance(data, Rejection) else prepare(data, assessor.preparer))
    assessed = iter(assess_each(assessor, [pixels for pixels in prepared if not isinstance(pixels, Rejection)]))
    return [found if isinstance(found, Rejection) else next(assessed) for found in prepared]


def _encoded(image: ImageLike) -> bytes | Rejection:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return read_file(Path(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise CallerError(f"an image array must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
        image = Image.fromarray(image)
    buffer = BytesIO()
    ImageOps.exif_transpose(image).save(buffer, format="TIFF")  # lossless, quick, and takes CMYK too
    return buffer.getvalue()


def read_file(path: Path) -> bytes | Rejection:
    """The bytes of a local file, or why there are none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return Rejection(Reason.MISSING, "there is no such file")
    except PermissionError:
        return Rejection(Reason.FORBIDDEN, "the file may not be read")
    except OSError as error:
        return Rejection(Reason.FETCH_FAILED, f"the file cannot be read: {error.strerror}")
