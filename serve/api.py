"""Routes of the endpoint -> questions to the dispatcher -> JSON."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from iqa_core.records import Rejection
from serve.admission.places import Place
from serve.errors import JSON, Refusal, come_back
from serve.fetching.fetcher import Fetcher
from serve.metrics import Metrics
from serve.model.dispatch import Dispatcher, Judged, Model, Overloaded, Unavailable
from serve.protocol.answers import description, ranking, result, reward
from serve.protocol.bodies import Asked, EncodedImage, understood
from serve.protocol.dialects import REWARD, flow_factory_answer, flow_factory_images, unirl_answer, unirl_images
from serve.protocol.json_values import SMALL_BODY_BYTES
from serve.protocol.openapi import describe_bodies, json_body, question_body
from serve.settings import ServeSettings
from serve.sharing.threads import Threads

T = TypeVar("T")

PAGE = Path(__file__).with_name("page.html")

READY_WITHIN_S = 2.0

PARSE_THREADS = 2
"""They share the interpreter with the event loop; a parser that waits for a third core would only take turns."""


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

    async def assess(self, request: Request) -> Response:
        """Scores, spread and reward of each image, or the reason why it has none."""
        asked, model, judged = await self._answered(request)
        dimensions = asked.question.dimensions or model.spec.rubric.names
        return _json({**_head(asked, model), "results": _results(asked, model, judged, dimensions)})

    async def rank(self, request: Request) -> Response:
        """The images of one prompt, best first."""
        asked, model, judged = await self._answered(request)
        dimensions = asked.question.dimensions or model.spec.rubric.names
        ranked = ranking([reward(one.outcome, model) for one in judged])
        return _json({**_head(asked, model), **ranked, "results": _results(asked, model, judged, dimensions)})

    async def models(self) -> Response:
        """What is served, and what its numbers mean."""
        return _json({"models": [description(self._dispatcher.model)]})

    async def unirl_score(self, request: Request) -> Response:
        """The dialect of UniRL's reward service."""
        _check_json(request)
        images = await self._parsed(request, unirl_images)
        return _json(unirl_answer(*await self._judged(images, request)))

    async def unirl_rewards(self) -> Response:
        """Names that `required_rewards` may hold."""
        return _json({"rewards": [REWARD]})

    async def flow_factory_compute(self, request: Request) -> Response:
        """The dialect of Flow-Factory's remote reward."""
        _check_json(request)
        images = await self._parsed(request, flow_factory_images)
        return _json(flow_factory_answer(*await self._judged(images, request)))

    async def healthz(self) -> Response:
        """This process answers."""
        return _json({"status": "ok"})

    async def health(self) -> Response:
        """The same, for the dialects."""
        return _json({"status": "ok", "rewards": {REWARD: []}})

    async def readyz(self) -> Response:
        """Images can be decoded, and an assessor answers; 503 until then."""
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._dispatcher.ready()
                versions = await self._replicas.versions.remote()
        except Unavailable as error:
            raise come_back(503, str(error), self._settings.retry_after_s) from None
        except Exception:  # whatever keeps it from answering: it is not ready
            raise come_back(503, "no assessor answers yet", self._settings.retry_after_s) from None
        return _json({"status": "ready", "fingerprint": versions["fingerprint"]})

    async def metrics(self) -> Response:
        """Counts of the whole endpoint, for Prometheus."""
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                page = await self._counts.page.remote()
        except Exception:
            raise come_back(503, "the counts are not there yet", self._settings.retry_after_s) from None
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> Response:
        """The playground: one page that talks to this endpoint only."""
        return Response(
            self._page, media_type="text/html", headers={"Content-Security-Policy": page_policy(self._page)}
        )

    async def _answered(self, request: Request) -> tuple[Asked, Model, list[Judged]]:
        kind = request.headers.get("content-type", "")
        asked = await self._parsed(request, lambda body, max_images: understood(body, kind, max_images))
        self._check(asked, self._dispatcher.model)
        model, judged = await self._judged(asked.images, request)
        self._check(asked, model)  # another one may have taken over meanwhile
        return asked, model, judged

    async def _parsed(self, request: Request, parse: Callable[[bytes, int], T]) -> T:
        """The body as parsed: off the event loop where that takes longer than the hop. The body is not kept."""
        body = await _whole(request)
        if len(body) < SMALL_BODY_BYTES:
            return parse(body, self._settings.max_images)
        return await self._parsers.run(place_of(request).caller, lambda: parse(body, self._settings.max_images))

    def _check(self, asked: Asked, model: Model) -> None:
        rubric = model.spec.rubric
        if asked.question.rubric not in (None, rubric.id):
            raise Refusal(422, f"rubric: this endpoint serves {rubric.id}")
        unknown = sorted(set(asked.question.dimensions or ()) - set(rubric.names))
        if unknown:
            raise Refusal(422, f"dimensions: {unknown[0][:64]!r} is none of {', '.join(rubric.names)}")

    async def _judged(self, images: Sequence[EncodedImage], request: Request) -> tuple[Model, list[Judged]]:
        place = place_of(request)
        data = await self._fetcher.bytes_of(images, place, request.receive)
        try:
            model, judged = await self._dispatcher.judge(data, place.caller)
        except Overloaded as error:
            raise come_back(429, str(error), self._settings.retry_after_s) from None
        except (Unavailable, MemoryError) as error:
            raise come_back(503, str(error) or "out of memory", self._settings.retry_after_s) from None
        for one in judged:
            self._metrics.images[str(one.outcome.reason) if isinstance(one.outcome, Rejection) else "scored"] += 1
            if (found := reward(one.outcome, model)) is not None:
                self._metrics.reward.add(found)
        return model, judged


