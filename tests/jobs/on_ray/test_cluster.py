"""Settings and nodes -> how many actors, with what, and whether the nodes hold them."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.errors import CallerError, RunError
from jobs.command import ROOT
from jobs.on_ray.cluster import Pool, Resources, connected, made_room, plan_pool, shortage_of
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings

HEAD: Resources = {"CPU": 8.0}
ONE_GPU: Resources = {"CPU": 8.0, "GPU": 1.0}
THREE_GPUS: Resources = {"CPU": 24.0, "GPU": 3.0}


def planned(
    nodes: Sequence[Resources],
    num_gpus: float | None,
    num_actors: int | None = None,
    max_actors: int | None = None,
) -> Pool:
    config = AssessorConfig(checkpoint="org/model", num_gpus=num_gpus)
    return plan_pool(config, num_actors, max_actors, None, 0.25, nodes)


@pytest.mark.parametrize(
    ("nodes", "num_gpus", "actors"),
    [
        ([HEAD, ONE_GPU, THREE_GPUS], None, 4),
        ([HEAD, ONE_GPU, THREE_GPUS], 1, 4),
        ([HEAD, ONE_GPU, THREE_GPUS], 0.5, 8),
        ([HEAD, ONE_GPU, THREE_GPUS], 0.4, 8),  # two fifths twice on each; what is left of two GPUs is no third
        ([HEAD, ONE_GPU, THREE_GPUS], 0.6, 4),
        ([THREE_GPUS, THREE_GPUS], 2, 2),  # six GPUs, but a pair of them on each node only
        ([THREE_GPUS, THREE_GPUS], 3, 2),
    ],
)
def test_an_actor_for_every_place_where_its_gpus_fit(
    nodes: Sequence[Resources], num_gpus: float | None, actors: int
) -> None:
    pool = planned(nodes, num_gpus)
    assert (pool.num_actors, pool.actor_gpus) == (actors, num_gpus or 1.0)
    assert shortage_of(pool, nodes) is None
    shortage = shortage_of(planned(nodes, num_gpus, actors + 1), nodes)
    assert shortage is not None
    assert f"room for {actors} of them" in shortage


@pytest.mark.parametrize(
    ("num_actors", "max_actors", "begins_with", "grows_to"),
    [
        (None, None, 4, None),
        (None, 16, 4, 16),  # as many as there is room for, and more when there is
        (None, 2, 2, None),
        (1, 16, 1, 16),
        (3, 3, 3, None),
    ],
)
def test_a_pool_grows_on_request_only(
    num_actors: int | None, max_actors: int | None, begins_with: int, grows_to: int | None
) -> None:
    nodes = [HEAD, ONE_GPU, THREE_GPUS]
    pool = planned(nodes, None, num_actors, max_actors)
    assert (pool.num_actors, pool.max_actors, pool.most_actors) == (begins_with, grows_to, grows_to or begins_with)
    assert shortage_of(pool, nodes) is None, "what it may grow to need not be there"


def test_a_pool_that_would_shrink_at_once_is_refused(tmp_path: Path) -> None:
    settings = ScoreSettings(input=[str(tmp_path)], output=str(tmp_path / "out"), num_actors=3, max_actors=2)
    with pytest.raises(CallerError, match="--max-actors 2 is less than --num-actors 3"):
        checked(settings)


def test_a_pool_that_grows_on_these_nodes_shares_their_cpus_from_the_start() -> None:
    nodes = [HEAD, ONE_GPU, THREE_GPUS]
    assert planned(nodes, None, 1, 16).threads_per_actor == planned(nodes, None, 4).threads_per_actor == 10


def test_what_the_autoscaler_was_asked_for_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps a request beyond the job that made it."""
    asked: list[list[dict[str, float]]] = []
    there: list[dict[str, object]] = [{"Alive": True, "Resources": {"CPU": 1.0}}]
    monkeypatch.setattr("ray.nodes", lambda: there)

    def request(bundles: list[dict[str, float]]) -> None:
        asked.append(bundles)
        there.append({"Alive": True, "Resources": {"CPU": 2.0}})

    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", request)
    pool = Pool(2, actor_cpus=1, actor_gpus=0, reader_cpus=0.5, threads_per_actor=1, max_actors=9)
    with made_room(pool, wait_s=0.01):
        assert asked == [[{"CPU": 1}, {"CPU": 1}, {"CPU": 0.5}]]
    assert asked[1:] == [[]]
    there[1:] = []
    with pytest.raises(CallerError, match="2 to 9 actors with 1 CPU each"), made_room(pool, wait_s=0):
        pass
    assert len(asked) == 2, "nothing is asked for where nothing is waited for"


