"""Prepared images of many callers -> assessments: the process that holds the assessor.

The assessor is loaded, isolated from what a single image does to it, and timed as in the scoring job. A batch that
takes too long, or breaks the device, ends this process; Serve starts another, and the ingress tries again what was
lost (see dispatch).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from iqa_core.assessor.batching import batch_bounds, time_limit_s
from iqa_core.assessor.isolation import AssessorBroken, assess_each, describe_each
from iqa_core.assessor.load import fingerprint, load_all
from iqa_core.assessor.protocol import Assessor, AssessorSpec, Describer
from iqa_core.deadline import deadline
from iqa_core.errors import CallerError
from iqa_core.grounding.batches import Grounded, Viewable, ground_each, viewer_of
from iqa_core.grounding.question import LocalQuestion
from iqa_core.records import FreeQuestion, ImageHeader, Preparer, Rejection, RgbImage
from iqa_core.rubrics import WrittenRubric
from iqa_core.slots import SAMPLE_TEXT, sample_texts
from serve.metrics import Metrics, report_to
from serve.model.asking import PreparedImage
from serve.model.batching import Batcher, Busy
from serve.model.results import NoViews, Outcome
from serve.model.served import describe_all
from serve.settings import ServeSettings

GROUPS = 4
"""As many groups of images that are written about at once may a batch hold: of one group's images, those of like size
are few (2.6 of 13), of four groups' they fill groups (7). More would make callers wait for one another."""


@dataclass(frozen=True, slots=True)
class Assessed:
    """One result per image, in order; Busy for those that found no room in the queue."""

    results: list[Outcome | Busy]
    other: tuple[AssessorSpec, ...] | None
    """The models that gave them, where they are not those that the caller named."""


@dataclass(frozen=True, slots=True)
class OtherModel:
    """Images or texts were prepared for other models than this replica's: prepare them anew, for these."""

    specs: tuple[AssessorSpec, ...]


class AssessorReplica:
    """The Serve deployment `Assessor`."""

    def __init__(self, settings: ServeSettings, counts: Any) -> None:
        """counts: handle of the deployment that adds up what happened."""
        # loaded before the process counts as started: a replica that cannot load fails its deployment
        self._specs = describe_all(settings)
        self._fingerprints = tuple(fingerprint(spec.fingerprint_parts) for spec in self._specs)
        self._assessors = {one.rubric.id: one for one in load_all(self._specs, settings.assessor)}
        for assessor in self._assessors.values():
            _warm_up(assessor)
        self._config = settings.assessor
        max_tokens, max_images = batch_bounds(settings.assessor, self._specs[0].rubric)
        for assessor in self._assessors.values():
            if isinstance(assessor.rubric, WrittenRubric):
                max_images = min(max_images, GROUPS * _describer(assessor).images_at_once)
        self._batcher = Batcher(self._assess, max_tokens, max_images, settings.max_waiting_images)
        # one thread: an assessor serves one caller at a time; the event loop stays free to queue the others
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="assess")
        self._metrics = Metrics()
        self._counts = counts
        self._reporting: asyncio.Task[None] | None = None

    async def assess(
        self,
        images: Sequence[PreparedImage],
        tokens: Sequence[int],
        callers: Sequence[str],
        preparer: Preparer,
        models: tuple[str, ...],
        is_alone: bool,
    ) -> Assessed | OtherModel:
        """One result per prepared image, in order, batched with whatever other callers sent.

        callers: whose each image is.
        preparer: what the images were prepared by. If it is not the one of the models here, or an image is to be asked
        about by a rubric that is not here or has other slots than the image has texts, nothing is assessed.
        models: fingerprints of the models that the caller believes to be here.
        """
        self._start_reporting()
        if preparer != self._specs[0].preparer or not all(map(self._can_ask, images)):
            return OtherModel(self._specs)
        results = await self._batcher.submit(images, tokens, callers, is_alone)
        return Assessed(results, None if models == self._fingerprints else self._specs)

    async def versions(self) -> Mapping[str, str]:
        """The first rubric's fingerprint, and versions of device and libraries; a replica that answers is ready."""
        self._start_reporting()
        first, *_ = self._assessors.values()
        return {"fingerprint": self._fingerprints[0], **first.versions}

    def _can_ask(self, image: PreparedImage) -> bool:
        found = self._assessors.get(image.rubric)
        if found is None:
            return False
        rubric, question = found.rubric, image.question
        if isinstance(question, FreeQuestion):
            return isinstance(rubric, WrittenRubric) and question.max_tokens <= rubric.decoding.max_new_tokens
        has_names = question is None or {*question.names} <= {*rubric.names}
        return has_names and image.texts.keys() == set(rubric.slots)

    async def _assess(self, images: Sequence[PreparedImage]) -> list[Outcome]:
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, self._assess_in_time, images)
        self._metrics.batch(len(images), time.monotonic() - began)
        return results

    def _assess_in_time(self, images: Sequence[PreparedImage]) -> list[Outcome]:
        try:
            runs = len({type(image.question) for image in images})  # each kind goes through the model by itself
            with deadline(runs * time_limit_s(self._config, self._specs[0].rubric, len(images))):
                return self._assess_by_rubric(images)
        except AssessorBroken as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)

    def _assess_by_rubric(self, images: Sequence[PreparedImage]) -> list[Outcome]:
        """One result per image, in order; those of one rubric go through the model together."""
        results: dict[int, Outcome] = {}
        for (id, kind), places in _by_rubric(images).items():
            found = WORK[kind](self._assessors[id], [images[place] for place in places])
            results.update(zip(places, found, strict=True))
        return [results[place] for place in range(len(images))]

    def _start_reporting(self) -> None:
        if self._reporting is None:
            gauge = lambda: {"waiting_images": self._batcher.num_waiting}  # noqa: E731
            self._reporting = asyncio.create_task(report_to(self._counts, self._metrics, gauge))