def build(api: Api) -> FastAPI:
    """The application with all its routes and their documentation."""
    app = FastAPI(
        title="Image quality",
        version=version("iqa-ray"),
        description="Scores of images between 1 (worst) and 5 (best), by a multimodal LLM.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    post: dict[str, Callable[..., Any]] = {"/v1/assess": api.assess, "/v1/rank": api.rank}
    for path, endpoint in post.items():
        app.post(path, openapi_extra=question_body(), response_class=Response)(endpoint)
    app.post("/score", openapi_extra=json_body("UniRlBody"), response_class=Response, tags=["dialects"])(
        api.unirl_score
    )
    app.post("/compute", openapi_extra=json_body("FlowFactoryBody"), response_class=Response, tags=["dialects"])(
        api.flow_factory_compute
    )
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
    app.get("/", include_in_schema=False, response_class=Response)(api.page)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Refusal, _refused)
    describe_bodies(app)
    return app


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


def place_of(request: Request) -> Place:
    """What the gate gave the request."""
    place: Place = request.scope["iqa.place"]
    return place


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response


async def _not_routed(request: Request, error: Exception) -> Response:
    """404 and 405 in the form of all errors."""
    assert isinstance(error, HTTPException)
    return Refusal(error.status_code, str(error.detail), error.headers).response


def _check_json(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise Refusal(415, "send application/json")


async def _whole(request: Request) -> bytes:
    """The body, which the gate hands over in one message; `request.body()` would copy it."""
    parts = [part async for part in request.stream() if part]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _head(asked: Asked, model: Model) -> dict[str, Any]:
    carried = {"request_id": asked.question.request_id, "prompt": asked.question.prompt}
    given = {name: value for name, value in carried.items() if value is not None}
    return {"fingerprint": model.fingerprint, "rubric": model.spec.rubric.id, **given}


def _results(asked: Asked, model: Model, judged: Sequence[Judged], dimensions: Sequence[str]) -> list[dict[str, Any]]:
    return [result(one, model, dimensions, asked.question.probs) for one in judged]


def _json(content: Any) -> Response:
    return Response(json.dumps(content, allow_nan=False), media_type=JSON)
