"""One Serve on the tests' Ray, with an application per kind of test; each is deployed when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx2
import pytest

from tests.clock import wait_for
from tests.clusters import free_port

Deploy = Callable[..., str]

BY_GRPC = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_PROXY_USE_GRPC": "1"}
BY_OWN_PROXY = {**BY_GRPC, "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
HEADS_FIRST = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.admission.head:in_front"}
BY_HAPROXY = {**BY_GRPC, "RAY_SERVE_ENABLE_HA_PROXY": "1"}
"""How `make serve` and the image run Serve; the fastest on one machine. Here it runs as it does by itself."""


@pytest.fixture(scope="session")
def serve_url(ray_address: str) -> Iterator[str]:
    """Base URL of a Serve that listens on loopback; nothing is deployed yet."""
    import ray
    from ray import serve

    from jobs.on_ray.cluster import code_from_here

    ray.init(
        address=ray_address,
        namespace="serve",
        job_config=code_from_here(),
        log_to_driver=False,
        configure_logging=False,
    )
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="session")
def deploy(serve_url: str) -> Deploy:
    """Deploys the application with these settings and waits until it answers; returns its URL."""
    from ray import serve

    from serve.app import app

    def deployed(name: str, settings: Mapping[str, Any], tokens: str = "") -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("IQA_API_TOKENS", raising=False)
            if tokens:
                patch.setenv("IQA_API_TOKENS", tokens)
            application = app(dict(settings))
        serve.run(application, name=name, route_prefix=f"/{name}", logging_config=None)
        url = f"{serve_url}/{name}"
        # the proxy hears of a new route a moment after its application runs
        wait_for(lambda: httpx2.get(f"{url}/healthz", timeout=60).status_code == 200)
        return url

    return deployed


def remove(name: str) -> None:
    """End an application: the tests' Ray has room for the demo and one other."""
    from ray import serve

    serve.delete(name)


@pytest.fixture(scope="session")
def demo_url(deploy: Deploy) -> str:
    """The demo assessor, open to this machine."""
    return deploy("demo", {"assessor": {"checkpoint": "demo"}, "max_body_bytes": 8 * 2**20})
