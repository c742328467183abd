"""`serve run` and `serve deploy` as a user runs them: with tokens and without; from no replica to several and back, to
another assessor, with a node lost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from iqa_core.client import RewardClient
from tests.clock import wait_for
from tests.clusters import ROOT, dashboard_cluster, free_port, several_nodes
from tests.corpora import tiny_png
from tests.serve.conftest import BY_HAPROXY, BY_OWN_PROXY, HEADS_FIRST
from tests.serve.test_cluster import under_load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


TOKEN = "correct-horse-battery"
SERVE = Path(sys.executable).parent / "serve"

RUN_ON_PORT = """
import sys
from ray.serve import config, scripts
config.HTTPOptions.model_fields["port"].default = int(sys.argv.pop(1))
config.HTTPOptions.model_rebuild(force=True)
scripts.cli()
"""
"""The program `serve`, whose `run` takes no port: another process may have 8000."""


@dataclass(frozen=True, slots=True)
class Running:
    """A Ray that is running already."""

    address: str
    dashboard: str
    port: int
    """Where its Serve listens, from its first application to its last."""


@pytest.fixture(autouse=True, scope="module")
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # from which a cluster's processes import `serve.app`
        patch.delenv("IQA_API_TOKENS", raising=False)
        yield


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(BY_OWN_PROXY | HEADS_FIRST, id="own"),
        pytest.param(BY_HAPROXY, id="haproxy", marks=pytest.mark.chaos),
    ],
)
def cluster(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Of one node, whose processes have no tokens; by the proxy that answers there."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in request.param.items():
            patch.setenv(name, value)
        for kind in ("HAPROXY_STATS", "HAPROXY_METRICS", "FALLBACK_PROXY_HTTP", "FALLBACK_PROXY_GRPC"):
            patch.setenv(f"RAY_SERVE_{kind}_PORT", str(free_port()))  # other Rays on this machine may have theirs
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")  # a proxy more, on a machine that may be busy
        with dashboard_cluster(num_cpus=4) as (found, address):
            yield Running(found.address, address, free_port())


def configured(port: int, sleep_s: float) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The configuration of the repository with a port, a token, and a slow assessor that takes four images at a time;
    the application in it; its URL."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text(encoding="utf-8"))
    config["http_options"]["port"] = port
    [application] = config["applications"]
    application["args"]["assessor"] = {"checkpoint": f"fake:?sleep_s={sleep_s}", "batch_tokens": 2048}
    application["runtime_env"] = {"env_vars": {"IQA_API_TOKENS": TOKEN}}
    return config, application, f"http://127.0.0.1:{port}"


def scaling_of(application: dict[str, Any], deployment: str) -> dict[str, Any]:
    [scaling] = [one["autoscaling_config"] for one in application["deployments"] if one["name"] == deployment]
    return scaling


def test_an_import_string_without_a_running_ray_takes_the_tokens_of_its_own_environment() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # no folder of pytest's: the path of a socket has 107 characters at most
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-c", RUN_ON_PORT, str(port), "run", "serve.app:app", "assessor.checkpoint=fake:"]
        environment = {**os.environ, "IQA_API_TOKENS": TOKEN, "RAY_TMPDIR": folder, "RAY_worker_niceness": "0"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            with RewardClient(url, TOKEN) as client:
                assert client.assess([tiny_png(0)])[0].reason is None
            assert httpx2.get(f"{url}/v1/models").status_code == 401
        finally:
            process.terminate()  # and its Ray with it; by SIGINT, Serve would take leave of each deployment for 2 s
            process.wait(60)


def test_a_configuration_on_a_running_ray_does_not_start_with_the_tokens_of_the_command_alone(
    cluster: Running, tmp_path: Path
) -> None:
    config, application, url = configured(cluster.port, sleep_s=0)
    del application["runtime_env"]
    path = written(config, tmp_path)
    run(
        "run", path, "--address", cluster.address, "--non-blocking", environment={**os.environ, "IQA_API_TOKENS": TOKEN}
    )
    wait_for(lambda: application_of(cluster.dashboard)["status"] == "DEPLOY_FAILED", timeout_s=90, every_s=0.3)
    said = application_of(cluster.dashboard)["message"]
    assert "does not start without API tokens" in said
    assert "Traceback" not in said
    assert httpx2.get(f"{url}/v1/models").status_code == 404


def test_with_tokens_of_its_own_from_zero_to_many_to_another_assessor_and_back_to_zero(
    cluster: Running, tmp_path: Path
) -> None:
    dashboard = cluster.dashboard
    config, application, url = configured(cluster.port, sleep_s=0.2)
    scaling = scaling_of(application, "Assessor")
    scaling |= {"min_replicas": 0, "target_ongoing_requests": 2, "upscale_delay_s": 0.5, "downscale_delay_s": 1}
    scaling |= {"metrics_interval_s": 0.5, "look_back_period_s": 1, "downscale_to_zero_delay_s": 2}

    deploy(config, dashboard, tmp_path)
    wait_for(lambda: application_of(dashboard)["status"] == "RUNNING", timeout_s=90, every_s=0.3)
    assert replicas(dashboard) == 0
    assert httpx2.get(f"{url}/v1/models").status_code == 401
    with RewardClient(url, TOKEN) as client:
        [before] = client.assess([tiny_png(0)])
        assert before.reason is None
        with under_load(url, 12) as load:
            load.wait(12)
            wait_for(lambda: replicas(dashboard) == 2, timeout_s=90, every_s=0.3)
            application["args"]["min_side"] = 9  # which the fingerprint of a fake is made of
            deploy(config, dashboard, tmp_path)
            wait_for(lambda: load.answers[-1][0].fingerprint != before.fingerprint, timeout_s=90, every_s=0.3)
        [after] = client.assess([tiny_png(0)])
    assert all(score.reason is None for [score] in load.answers)
    assert {score.fingerprint for [score] in load.answers} == {before.fingerprint, after.fingerprint}
    wait_for(lambda: replicas(dashboard) == 0, timeout_s=90, every_s=0.3)


@pytest.mark.chaos
def test_a_lost_node_is_not_noticed_by_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two with replicas behind a proxy on the head; another node then takes its place."""
    for name in BY_HAPROXY:  # of the cluster that the other tests share, which is still there
        monkeypatch.delenv(name, raising=False)
    for name, value in BY_OWN_PROXY.items():
        monkeypatch.setenv(name, value)
    config, application, url = configured(free_port(), sleep_s=0.05)
    config["proxy_location"] = "HeadOnly"  # all nodes are this machine, and a port can be had once
    for deployment in ("Ingress", "Assessor"):
        scaling_of(application, deployment).update(min_replicas=2, max_replicas=2)
    with several_nodes(2, head_cpus=0, worker_cpus=1) as nodes:
        deploy(config, nodes.dashboard, tmp_path)
        wait_for(lambda: application_of(nodes.dashboard)["status"] == "RUNNING", timeout_s=90, every_s=0.3)
        with under_load(url, 6) as load:
            load.wait(12)
            victim = nodes.worker_with("ServeReplica:iqa:Assessor")
            assert nodes.on_worker(victim, "ServeReplica:iqa:")
            nodes.lose_worker(victim)
            time.sleep(10)  # longer than it takes to see that the node is lost
            nodes.add_worker()
            for deployment in ("Ingress", "Assessor"):
                wait_for(lambda d=deployment: replicas(nodes.dashboard, d) == 2, timeout_s=90, every_s=0.3)
            load.wait(100)
    assert all(score.reason is None for [score] in load.answers)


def deploy(config: dict[str, Any], dashboard: str, folder: Path) -> None:
    run("deploy", written(config, folder), "--address", dashboard)


def written(config: dict[str, Any], folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def run(*arguments: object, environment: Mapping[str, str] | None = None) -> None:
    """`serve` with these arguments, to its end."""
    command = [str(SERVE), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def application_of(dashboard: str) -> dict[str, Any]:
    details = httpx2.get(f"{dashboard}/api/serve/applications/", timeout=30).json()
    found: dict[str, Any] = details["applications"].get("iqa", {"status": "", "deployments": {}})
    return found


def replicas(dashboard: str, name: str = "Assessor") -> int:
    """Of a deployment, that take requests."""
    deployment = application_of(dashboard)["deployments"].get(name, {"replicas": []})
    return sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
