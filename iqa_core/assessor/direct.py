"""Paths, bytes, Pillow images, arrays, tensors, and their texts -> assessments, without Ray: for a notebook.

In three lines:

    from iqa_core.assessor.direct import assess_images, load_assessor
    assessor = load_assessor("demo")
    results = assess_images(assessor, ["kitchen.jpg", "hall.png"])

With a rubric that has a slot, an image comes with its text: `assess_images(assessor, images, ["a kitchen", "a hall"])`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.isolation import assess_each
from iqa_core.assessor.load import describe, load, own_limits
from iqa_core.assessor.protocol import Assessor
from iqa_core.errors import CallerError
from iqa_core.images.in_memory import ImageLike, as_file, listed
from iqa_core.images.preparing import prepare
from iqa_core.records import Assessment, Reason, Rejection
from iqa_core.slots import TextLimits, texts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def load_assessor(checkpoint: str = "demo", rubric: str | None = None, **settings: Any) -> Assessor:
    """An assessor by the name of its checkpoint; settings are those of AssessorConfig. Raises CallerError."""
    config = AssessorConfig(checkpoint=checkpoint, **settings)
    return load(describe(config, rubric, own_limits(config)), config)


def assess_images(
    assessor: Assessor,
    images: Iterable[ImageLike],
    texts: Iterable[object] | None = None,
    limits: TextLimits = TextLimits(),
) -> list[Assessment | Rejection]:
    """One result per image, in order; an image that cannot be read or assessed is a Rejection in its place.

    An image gets the score that its file gets in a job: it goes through the same decoder, upright and on white. What is
    taken is said in `iqa_core.images.in_memory`. All prepared images are in memory at once, a few megabytes each.
    texts: of each image, slot of the rubric -> text, or the text itself where there is one slot. limits: their bounds.
    Raises CallerError on a single image or a folder instead of a list, on arrays and tensors of another kind, and where
    there is not one text, or one mapping, for each image.
    """
    slots = assessor.rubric.slots
    asked = iter(texts_asked(slots, texts, limits))
    prepared: list[NDArray[np.uint8] | Rejection] = []
    taken: list[dict[str, str]] = []
    for image in listed(images):
        own = next(asked, None)
        if own is None:
            raise CallerError(f"there are {len(prepared)} texts and more images: give one for each image")
        found = _prepared(image, assessor)
        if not isinstance(found, Rejection) and not isinstance(own, Rejection):
            taken.append(own)
        elif isinstance(own, Rejection) and not isinstance(found, Rejection):  # an image's own fault comes first
            found = own
        prepared.append(found)
    if slots and next(asked, None) is not None:
        raise CallerError(f"there are {len(prepared)} images and more texts: give one for each image")
    pixels = [found for found in prepared if not isinstance(found, Rejection)]
    assessed = iter(assess_each(assessor, pixels, taken if slots else None))
    return [found if isinstance(found, Rejection) else next(assessed) for found in prepared]


def texts_asked(
    slots: Sequence[str], texts: Iterable[object] | None, limits: TextLimits
) -> Iterator[dict[str, str] | Rejection]:
    """The texts of each image, in order; empty ones without end where the rubric has no slots. Raises CallerError."""
    if not slots:
        if texts is not None:
            raise CallerError("there are texts, but the rubric has no slots: leave them out, or give the rubric slots")
        yield from repeat({})
        return
    named = ", ".join(f"{{{slot}}}" for slot in slots)
    if texts is None or isinstance(texts, str | Mapping):
        raise CallerError(f"the rubric asks with {named}: give texts=[...], one for each image")
    for text in texts:
        values = text if isinstance(text, Mapping) or len(slots) > 1 else {slots[0]: text}
        if not isinstance(values, Mapping):
            raise CallerError(f"the rubric asks with {named}: give a mapping of these names to texts for each image")
        yield texts_of(slots, values, limits)


def _prepared(image: ImageLike, assessor: Assessor) -> NDArray[np.uint8] | Rejection:
    data = encoded(image)
    return data if isinstance(data, Rejection) else prepare(data, assessor.preparer)


def encoded(image: ImageLike) -> bytes | Rejection:
    """The file of an image, whatever form it has, or why there is none. Raises CallerError on what is no image."""
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
