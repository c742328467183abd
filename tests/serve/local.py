"""The endpoint without Ray: the real application and the real replica in one event loop, joined by a plain handle.

What Serve's handle does to a call, the handle here does too: the call runs as a task of its own and can be cancelled.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from serve.admission.gate import Gate
from serve.admission.tokens import token_digest
from serve.api import Api, build
from serve.decoding.decoders import Decoders
from serve.decoding.template import Template
from serve.metrics import Counts, Metrics, report_to
from serve.model.dispatch import Dispatcher
from serve.model.replica import AssessorReplica
from serve.model.served import Served, describe_all
from serve.settings import ServeSettings

FAKE = {"checkpoint": "fake:"}

TEMPLATE = Template()
"""One for all endpoints of the tests: it takes half a second to start."""

UNEVEN = Path(__file__).with_name("uneven.toml")


class LocalMethod:
    """`handle.method`, of whatever object is behind the handle at the time."""

    def __init__(self, target: Callable[[], Any], name: str) -> None:
        self._target = target
        self._name = name

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(getattr(self._target(), self._name)(*args))


class LocalHandle:
    """A handle to an object, which may be replaced by another."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> LocalMethod:
        return LocalMethod(lambda: self.target, name)


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    gate: Gate
    replicas: LocalHandle
    counts: LocalHandle
    metrics: Metrics

    def client(self, peer: str = "127.0.0.1", token: str | None = None) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx2.ASGITransport(self.gate, client=(peer, 50_000))
        return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers, timeout=30)


def local_endpoint(*tokens: str, **settings: Any) -> LocalEndpoint:
    """Must be made inside the event loop that will use it."""
    chosen = ServeSettings.model_validate({"assessor": FAKE, "fusion": UNEVEN, **settings})
    metrics = Metrics()
    counts = LocalHandle(Counts())
    replicas = LocalHandle(AssessorReplica(chosen, counts))
    served = Served.of(describe_all(chosen), chosen)
    decoders = Decoders(TEMPLATE, chosen.decoders, chosen.decode_timeout_s)
    dispatcher = Dispatcher(replicas, served, chosen, metrics, decoders)
    api = build(Api(dispatcher, replicas, counts, chosen, metrics))
    paths = frozenset(getattr(route, "path", "") for route in api.routes)
    digests = tuple(token_digest(token) for token in tokens)
    return LocalEndpoint(Gate(api, chosen, digests, paths, metrics), replicas, counts, metrics)


@asynccontextmanager
async def asking(*tokens: str, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an endpoint made for one test, with the first of the tokens."""
    endpoint = local_endpoint(*tokens, **settings)
    async with endpoint.client(token=tokens[0] if tokens else None) as client:
        yield client


@contextmanager
def listening(*tokens: str, **settings: Any) -> Iterator[str]:
    """The base URL of an endpoint that answers real HTTP on loopback, from a thread of its own."""
    # asyncio does not see that a socket without its protocol is TCP: answers would wait 40 ms for an acknowledgement
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        stop = threading.Event()

        async def serve() -> None:
            endpoint = local_endpoint(*tokens, **settings)
            gauges = lambda: {"open_requests": endpoint.gate.open_requests}  # noqa: E731
            reporting = asyncio.create_task(report_to(endpoint.counts, endpoint.metrics, gauges))
            config = uvicorn.Config(endpoint.gate, log_level="error", lifespan="off")
            server = uvicorn.Server(config)
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            running = asyncio.create_task(server.serve([listener]))
            await asyncio.to_thread(stop.wait)
            server.should_exit = True
            await running
            reporting.cancel()

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()
