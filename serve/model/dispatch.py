"""Encoded images of one request, and their texts -> what an assessor says of each, whatever becomes of its replica.

A replica that dies takes with it whatever it held: the images of several callers, one of which may be the cause. So
they are tried again one at a time, and an image with which a replica dies twice, alone, is rejected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ray.exceptions import RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from iqa_core.assessor.batching import batch_bounds
from iqa_core.assessor.protocol import AssessorSpec
from iqa_core.errors import CallerError
from iqa_core.records import FreeQuestion, Preparer, Reason, Rejection
from iqa_core.rubrics import AnyRubric
from serve.decoding.decoders import Decoders, DecodersDown, probing_bytes
from serve.decoding.groups import Probed, groups, is_quick, probe
from serve.errors import Refusal
from serve.metrics import Metrics
from serve.model.asking import AskedLocally, PreparedImage, Texts, asked
from serve.model.batching import Busy
from serve.model.gathering import Gatherer, QueueFull
from serve.model.replica import Assessed, OtherModel
from serve.model.results import (
    AnyResult,
    DescribedImage,
    Description,
    GroundedImage,
    Grounding,
    ImageResult,
    Model,
    NoViews,
    Outcome,
    ScoredImage,
    results_of,
)
from serve.model.served import Served
from serve.settings import ServeSettings
from serve.sharing.shares import Shares
from serve.sharing.side_by_side import all_of

T = TypeVar("T")

DEATHS_ALONE = 2
"""Replicas that may die with one image and nothing else in hand; then that image is rejected."""

MODEL_CHANGES = 4
"""Times that one request is begun anew while another model takes over: the replica asked may be an old one or a new."""

DIED = (RayActorError, WorkerCrashedError)


class Unavailable(Exception):
    """Nobody can answer now (503)."""


class Overloaded(Exception):
    """Too many are asking (429)."""


class _ModelChanged(Exception):
    """A replica with other models was reached; the images must be prepared for those."""


class Dispatcher:
    """What an ingress does with images. Lives in one event loop."""

    def __init__(
        self, replicas: Any, served: Served, settings: ServeSettings, metrics: Metrics, decoders: Decoders
    ) -> None:
        """replicas: handle of the deployment that holds the assessor."""
        self.served = self._own = served
        self._replicas = replicas
        self._settings = settings
        self._metrics = metrics
        self._decoders = decoders
        self._turns = Shares(settings.decoders)
        self._memory = Shares(settings.max_decode_bytes)
        self._waiting = Shares(settings.max_waiting_images)  # of all gatherers: there are several during a takeover
        self._gatherers: dict[tuple[str, ...], Gatherer] = {}
        self._suspects = Shares(1)

    async def assess(
        self, images: Sequence[bytes | Rejection], texts: Sequence[Texts], caller: str, rubric: str | None = None
    ) -> tuple[Model, list[ImageResult]]:
        """One result per image, in order, all by one model.

        texts: what was sent for each image's slots. rubric: id of the one that asks; None is the first.
        Raises Unavailable or Overloaded, and Refusal where the rubric is not served.
        """
        model, results = await self._asked(images, texts, caller, rubric)
        return model, [one for one in results if isinstance(one, ScoredImage | Rejection)]

    async def describe(
        self, images: Sequence[bytes | Rejection], question: FreeQuestion, caller: str
    ) -> tuple[Model, list[Description]]:
        """One answer to the question per image, likewise; the written rubric is the only one."""
        model, results = await self._asked(images, [question] * len(images), caller, None)
        return model, [one for one in results if isinstance(one, DescribedImage | Rejection)]

    async def ground(
        self,
        images: Sequence[bytes | Rejection],
        questions: Sequence[AskedLocally],
        caller: str,
        rubric: str | None = None,
    ) -> tuple[Model, list[Grounding]]:
        """One result per image, likewise, to the question about its parts. Raises Refusal (404) without views, too."""
        model, results = await self._asked(images, questions, caller, rubric)
        for one in results:
            if isinstance(one, NoViews):
                raise Refusal(404, one.detail)
        return model, [one for one in results if isinstance(one, GroundedImage | Rejection)]

    async def _asked(
        self,
        images: Sequence[bytes | Rejection],
        texts: Sequence[Texts | AskedLocally | FreeQuestion],
        caller: str,
        rubric: str | None,
    ) -> tuple[Model, list[AnyResult]]:
        for _ in range(MODEL_CHANGES):
            try:
                return await self._asked_once(images, texts, caller, rubric)
            except _ModelChanged:
                self._metrics.retries["model changed"] += 1
        raise Unavailable("another model is taking over; try again")

    def model(self, rubric: str | None) -> Model:
        """The model that answers a rubric, as far as is known. Raises Refusal (422) where there is no such rubric."""
        return self._serving(rubric).model(rubric)

    @property
    def rubrics(self) -> tuple[AnyRubric, ...]:
        """Those that may be asked, the first as the default."""
        there = self.served
        return (*there.rubrics, *(one for one in self._kept.rubrics if one.id not in there.ids))

    @property
    def _kept(self) -> Served:
        """What this ingress came with where that are several rubrics; one alone is what is behind the handle."""
        return self._own if len(self._own.models) > 1 else self.served

    def _serving(self, rubric: str | None) -> Served:
        """What was last found behind the handle; what this ingress came with where that alone has the rubric.

        While one application takes over from another, the replica asked last may be an old one without the rubric, and
        no request that names it would ever reach another.
        """
        return self._kept if rubric in self._kept.ids - self.served.ids else self.served

    async def ready(self) -> None:
        """Check that images can be decoded. Raises Unavailable where they cannot."""
        try:
            await self._decoders.ready(self.served.preparer)
        except DecodersDown as error:
            raise Unavailable(str(error)) from None

    async def _asked_once(
        self,
        images: Sequence[bytes | Rejection],
        texts: Sequence[Texts | AskedLocally | FreeQuestion],
        caller: str,
        rubric: str | None,
    ) -> tuple[Model, list[AnyResult]]:
        served = self._serving(rubric)
        model = served.model(rubric)
        limits = self._settings.text_limits
        probed = [
            asked(self._fitting(image), own, model.spec, limits)
            for image, own in zip(await self._probe_all(images, served.preparer, caller), texts, strict=True)
        ]
        parts = list(groups(probed, *self._bounds(served), self._memory.half))
        answers = await all_of(
            self._assess_group([_sound(probed[place]) for place in part], served, model.spec.rubric.id, caller)
            for part in parts
        )
        models = {seen.fingerprint: seen for seen, _ in answers} or {model.fingerprint: model}
        if len(models) > 1:
            raise _ModelChanged
        [answerer] = models.values()
        found: dict[int, AnyResult] = {}
        for part, (_, results) in zip(parts, answers, strict=True):
            found.update(zip(part, results, strict=True))
        return answerer, [image if isinstance(image, Rejection) else found[place] for place, image in enumerate(probed)]

    async def _probe_all(
        self, images: Sequence[bytes | Rejection], preparer: Preparer, caller: str
    ) -> list[Probed | Rejection]:
        """What each image will cost. A quick one by itself is probed here: a decoder would take three times as long."""
        if len(images) == 1 and isinstance(images[0], bytes) and is_quick(images[0]):
            return [probe(images[0], preparer)]
        return await all_of(self._probe(data, preparer, caller) for data in images)

    async def _probe(self, data: bytes | Rejection, preparer: Preparer, caller: str) -> Probed | Rejection:
        if isinstance(data, Rejection):
            return data
        async with self._memory.held(caller, probing_bytes(data, preparer)):
            return await self._by_decoder(caller, lambda: self._decoders.probe(data, preparer))

    def _fitting(self, image: Probed | Rejection) -> Probed | Rejection:
        """The image, or its rejection where decoding it takes more memory than there is for all callers together."""
        whole = self._settings.max_decode_bytes
        if isinstance(image, Rejection) or image.peak_bytes <= whole:
            return image
        detail = f"decoding it takes {image.peak_bytes} bytes of memory; this endpoint has {whole}"
        return Rejection(Reason.TOO_LARGE, detail, image.header)

    async def _by_decoder(self, caller: str, work: Callable[[], Awaitable[T]]) -> T:
        async with self._turns.held(caller, 1):
            try:
                return await work()
            except DecodersDown as error:
                raise Unavailable(str(error)) from None

    async def _prepare(self, image: Probed, preparer: Preparer, caller: str) -> Any | Rejection:
        return await self._by_decoder(caller, lambda: self._decoders.prepare(image, preparer))

    async def _assess_group(
        self, images: Sequence[Probed], served: Served, rubric: str, caller: str
    ) -> tuple[Model, list[AnyResult]]:
        headers = [image.header for image in images]
        async with self._memory.held(caller, sum(image.peak_bytes for image in images)) as hold:
            prepared = await all_of(self._prepare(image, served.preparer, caller) for image in images)
            hold.shrink_to(sum(image.prepared_bytes for image in images))
            ready = {
                place: PreparedImage(found, headers[place], rubric, images[place].texts, images[place].question)
                for place, found in enumerate(prepared)
                if not isinstance(found, Rejection)
            }
            if not ready:
                model = served.model(rubric)
                return model, results_of(headers, prepared, model)
            tokens = [images[place].tokens for place in ready]
            answerer, results = await self._assess_prepared(list(ready.values()), tokens, served, caller)
        by_place = dict(zip(ready, results, strict=True))
        outcomes = [by_place.get(place, found) for place, found in enumerate(prepared)]
        model = answerer.model(rubric)
        return model, results_of(headers, outcomes, model)

    async def _assess_prepared(
        self, images: Sequence[PreparedImage], tokens: Sequence[int], served: Served, caller: str
    ) -> tuple[Served, list[Outcome]]:
        try:
            return await self._ask(images, tokens, served, caller, is_alone=False)
        except DIED:
            self._metrics.retries["replica died"] += 1
        answers = [
            await self._assess_alone(image, cost, served, caller) for image, cost in zip(images, tokens, strict=True)
        ]
        if len({answerer.fingerprints for answerer, _ in answers}) > 1:
            raise _ModelChanged
        return answers[0][0], [outcome for _, outcome in answers]

    async def _assess_alone(
        self, image: PreparedImage, tokens: int, served: Served, caller: str
    ) -> tuple[Served, Outcome]:
        for _ in range(DEATHS_ALONE):
            async with self._suspects.held(caller, 1):  # one suspect at a time, so that a death has one cause
                try:
                    answerer, [outcome] = await self._ask([image], [tokens], served, caller, is_alone=True)
                    return answerer, outcome
                except DIED:
                    self._metrics.retries["replica died with one image"] += 1
        return served, Rejection(Reason.ASSESSOR_FAILED, f"{DEATHS_ALONE} assessor processes died of it")

    async def _ask(
        self, images: Sequence[PreparedImage], tokens: Sequence[int], served: Served, caller: str, is_alone: bool
    ) -> tuple[Served, list[Outcome]]:
        if is_alone:
            answer, mine = await self._call(images, tokens, [caller] * len(images), served, is_alone=True), slice(None)
        else:
            try:
                answer, mine = await self._gatherer(served).ask(caller, images, tokens)
            except QueueFull:
                raise self._overloaded() from None
        if isinstance(answer, OtherModel):
            self._adopt(answer.specs)
            raise _ModelChanged
        results = [result for result in answer.results[mine] if not isinstance(result, Busy)]
        if len(results) < len(images):
            raise self._overloaded()
        return served if answer.other is None else self._adopt(answer.other), results

    def _overloaded(self) -> Overloaded:
        self._metrics.turned_away["images"] += 1
        return Overloaded("too many images wait for the assessor; try again")

    def _gatherer(self, served: Served) -> Gatherer:
        """The gatherer of what is served: images of all its rubrics go in one call, those of other models in others."""
        if served.fingerprints not in self._gatherers:
            self._gatherers = {  # those of earlier models have nothing more to gather, and end with their last caller
                served.fingerprints: Gatherer(
                    lambda images, tokens, callers: self._call(images, tokens, callers, served, is_alone=False),
                    *self._bounds(served),
                    self._waiting,
                )
            }
        return self._gatherers[served.fingerprints]

    def _bounds(self, served: Served) -> tuple[int, int]:
        """Tokens and images of one batch; a written rubric is served alone."""
        return batch_bounds(self._settings.assessor, served.rubrics[0])

    async def _call(
        self,
        images: Sequence[PreparedImage],
        tokens: Sequence[int],
        callers: Sequence[str],
        served: Served,
        is_alone: bool,
    ) -> Assessed | OtherModel:
        try:
            call = self._replicas.assess.remote(
                list(images), list(tokens), list(callers), served.preparer, served.fingerprints, is_alone
            )
            try:
                answer: Assessed | OtherModel = await call
            except asyncio.CancelledError:
                call.cancel()  # the caller is gone, or out of time: its images leave the queue
                if (task := asyncio.current_task()) and not task.cancelling():  # it was Serve that ended the call
                    raise Unavailable("the call to the assessor was ended; try again") from None
                raise
            return answer
        except BackPressureError:
            raise self._overloaded() from None
        except DeploymentUnavailableError:
            raise Unavailable("the assessor is not running") from None

    def _adopt(self, specs: Sequence[AssessorSpec]) -> Served:
        try:
            self.served = self._own.taken_over(specs, self._settings)
        except CallerError:
            raise Unavailable("another model is taking over, which this ingress cannot speak for; try again") from None
        return self.served


def _sound(image: Probed | Rejection) -> Probed:
    assert isinstance(image, Probed)
    return image
