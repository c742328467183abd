"""serve/config.yaml -> no key is misspelt, none is missing, and what it says is what the code does by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from iqa_core.errors import CallerError
from serve.settings import ServeSettings, parse

PATH = Path(__file__).resolve().parent.parent.parent / "serve" / "config.yaml"
UNSET = {"rubric", "fusion", "min_side", "max_image_pixels", "max_image_bytes", "replicas"}
"""Settings of which the default is the only value that many will ever want, or that `deployments:` overrules."""


@pytest.fixture
def config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return found


def misspelt(given: dict[str, Any], model: type[BaseModel], where: str = "") -> Iterator[str]:
    """Keys that a model of Serve does not have: it drops them without a word."""
    fields = {field.alias or name for name, field in model.model_fields.items()} | set(model.model_fields)
    for key in given:
        if key not in fields:
            yield f"{where}{key}"


def faults(config: dict[str, Any]) -> list[str]:
    from ray.serve.config import AutoscalingConfig, BackpressureConfig
    from ray.serve.schema import (
        DeploymentSchema,
        HTTPOptionsSchema,
        RayActorOptionsSchema,
        ServeApplicationSchema,
        ServeDeploySchema,
    )

    found = [*misspelt(config, ServeDeploySchema), *misspelt(config["http_options"], HTTPOptionsSchema)]
    for application in config["applications"]:
        found += misspelt(application, ServeApplicationSchema)
        for deployment in application["deployments"]:
            name = f"{deployment['name']}."
            found += misspelt(deployment, DeploymentSchema, name)
            found += misspelt(deployment.get("autoscaling_config", {}), AutoscalingConfig, name)
            found += misspelt(deployment.get("ray_actor_options", {}), RayActorOptionsSchema, name)
            found += misspelt(deployment.get("backpressure_config", {}), BackpressureConfig, name)
    ServeDeploySchema.model_validate(config)
    return found


@pytest.mark.slow
def test_no_key_is_misspelt(config: dict[str, Any]) -> None:
    assert faults(config) == []
    config["http_options"]["hots"] = "x"
    config["applications"][0]["deployments"][1]["autoscaling_config"]["min_replica"] = 1
    config["applications"][0]["deployments"][0]["max_ongoing_request"] = 1
    assert faults(config) == ["hots", "Ingress.max_ongoing_request", "Assessor.min_replica"]


def test_the_settings_are_all_there_and_are_the_defaults(config: dict[str, Any]) -> None:
    [application] = config["applications"]
    args = application["args"]
    assert set(args) == set(ServeSettings.model_fields) - UNSET
    assert parse(args) == ServeSettings()
    with pytest.raises(CallerError, match="max_image: Extra"):
        parse({**args, "max_image": 3})


@pytest.mark.slow
def test_the_deployments_are_those_of_the_application(config: dict[str, Any]) -> None:
    from serve.app import app

    [application] = config["applications"]
    ingress = app(application["args"])._bound_deployment
    inner: list[Any] = list(ingress.init_args[2:])
    bound = [ingress, *(one._bound_deployment for one in inner)]
    assert {one.name for one in bound} == {one["name"] for one in application["deployments"]}


def test_it_listens_on_loopback_and_its_own_time_limit_is_the_longer_one(config: dict[str, Any]) -> None:
    assert config["http_options"]["host"] == "127.0.0.1"
    assert config["http_options"]["request_timeout_s"] > ServeSettings().request_timeout_s
