"""Routes of the endpoint -> questions to the dispatcher -> JSON."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from iqa_core.errors import listed
from iqa_core.records import Rejection
from iqa_core.rubrics import AnyRubric, WrittenRubric
from serve.admission.places import Admission
from serve.errors import JSON, Refusal, come_back
from serve.fetching.fetcher import Fetcher
from serve.metrics import Metrics
from serve.model.asking import Texts, num_cut
from serve.model.dispatch import Dispatcher, Overloaded, Unavailable
from serve.model.results import ImageResult, Model
from serve.protocol.answers import answer, description, ranked_answer
from serve.protocol.bodies import EncodedImage, Question, understood
from serve.protocol.chat import ChatCompletion, chat_question, completion, listed_models
from serve.protocol.describing import asked_freely, described, free_question, writing
from serve.protocol.dialects import REWARD, flow_factory_answer, flow_factory_images, unirl_answer, unirl_images
from serve.protocol.flow_grpo import PICKLE, flow_grpo_answer, flow_grpo_images
from serve.protocol.grounding import asked_about_parts, grounded
from serve.protocol.json_values import SMALL_BODY_BYTES
from serve.protocol.openapi import (
    chat_body,
    describe_bodies,
    dialect_body,
    free_question_body,
    parts_body,
    pickle_body,
    question_body,
)
from serve.protocol.question_texts import asked_question
from serve.protocol.texts import check_texts
from serve.settings import ServeSettings
from serve.sharing.side_by_side import SingleFlight
from serve.sharing.threads import Threads

T = TypeVar("T")

PAGE = Path(__file__).with_name("page.html")

READY_WITHIN_S = 2.0

BY_RUBRIC = "/rubrics/{rubric}"
"""Below it, the dialects ask the rubric of this id."""
LOOKED_AT_BY_DIALECTS = ("/rewards", "/health")

PARSE_THREADS = 2
"""More would only take turns: they share the interpreter with the event loop."""


class Api:
    """What the routes share. Lives in one event loop."""

    def __init__(
        self, dispatcher: Dispatcher, replicas: Any, counts: Any, settings: ServeSettings, metrics: Metrics
    ) -> None:
        self._dispatcher = dispatcher
        self._replicas = replicas
        self._counts = counts
        self._settings = settings
        self._metrics = metrics
        self._fetcher = Fetcher(settings)
        self._page = PAGE.read_bytes()
        self._parsers = Threads(PARSE_THREADS, "parse")
        self._began = int(time.time())
        self._looks_ready = SingleFlight(self._look_if_ready)
        self._counted = SingleFlight(self._count)

    async def assess(self, request: Request) -> Response:
        """Scores, spread and reward of each image, or the reason why it has none."""
        return _json(answer(*await self._answered(request)))

    async def rank(self, request: Request) -> Response:
        """The images of one prompt, best first."""
        return _json(ranked_answer(*await self._answered(request)))

    async def ground(self, request: Request) -> Response:
        """Where each image is worst, and what its boxes score, or the reason why it has no such scores."""
        kind = request.headers.get("content-type", "")
        asked = await self._parsed(request, lambda body, max_images: asked_about_parts(body, kind, max_images))
        rubric, caller = asked.question.rubric, admission_of(request).caller
        asked = asked.about(self._dispatcher.model(rubric).spec.rubric)
        texts = [image.texts for image in asked.images]
        check_texts(texts, self._dispatcher.model(rubric).spec.rubric)
        model, results = await self._tried(
            asked.images, request, lambda data: self._dispatcher.ground(data, asked.questions, caller, rubric)
        )
        asked.about(model.spec.rubric)  # another one may have taken over meanwhile
        self._count_texts(texts, model.spec.rubric)
        for one in results:
            self._metrics.image(str(one.reason) if isinstance(one, Rejection) else "grounded")
        return _json(grounded(asked.question, model, results))

    async def describe(self, request: Request) -> Response:
        """What the model writes about each image in answer to any question, or the reason why it writes nothing."""
        rubric = writing(self._dispatcher.model(None).spec.rubric)
        kind = request.headers.get("content-type", "")
        asked = await self._parsed(request, lambda body, max_images: asked_freely(body, kind, max_images))
        question, caller = free_question(asked, rubric, self._settings.slot_chars), admission_of(request).caller
        model, results = await self._tried(
            asked.images, request, lambda data: self._dispatcher.describe(data, question, caller)
        )
        for one in results:
            self._metrics.image(str(one.reason) if isinstance(one, Rejection) else "described")
        return _json(described(model, results))

    async def models(self) -> Response:
        """What is served, and what its numbers mean; and what OpenAI's clients may send as their `model`."""
        listed = listed_models(self.rubrics, self._began)
        models = [description(self._dispatcher.model(rubric.id)) for rubric in self.rubrics]
        return _json({"models": models, **listed})

    async def chat(self, request: Request) -> Response:
        """One question of a rubric about one image, for OpenAI's clients: the probabilities of its answers."""
        return _json(await self._completed(request))

    async def unirl_score(self, request: Request) -> Response:
        """The dialect of UniRL's reward service."""
        _check_type(request, (JSON,))
        images = await self._parsed(request, unirl_images)
        return _json(unirl_answer(*await self._assessed(images, request, _rubric_in_path(request))))

    async def unirl_rewards(self, request: Request) -> Response:
        """Names that `required_rewards` may hold."""
        self._dispatcher.model(_rubric_in_path(request))
        return _json({"rewards": [REWARD]})

    async def flow_factory_compute(self, request: Request) -> Response:
        """The dialect of Flow-Factory's remote reward."""
        _check_type(request, (JSON,))
        images = await self._parsed(request, flow_factory_images)
        return _json(flow_factory_answer(*await self._assessed(images, request, _rubric_in_path(request))))

    async def flow_grpo(self, request: Request) -> Response:
        """The dialect of flow_grpo's and verl-omni's remote rewards: a pickle of plain values, in and out."""
        _check_type(request, ("", PICKLE))  # the first of them names none
        images = await self._parsed(request, flow_grpo_images)
        model, results = await self._assessed(images, request, _rubric_in_path(request))
        return Response(flow_grpo_answer(model, results), media_type=PICKLE)

    @property
    def rubrics(self) -> tuple[AnyRubric, ...]:
        """Those that are served."""
        return self._dispatcher.rubrics

    @property
    def dialects(self) -> tuple[str, ...]:
        """Dialects that are spoken only where the settings say so."""
        return self._settings.dialects

    async def healthz(self) -> Response:
        """This process answers."""
        return _json({"status": "ok"})

    async def health(self, request: Request) -> Response:
        """This process answers, in the form that the dialects ask for."""
        self._dispatcher.model(_rubric_in_path(request))
        return _json({"status": "ok", "rewards": {REWARD: []}})

    async def readyz(self) -> Response:
        """Images can be decoded, and an assessor answers; 503 until then."""
        try:
            fingerprint = await self._looks_ready()
        except Unavailable as error:
            raise come_back(503, str(error), self._settings.retry_after_s) from None
        except Exception:  # whatever keeps it from answering: it is not ready
            raise come_back(503, "no assessor answers yet", self._settings.retry_after_s) from None
        return _json({"status": "ready", "fingerprint": fingerprint})

    async def metrics(self) -> Response:
        """Counts of the whole endpoint, for Prometheus."""
        try:
            page = await self._counted()
        except Exception:
            raise come_back(503, "the counts are not there yet", self._settings.retry_after_s) from None
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _look_if_ready(self) -> str:
        """The fingerprint of an assessor that answers. Raises whatever keeps it, or the decoders, from answering."""
        async with asyncio.timeout(READY_WITHIN_S):
            await self._dispatcher.ready()
            versions = await self._replicas.versions.remote()
        return str(versions["fingerprint"])

    async def _count(self) -> str:
        async with asyncio.timeout(READY_WITHIN_S):
            page: str = await self._counts.page.remote()
        return page

    async def page(self) -> Response:
        """The playground: one page that talks to this endpoint only."""
        return Response(
            self._page, media_type="text/html", headers={"Content-Security-Policy": page_policy(self._page)}
        )

    async def _answered(self, request: Request) -> tuple[Question, Model, list[ImageResult]]:
        kind = request.headers.get("content-type", "")
        asked = await self._parsed(request, lambda body, max_images: understood(body, kind, max_images))
        rubric = asked.question.rubric
        _check_asked(asked.question, self._dispatcher.model(rubric).spec.rubric)
        model, results = await self._assessed(asked.images, request, rubric)
        _check_asked(asked.question, model.spec.rubric)  # another one may have taken over meanwhile
        return asked.question, model, results

    async def _completed(self, request: Request) -> ChatCompletion:
        _check_type(request, (JSON,))
        asked = await self._parsed(request, chat_question)
        found = asked_question(asked.model, asked.text, self.rubrics)
        model, [result] = await self._assessed([replace(asked.image, texts=found.texts)], request, found.rubric)
        if asked_question(asked.model, asked.text, [model.spec.rubric]) != found:
            raise come_back(503, "another model is taking over; try again", self._settings.retry_after_s)
        return completion(asked, found, model, result, self._settings.text_limits)

    async def _parsed(self, request: Request, parse: Callable[[bytes, int], T]) -> T:
        """The body as parsed: off the event loop where that takes longer than the hop. The body is not kept."""
        body = await _whole(request)
        if len(body) < SMALL_BODY_BYTES:
            return parse(body, self._settings.max_images)
        return await self._parsers.run(admission_of(request).caller, lambda: parse(body, self._settings.max_images))

    async def _assessed(
        self, images: Sequence[EncodedImage], request: Request, rubric: str | None = None
    ) -> tuple[Model, list[ImageResult]]:
        """The model that answers, and its results. rubric: id of the one that asks; None is the first."""
        caller = admission_of(request).caller
        texts = [image.texts for image in images]
        check_texts(texts, self._dispatcher.model(rubric).spec.rubric)
        model, results = await self._tried(
            images, request, lambda data: self._dispatcher.assess(data, texts, caller, rubric)
        )
        self._count_texts(texts, model.spec.rubric)
        counted = model.spec.rubric.id if len(self.rubrics) > 1 else ""
        for one in results:
            self._metrics.image(str(one.reason) if isinstance(one, Rejection) else one.reward, counted)
        return model, results

    def _count_texts(self, texts: Sequence[Texts], rubric: AnyRubric) -> None:
        """Count those that were cut. Raises Refusal where the rubric that was asked takes others than are there."""
        check_texts(texts, rubric)  # another one may have taken over meanwhile
        self._metrics.texts_cut += sum(num_cut(own, rubric.slots, self._settings.text_limits) for own in texts)

    async def _tried(
        self,
        images: Sequence[EncodedImage],
        request: Request,
        ask: Callable[[list[bytes | Rejection]], Awaitable[T]],
    ) -> T:
        """What is said of the images, once those that are URIs are fetched. Raises Refusal (429, 503) of the moment."""
        data = await self._fetcher.bytes_of(images, admission_of(request), request.receive)
        try:
            return await ask(data)
        except Overloaded as error:
            raise come_back(429, str(error), self._settings.retry_after_s) from None
        except (Unavailable, MemoryError) as error:
            raise come_back(503, str(error) or "out of memory", self._settings.retry_after_s) from None


