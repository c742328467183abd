"""`serve run serve.app:app`, or `serve deploy serve/config.yaml` -> the endpoint on Ray Serve.

Ingress    CPU: who may ask, how much; has images decoded by processes of its own; answers
Assessor   holds the model; batches the images of all callers
Counts     adds up what both of them count
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from iqa_core.errors import CallerError
from serve.admission.gate import Gate, is_loopback
from serve.admission.tokens import TOKENS, TOKENS_FILE, asked_for
from serve.api import Api, build
from serve.decoding.decoders import Decoders
from serve.decoding.template import Template
from serve.memory import give_back_large_blocks
from serve.metrics import Counts, Metrics, report_to
from serve.model.dispatch import Dispatcher
from serve.model.replica import AssessorReplica
from serve.model.served import Served, describe_all
from serve.settings import ServeSettings, parse

QUIET = LoggingConfig(enable_access_log=False)
"""What is asked is counted (see metrics); a line per request would cost more than the request's own parsing."""

TURNED_AWAY_AT_ONCE = 1024
"""Callers beyond `max_requests` whom one ingress is turning away, which takes a millisecond each."""

HANDED_ON_AT_ONCE = 8192
"""Requests that Serve's proxy queues for one ingress, 60 kB each; it hands on some 400 a second. With a bound of 1,024
it turned away a tenth of 1,200 that came in one moment, a good caller's among them."""


class NotDeployable(CallerError, RayServeException):
    """A mistake of whoever deploys. Ray shows its message as it is; any other exception Ray retries three times, and
    shows as a traceback."""


class Ingress:
    """The Serve deployment `Ingress`: one ASGI application behind a gate."""

    def __init__(self, settings: ServeSettings, digests: tuple[str, ...], replicas: Any, counts: Any) -> None:
        check_door(_http_host(), digests, settings.open, os.environ)
        give_back_large_blocks()
        served = Served.of(describe_all(settings), settings)
        self._metrics = Metrics()
        template = Template()
        template.check(served.preparer)  # an ingress that cannot decode fails its deployment
        decoders = Decoders(template, settings.decoders, settings.decode_timeout_s)
        dispatcher = Dispatcher(replicas, served, settings, self._metrics, decoders)
        api = build(Api(dispatcher, replicas, counts, settings, self._metrics))
        paths = frozenset(getattr(route, "path", "") for route in api.routes)
        self._gate = Gate(api, settings, digests, paths, self._metrics)
        self._counts = counts

    def __serve_build_asgi_app__(self) -> ASGIApp:
        gauges = lambda: {"open_requests": self._gate.open_requests}  # noqa: E731
        self._reporting = asyncio.get_event_loop().create_task(report_to(self._counts, self._metrics, gauges))
        return self._gate


def app(args: dict[str, str]) -> Application:
    """The three deployments, wired. args: keys of ServeSettings.

    Raises NotDeployable, a CallerError, on a key that is wrong, and where tokens are missing or would be ignored.
    """
    try:
        return _wired(parse(args))
    except CallerError as error:
        raise NotDeployable(str(error)) from None


def _wired(settings: ServeSettings) -> Application:
    digests = asked_for(os.environ, is_open=settings.open, in_cluster=is_in_cluster())
    # a checkpoint, rubrics or weights that do not fit are told here, not by a replica
    Served.of(describe_all(settings), settings)
    counts = serve.deployment(name="Counts", ray_actor_options={"num_cpus": 0}, logging_config=QUIET)(Counts).bind()
    assessor = serve.deployment(
        name="Assessor",
        ray_actor_options={"num_cpus": 0.5, "num_gpus": settings.assessor.num_gpus or 0},
        # an answer is due while others gather for the next batch: far more than one batch at a time
        max_ongoing_requests=settings.max_waiting_images,
        autoscaling_config=AutoscalingConfig(
            min_replicas=settings.replicas, max_replicas=settings.replicas, target_ongoing_requests=2
        ),
        health_check_period_s=5,
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        logging_config=QUIET,
    )(AssessorReplica).bind(settings, counts)
    ingress = serve.deployment(
        name="Ingress",
        ray_actor_options={"num_cpus": 0.25},
        # the gate turns callers away itself, with a body that says why, whether they send or are answered; beyond
        # these, Serve does so in plain text
        max_ongoing_requests=2 * settings.max_requests + TURNED_AWAY_AT_ONCE,
        max_queued_requests=HANDED_ON_AT_ONCE,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=settings.retry_after_s),
        graceful_shutdown_timeout_s=settings.request_timeout_s,
        logging_config=QUIET,
    )(serve.ingress()(Ingress))
    return ingress.bind(settings, digests, assessor, counts)


def is_in_cluster() -> bool:
    """Whether this process has the environment of whatever started Ray instead of the caller's.

    So it is with Ray's workers, which build what a config file names, and with the command of a submitted job.
    """
    is_worker = ray._private.worker.global_worker.mode == ray.WORKER_MODE
    return is_worker or RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ


def check_door(host: str | None, digests: tuple[str, ...], is_open: bool, environment: Mapping[str, str]) -> None:
    """Check who can reach an ingress.

    Raises CallerError where tokens in its environment would not be asked for, or where others reach its address while
    nobody is asked for a token.
    """
    if digests:
        return
    if asked_for(environment, is_open=is_open, in_cluster=False):
        raise CallerError(
            f"the cluster's processes have API tokens, but the process that built the endpoint had none, so that they "
            f"would not be asked for; set {TOKENS} or {TOKENS_FILE} there too"
        )
    if not is_open and not (host and is_loopback(host)):
        raise CallerError(
            f"the endpoint would listen on {host} without API tokens; set {TOKENS} or {TOKENS_FILE} where it is built, "
            "or http_options.host to 127.0.0.1"
        )


def _http_host() -> str | None:
    """The address on which Serve's proxies listen; None where no Serve runs."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    return client.http_config.host if client else None
