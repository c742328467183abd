"""The files for `ray up` -> valid by Ray's own validation, with what the README says of them."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
import yaml

from tests.test_docs import ROOT

FILES = ("ray_up.yaml", "ray_up_machines.yaml")
TOKEN_FILE = "/home/ray/.ray/auth_token"

pytestmark = pytest.mark.slow


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / name).read_text(encoding="utf-8"))
    return found


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """With Ray's defaults, as `ray up` has it before it asks a cloud for anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_it(name: str) -> None:
    config = validated(read(name))
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("name", FILES)
def test_ray_refuses_a_misspelt_key(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validated({**read(name), "max_worker": 3})


@pytest.mark.parametrize("name", FILES)
def test_every_process_of_ray_asks_for_the_token_that_is_copied_to_it(name: str) -> None:
    config = read(name)
    assert config["file_mounts"] == {TOKEN_FILE: "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    for role in ("head", "worker"):
        [start] = [line for line in config[f"{role}_start_ray_commands"] if "ray start" in line]
        assert "RAY_AUTH_MODE=token ray start" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_workers_are_spot_machines_that_come_and_go_and_the_head_stays() -> None:
    types = validated(read("ray_up.yaml"))["available_node_types"]
    head = types.pop("head")
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert {name for name, kind in types.items() if kind["resources"].get("GPU")} == {"gpu"}
    for kind in types.values():
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert kind["min_workers"] == 0


def test_the_machines_that_one_has_are_all_used() -> None:
    config = read("ray_up_machines.yaml")
    num_workers = len(config["provider"]["worker_ips"])
    assert (config["min_workers"], config["max_workers"]) == (num_workers, num_workers)
