"""`serve deploy` as a user runs it: from no replica to several and back, to another assessor, with a node lost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from iqa_core.client import RewardClient
from tests.clusters import ROOT, dashboard_cluster, free_port, several_nodes, wait_for
from tests.corpora import tiny_png
from tests.serve.conftest import BY_HAPROXY, BY_OWN_PROXY
from tests.serve.test_cluster import under_load

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # from which a cluster's processes import `serve.app`
    monkeypatch.delenv("IQA_API_TOKENS", raising=False)


@pytest.fixture(
    params=[pytest.param(BY_OWN_PROXY, id="own"), pytest.param(BY_HAPROXY, id="haproxy", marks=pytest.mark.chaos)]
)
def dashboard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a cluster of one node, by the proxy that answers there."""
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)
    for kind in ("HAPROXY_STATS", "HAPROXY_METRICS", "FALLBACK_PROXY_HTTP", "FALLBACK_PROXY_GRPC"):
        monkeypatch.setenv(f"RAY_SERVE_{kind}_PORT", str(free_port()))  # other Rays on this machine may have theirs
    monkeypatch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")  # a proxy more, on a machine that may be busy
    with dashboard_cluster(num_cpus=4) as (_, address):
        yield address


def configured(sleep_s: float) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The configuration of the repository on a free port, with a slow assessor that takes four images at a time; the
    application in it; its URL."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text(encoding="utf-8"))
    config["http_options"]["port"] = free_port()
    [application] = config["applications"]
    application["args"]["assessor"] = {"checkpoint": f"fake:?sleep_s={sleep_s}", "batch_tokens": 2048}
    return config, application, f"http://127.0.0.1:{config['http_options']['port']}"


def scaling_of(application: dict[str, Any], deployment: str) -> dict[str, Any]:
    [scaling] = [one["autoscaling_config"] for one in application["deployments"] if one["name"] == deployment]
    return scaling


def test_from_zero_to_many_to_another_assessor_and_back_to_zero(dashboard: str, tmp_path: Path) -> None:
    config, application, url = configured(sleep_s=0.2)
    scaling = scaling_of(application, "Assessor")
    scaling |= {"min_replicas": 0, "target_ongoing_requests": 2, "upscale_delay_s": 0.5, "downscale_delay_s": 1}
    scaling |= {"metrics_interval_s": 0.5, "look_back_period_s": 1, "downscale_to_zero_delay_s": 2}

    deploy(config, dashboard, tmp_path)
    wait_for(lambda: application_of(dashboard)["status"] == "RUNNING", timeout_s=90, every_s=0.3)
    assert replicas(dashboard) == 0
    with RewardClient(url) as client:
        [before] = client.assess([tiny_png(0)])
        assert before.reason is None
        with under_load(url, 12) as ended:
            wait_for(lambda: replicas(dashboard) == 2, timeout_s=90, every_s=0.3)
            application["args"]["min_side"] = 9  # which the fingerprint of a fake is made of
            deploy(config, dashboard, tmp_path)
            wait_for(
                lambda: client.assess([tiny_png(0)])[0].fingerprint != before.fingerprint, timeout_s=90, every_s=0.3
            )
            answers = ended()
        [after] = client.assess([tiny_png(0)])
    assert all(score.reason is None for [score] in answers)
    assert {score.fingerprint for [score] in answers} == {before.fingerprint, after.fingerprint}
    wait_for(lambda: replicas(dashboard) == 0, timeout_s=90, every_s=0.3)


@pytest.mark.chaos
def test_a_lost_node_is_not_noticed_by_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two with replicas behind a proxy on the head; another node then takes its place."""
    for name, value in BY_OWN_PROXY.items():
        monkeypatch.setenv(name, value)
    config, application, url = configured(sleep_s=0.05)
    config["proxy_location"] = "HeadOnly"  # all nodes are this machine, and a port can be had once
    for deployment in ("Ingress", "Assessor"):
        scaling_of(application, deployment).update(min_replicas=2, max_replicas=2)
    with several_nodes(2, head_cpus=0, worker_cpus=1) as nodes:
        deploy(config, nodes.dashboard, tmp_path)
        wait_for(lambda: application_of(nodes.dashboard)["status"] == "RUNNING", timeout_s=90, every_s=0.3)
        with under_load(url, 6) as ended:
            time.sleep(1)
            victim = nodes.worker_with("ServeReplica:iqa:Assessor")
            assert nodes.on_worker(victim, "ServeReplica:iqa:")
            nodes.lose_worker(victim)
            time.sleep(10)  # longer than it takes to see that the node is lost
            nodes.add_worker()
            for deployment in ("Ingress", "Assessor"):
                wait_for(lambda d=deployment: replicas(nodes.dashboard, d) == 2, timeout_s=90, every_s=0.3)
            answers = ended()
    assert len(answers) > 100
    assert all(score.reason is None for [score] in answers)


def deploy(config: dict[str, Any], dashboard: str, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    program = Path(sys.executable).parent / "serve"
    command = [str(program), "deploy", str(path), "--address", dashboard]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def application_of(dashboard: str) -> dict[str, Any]:
    details = httpx2.get(f"{dashboard}/api/serve/applications/", timeout=30).json()
    found: dict[str, Any] = details["applications"].get("iqa", {"status": "", "deployments": {}})
    return found


def replicas(dashboard: str, name: str = "Assessor") -> int:
    """Of a deployment, that take requests."""
    deployment = application_of(dashboard)["deployments"].get(name, {"replicas": []})
    return sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