def build(api: Api) -> FastAPI:
    """The application with all its routes and their documentation."""
    app = FastAPI(
        title="Image quality",
        version=version("iqa-ray"),
        description="Scores of images between 1 (worst) and 5 (best), by a multimodal LLM.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.post("/v1/assess", openapi_extra=question_body("Answer"), response_class=Response)(api.assess)
    app.post("/v1/rank", openapi_extra=question_body("RankedAnswer"), response_class=Response)(api.rank)
    app.post("/v1/ground", openapi_extra=parts_body(), response_class=Response)(api.ground)
    writes = any(isinstance(one, WrittenRubric) for one in api.rubrics)
    app.post("/v1/describe", openapi_extra=free_question_body(), response_class=Response, include_in_schema=writes)(
        api.describe
    )
    app.post("/v1/chat/completions", openapi_extra=chat_body(api.rubrics), response_class=Response)(api.chat)
    unirl, flow_factory = dialect_body("UniRlBody", "UniRlAnswer"), dialect_body("FlowFactoryBody", "FlowFactoryAnswer")
    app.post("/score", openapi_extra=unirl, response_class=Response, tags=["dialects"])(api.unirl_score)
    app.post("/compute", openapi_extra=flow_factory, response_class=Response, tags=["dialects"])(
        api.flow_factory_compute
    )
    if "flow_grpo" in api.dialects:
        app.post("/flow_grpo", openapi_extra=pickle_body(), response_class=Response, tags=["dialects"])(api.flow_grpo)
    get: dict[str, Callable[..., Any]] = {
        "/v1/models": api.models,
        "/healthz": api.healthz,
        "/readyz": api.readyz,
        "/metrics": api.metrics,
        "/rewards": api.unirl_rewards,
        "/health": api.health,
    }
    for path, endpoint in get.items():
        app.get(path, response_class=Response)(endpoint)
    if len(api.rubrics) > 1:
        _add_below_rubrics(app)
    app.get("/", include_in_schema=False, response_class=Response)(api.page)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Refusal, _refused)
    describe_bodies(app)
    return app


