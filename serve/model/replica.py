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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from iqa_core.assessor.isolation import AssessorBroken, assess_each
from iqa_core.assessor.load import describe, fingerprint, load
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.deadline import deadline
from iqa_core.records import Assessment, ImageHeader, Preparer, Rejection, RgbImage
from iqa_core.slots import sample_texts
from serve.metrics import Metrics, report_to
from serve.model.asking import PreparedImage
from serve.model.batching import Batcher, Busy
from serve.settings import ServeSettings


@dataclass(frozen=True, slots=True)
class Assessed:
    """One result per image, in order; Busy for those that found no room in the queue."""

    results: list[Assessment | Rejection | Busy]
    other: AssessorSpec | None
    """The model that gave them, where it is not the one that the caller named."""


@dataclass(frozen=True, slots=True)
class OtherModel:
    """Images or texts were prepared for another model than this replica's: prepare them anew, for this one."""

    spec: AssessorSpec


class AssessorReplica:
    """The Serve deployment `Assessor`."""

    def __init__(self, settings: ServeSettings, counts: Any) -> None:
        """counts: handle of the deployment that adds up what happened."""
        # loaded before the process counts as started: a replica that cannot load fails its deployment
        self._spec = describe(settings.assessor, settings.rubric, settings.limits)
        self._fingerprint = fingerprint(self._spec.fingerprint_parts)
        self._assessor = load(self._spec, settings.assessor)
        self._warm_up()
        self._timeout_s = settings.assessor.timeout_s
        self._batch_tokens = settings.assessor.batch_tokens
        self._batcher = Batcher(self._assess, settings.assessor.batch_tokens, settings.max_waiting_images)
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
        model: str,
        is_alone: bool,
    ) -> Assessed | OtherModel:
        """One result per prepared image, in order, batched with whatever other callers sent.

        callers: whose each image is.
        preparer: what the images were prepared by. If it is not this model's own, or the images have other texts than
        its rubric has slots, nothing is assessed.
        model: fingerprint of the model that the caller believes to be here.
        """
        self._start_reporting()
        slots = set(self._spec.rubric.slots)
        if preparer != self._spec.preparer or any(image.texts.keys() != slots for image in images):
            return OtherModel(self._spec)
        results = await self._batcher.submit(images, tokens, callers, is_alone)
        return Assessed(results, None if model == self._fingerprint else self._spec)

    async def versions(self) -> Mapping[str, str]:
        """The fingerprint, and versions of device and libraries; a replica that answers is ready."""
        self._start_reporting()
        return {"fingerprint": self._fingerprint, **self._assessor.versions}

    def _warm_up(self) -> None:
        """The first batch of a process takes seconds more: not at a caller's cost."""
        grey = RgbImage(np.full((64, 64, 3), 128, np.uint8), ImageHeader(64, 64, "png", 1))
        self._assessor.assess([self._spec.preparer.prepare(grey)], sample_texts(self._spec.rubric.slots, 1))

    async def _assess(self, images: Sequence[PreparedImage]) -> list[Assessment | Rejection]:
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, self._assess_in_time, images)
        self._metrics.batch(len(images), time.monotonic() - began)
        return results

    def _assess_in_time(self, images: Sequence[PreparedImage]) -> list[Assessment | Rejection]:
        texts = [image.texts for image in images] if self._spec.rubric.slots else None
        try:
            with deadline(self._timeout_s):
                return assess_each(self._assessor, [image.pixels_HWC for image in images], texts)
        except AssessorBroken as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)

    def _start_reporting(self) -> None:
        if self._reporting is None:
            gauge = lambda: {"waiting_images": self._batcher.num_waiting}  # noqa: E731
            self._reporting = asyncio.create_task(report_to(self._counts, self._metrics, gauge))
