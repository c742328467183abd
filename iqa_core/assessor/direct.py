"""Paths, bytes, Pillow images, arrays, tensors -> assessments, without Ray: for a notebook, or another pipeline.

In three lines:

    from iqa_core.assessor.direct import assess_images, load_assessor
    assessor = load_assessor("demo")
    results = assess_images(assessor, ["kitchen.jpg", "hall.png"])
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import describe, load, own_limits
from iqa_core.assessor.protocol import Assessor
from iqa_core.images.in_memory import ImageLike, as_file, listed
from iqa_core.images.preparing import prepare
from iqa_core.records import Assessment, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def load_assessor(checkpoint: str = "demo", rubric: str | None = None, **settings: Any) -> Assessor:
    """An assessor by the name of its checkpoint; settings are those of AssessorConfig. Raises CallerError."""
    config = AssessorConfig(checkpoint=checkpoint, **settings)
    return load(describe(config, rubric, own_limits(config)), config)


def assess_images(assessor: Assessor, images: Iterable[ImageLike]) -> list[Assessment | Rejection]:
    """One result per image, in order; an image that cannot be read or assessed is a Rejection in its place.

    An image gets the score that its file gets in a job: it goes through the same decoder, upright and on white. What is
    taken is said in `iqa_core.images.in_memory`. All prepared images are in memory at once, a few megabytes each.
    Raises CallerError on a single image or a folder instead of a list, and on arrays and tensors of another kind.
    """
    prepared: list[NDArray[np.uint8] | Rejection] = []
    for image in listed(images):
        data = _encoded(image)
        prepared.append(data if isinstance(data, Rejection) else prepare(data, assessor.preparer))
    assessed = iter(assess_each(assessor, [pixels for pixels in prepared if not isinstance(pixels, Rejection)]))
    return [found if isinstance(found, Rejection) else next(assessed) for found in prepared]


def _encoded(image: ImageLike) -> bytes | Rejection:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        return read_file(Path(image))
    return as_file(image, compress_level=0)


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
    except ValueError:  # a name with a zero byte or a lone surrogate
        return Rejection(Reason.MISSING, "no file can have this name")