def _add_below_rubrics(app: FastAPI) -> None:
    """Add the dialects' paths below each rubric's: their requests have no field that could name one."""
    for route in [one for one in app.routes if isinstance(one, APIRoute)]:
        if "dialects" in route.tags or route.path in LOOKED_AT_BY_DIALECTS:
            app.add_api_route(
                f"{BY_RUBRIC}{route.path}",
                route.endpoint,
                methods=[*(route.methods or ())],
                include_in_schema=False,
                response_class=Response,
            )


def page_policy(page: bytes) -> str:
    """What the page may do: its own script and style, this endpoint, pictures of its own making."""
    hashes = {
        tag: base64.b64encode(hashlib.sha256(found[1]).digest()).decode()
        for tag in ("script", "style")
        if (found := re.search(rb"<%s>(.*?)</%s>" % (tag.encode(), tag.encode()), page, re.DOTALL))
    }
    return (
        "default-src 'none'; connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'"
    )


def admission_of(request: Request) -> Admission:
    """The admission that the gate gave the request."""
    admission: Admission = request.scope["iqa.admission"]
    return admission


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response(request.scope["path"])


async def _not_routed(request: Request, error: Exception) -> Response:
    """404 and 405 in the form of all errors."""
    assert isinstance(error, HTTPException)
    return Refusal(error.status_code, str(error.detail), error.headers).response(request.scope["path"])


def _check_type(request: Request, types: Sequence[str]) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in types:
        raise Refusal(415, f"send {types[-1]}")


def _rubric_in_path(request: Request) -> str | None:
    found: str | None = request.path_params.get("rubric")
    return found


def _check_asked(question: Question, rubric: AnyRubric) -> None:
    """Raises Refusal (422) for what a rubric does not have."""
    is_written = isinstance(rubric, WrittenRubric)
    if question.probs and is_written:
        raise Refusal(422, f"probs: answers to {rubric.id} are written, and have no probabilities; leave it out")
    if question.answers and not is_written:
        raise Refusal(422, f"answers: answers to {rubric.id} are not written; leave it out")
    unknown = sorted(set(question.dimensions or ()) - set(rubric.names))
    if unknown:
        raise Refusal(422, f"dimensions: {unknown[0][:64]!r} is none of {listed(rubric.names)}")


async def _whole(request: Request) -> bytes:
    """The body, which the gate hands over in one message; `request.body()` would copy it."""
    parts = [part async for part in request.stream() if part]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _json(content: Any) -> Response:
    return Response(json.dumps(content, allow_nan=False), media_type=JSON)
