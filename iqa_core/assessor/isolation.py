"""Prepared images and their texts -> one result each; an image on which the assessor fails costs only itself.

This is the only place where an exception of an assessor becomes the rejection of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from iqa_core.assessor.protocol import Assessor, Describer, View, Viewed, Viewer
from iqa_core.errors import RunError
from iqa_core.records import Assessment, FreeAnswer, FreeQuestion, Reason, Rejection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


T = TypeVar("T")
R = TypeVar("R")


class AssessorBroken(Exception):
    """Raised when this process can assess nothing more: a fault of the accelerator lasts until the process ends."""


def assess_each(
    assessor: Assessor, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
) -> list[Assessment | Rejection]:
    """One result per image, in order. A batch that raises is tried image by image; an image that raises is rejected.

    texts: as `Assessor.assess` takes them.
    Raises AssessorBroken when the fault is the accelerator's.
    """
    if texts is None:
        return _each(images, assessor.assess)
    return _each(
        [*zip(images, texts, strict=True)],
        lambda part: assessor.assess([image for image, _ in part], [own for _, own in part]),
    )


def describe_each(
    describer: Describer, images: Sequence[NDArray[np.uint8]], questions: Sequence[FreeQuestion]
) -> list[FreeAnswer | Rejection]:
    """The same for free questions, one per image."""
    return _each(
        [*zip(images, questions, strict=True)],
        lambda part: describer.describe([image for image, _ in part], [own for _, own in part]),
    )


def assess_views_each(
    viewer: Viewer,
    images: Sequence[NDArray[np.uint8]],
    views: Sequence[Sequence[View]],
    names: Sequence[str],
    texts: Sequence[Mapping[str, str]] | None = None,
) -> list[list[Assessment | Rejection] | Rejection]:
    """The same for views of images. views, names, texts: as `Viewer.assess_views` takes them."""
    return _viewed_each(viewer.assess_views, images, views, names, texts)


def assess_with_views_each(
    viewer: Viewer,
    images: Sequence[NDArray[np.uint8]],
    views: Sequence[Sequence[View]],
    names: Sequence[str],
    texts: Sequence[Mapping[str, str]] | None = None,
) -> list[Viewed | Rejection]:
    """The same for images and views of them at once."""
    return _viewed_each(viewer.assess_with_views, images, views, names, texts)


def _viewed_each(
    ask: Callable[..., list[R | Rejection]],
    images: Sequence[NDArray[np.uint8]],
    views: Sequence[Sequence[View]],
    names: Sequence[str],
    texts: Sequence[Mapping[str, str]] | None,
) -> list[R | Rejection]:
    return _each(
        [*zip(images, views, [{}] * len(images) if texts is None else texts, strict=True)],
        lambda part: ask(
            [image for image, _, _ in part],
            [own for _, own, _ in part],
            names,
            None if texts is None else [own for _, _, own in part],
        ),
    )


def _each(items: Sequence[T], work: Callable[[Sequence[T]], list[R | Rejection]]) -> list[R | Rejection]:
    try:
        return work(items)
    except RunError:  # of a server that is gone: no image's fault
        raise
    except Exception as error:
        if type(error).__name__ == "AcceleratorError":
            raise AssessorBroken(str(error)) from error
        if len(items) == 1:
            return [Rejection(Reason.ASSESSOR_FAILED, f"assessing it failed with {type(error).__name__}")]
    return [result for item in items for result in _each([item], work)]