def _warm_up(assessor: Assessor) -> None:
    """The first batch of a process takes seconds more: not at a caller's cost."""
    grey = RgbImage(np.full((64, 64, 3), 128, np.uint8), ImageHeader(64, 64, "png", 1))
    pixels = assessor.preparer.prepare(grey)
    assessor.assess([pixels], sample_texts(assessor.rubric.slots, 1))
    if isinstance(assessor.rubric, WrittenRubric):
        _describer(assessor).describe([pixels], [FreeQuestion(SAMPLE_TEXT, 1)])


def _by_rubric(images: Iterable[PreparedImage]) -> dict[tuple[str, type], list[int]]:
    """Rubric's id, and kind of the question that is asked instead of its own -> places of such images."""
    places: dict[tuple[str, type], list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault((image.rubric, type(image.question)), []).append(place)
    return places


def _assessed(assessor: Assessor, images: Sequence[PreparedImage]) -> Sequence[Outcome]:
    texts = [image.texts for image in images] if assessor.rubric.slots else None
    return assess_each(assessor, [image.pixels_HWC for image in images], texts)


def _described(assessor: Assessor, images: Sequence[PreparedImage]) -> Sequence[Outcome]:
    questions = [image.question for image in images if isinstance(image.question, FreeQuestion)]
    return describe_each(_describer(assessor), [image.pixels_HWC for image in images], questions)


def _grounded(assessor: Assessor, images: Sequence[PreparedImage]) -> Sequence[Outcome]:
    try:
        viewer_of(assessor).view_grid(images[0].pixels_HWC)
    except CallerError as error:
        return [NoViews(str(error))] * len(images)
    alike: dict[tuple[tuple[str, ...], int], dict[int, Viewable]] = {}
    for place, image in enumerate(images):
        question, header = image.question, image.header
        assert isinstance(question, LocalQuestion)
        viewable = Viewable(image.pixels_HWC, header.width, header.height, question.boxes, image.texts)
        alike.setdefault((question.names, question.cells), {})[place] = viewable
    found: dict[int, Grounded | Rejection] = {}
    for (names, cells), some in alike.items():
        found.update(zip(some, ground_each(assessor, [*some.values()], names, cells), strict=True))
    return [found[place] for place in range(len(images))]


WORK: Mapping[type, Callable[[Assessor, Sequence[PreparedImage]], Sequence[Outcome]]] = {
    type(None): _assessed,
    FreeQuestion: _described,
    LocalQuestion: _grounded,
}
"""Kind of what is asked instead of a rubric's own questions -> how it is answered."""


def _describer(assessor: Assessor) -> Describer:
    """The assessor of a written rubric, as what answers free questions."""
    assert isinstance(assessor, Describer)
    return assessor