def test_gpus_that_no_node_has_together_are_refused() -> None:
    nodes = [HEAD, ONE_GPU, THREE_GPUS]
    assert shortage_of(planned(nodes, 4), nodes) == (
        "an actor's 4 GPUs must lie on one node, and no node has more than 3"
    )


def test_gpus_for_an_assessor_on_the_cpu_are_refused() -> None:
    for config in (AssessorConfig(device="cpu", num_gpus=1), AssessorConfig(checkpoint="fake:", num_gpus=0.5)):
        with pytest.raises(CallerError, match=r"--assessor.num-gpus (1|0.5): this assessor runs on the CPU"):
            plan_pool(config, None, None, None, 0.25, [ONE_GPU])


@pytest.mark.parametrize("num_gpus", [0, -1, 1.5])
def test_only_a_share_of_one_gpu_or_whole_ones(num_gpus: float) -> None:
    with pytest.raises(ValueError, match="num_gpus"):
        AssessorConfig(num_gpus=num_gpus)


def test_a_ray_that_does_not_start_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: object) -> None:
        raise Exception("The current node timed out during startup")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", start)
    with pytest.raises(RunError, match="no Ray could be started here"), connected(None):
        pass


@pytest.mark.parametrize(
    ("address", "code_on_nodes", "submission", "way"),
    [
        (None, False, None, "path"),
        ("HOST:6379", False, None, "copy"),
        ("HOST:6379", True, None, "path"),
        ("HOST:6379", False, {"runtime_env": {"working_dir": "gcs://code.zip"}}, "submitted"),
        ("HOST:6379", True, {"runtime_env": {"working_dir": "gcs://code.zip"}}, "submitted"),
        ("HOST:6379", False, {"runtime_env": {"env_vars": {"A": "b"}}}, "path"),  # an image that has the code
        ("HOST:6379", False, {}, "path"),
    ],
)
def test_workers_get_this_code_once(
    monkeypatch: pytest.MonkeyPatch, address: str | None, code_on_nodes: bool, submission: Any, way: str
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if submission is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submission))
    session = SimpleNamespace(address_info={"gcs_address": "127.0.0.1:1"})
    monkeypatch.setattr("ray.init", lambda **settings: given.update(settings) or session)
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = address and f"127.0.0.1:{server.getsockname()[1]}"
        with connected(there, code_on_nodes):
            pass
    assert given["address"] == (there or "local")
    assert (given.get("runtime_env") == {"working_dir": str(ROOT)}) == (way == "copy")
    assert ("job_config" in given) == (way == "path")


def test_ray_client_is_refused() -> None:
    with pytest.raises(CallerError, match="Ray Client is not supported"), connected("ray://HOST:10001"):
        pass


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://127.0.0.1:8265", "a cluster is named HOST:6379, .* ray job submit --address"),
        ("head", "a cluster is named HOST:6379"),
        ("head:", "a cluster is named HOST:6379"),
        ("127.0.0.1:99999", "a cluster is named HOST:6379"),
        ("127.0.0.1:1", "no Ray cluster answers there"),
    ],
)
def test_an_address_that_is_none_or_where_nothing_is_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    with pytest.raises(CallerError, match=f"--ray-address {address}: {why}"), connected(address):
        pass
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(CallerError, match=f"RAY_ADDRESS {address}: {why}"), connected(None):
        pass
