"""cluster/kubernetes -> every overlay builds, is valid to the last field, and names nothing that is not there."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from iqa_core.__main__ import COMMANDS
from jobs.command import JobSettings, parse
from jobs.on_ray.cluster import plan_pool, shortage_of
from jobs.scoring.settings import ScoreSettings
from jobs.training.settings import TrainSettings
from serve.admission.tokens import TOKENS
from serve.settings import parse as parse_serve
from tests.cluster.kustomized import Object, built
from tests.cluster.resources import cluster_of, groups, largest
from tests.serve.test_config import faults as serve_faults
from tests.test_docs import JOBS, ROOT

FOLDER = ROOT / "cluster" / "kubernetes"
OVERLAYS = sorted(path.parent for place in ("cpu", "gpu") for path in (FOLDER / place).glob("*/kustomization.yaml"))
KUBERNETES = "1.33"
CODE = "/opt/iqa-ray/"
"""Where the image has this repository."""
SETTINGS = "/etc/iqa/"

pytestmark = pytest.mark.slow


@pytest.fixture(params=OVERLAYS, ids=lambda path: f"{path.parent.name}-{path.name}")
def overlay(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def objects(overlay: Path) -> list[Object]:
    return built(overlay)


@pytest.fixture
def ray_object(objects: list[Object]) -> Object:
    [found] = [one for one in objects if one["apiVersion"] == "ray.io/v1"]
    return found


@pytest.fixture
def settings(objects: list[Object]) -> dict[str, str]:
    """Files of the ConfigMap beside a job."""
    return {name: text for one in objects if one["kind"] == "ConfigMap" for name, text in one["data"].items()}


@cache
def crd_schema(kind: str) -> Any:
    """Of KubeRay's definition, closed: a field that it does not name is an error. The API server would drop it."""
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        pytest.skip("KUBERAY_CRDS names no folder with KubeRay's custom resource definitions")
    text = (Path(folder) / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8")
    definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    [version] = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    return closed(version["schema"]["openAPIV3Schema"])


def closed(schema: Any) -> Any:
    """A schema in which what has properties has no others."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    names = schema.get("properties")
    if isinstance(names, dict) and "type" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def faults(one: Object) -> list[str]:
    """Of a RayJob or RayService, by KubeRay's own definition."""
    validator = jsonschema.Draft202012Validator(crd_schema(one["kind"]))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(one)]


def test_all_three_activities_are_there_on_both_kinds_of_machines() -> None:
    assert {f"{path.parent.name}/{path.name}" for path in OVERLAYS} == {
        f"{place}/{activity}" for place in ("cpu", "gpu") for activity in ("score", "serve", "train")
    }


def test_ray_objects_are_what_kuberay_defines(ray_object: Object) -> None:
    assert faults(ray_object) == []


def test_a_misspelt_field_at_any_depth_is_found() -> None:
    [job] = [one for one in built(FOLDER / "gpu" / "score") if one["kind"] == "RayJob"]
    job["spec"]["backofLimit"] = 3
    pod = cluster_of(job)["headGroupSpec"]["template"]["spec"]
    pod["containers"][0]["resource"] = {}
    pod["containers"][0]["readinessProbe"]["periodSeconds"] = "5"
    found = faults(job)
    assert len(found) == 3, found
    assert all(any(name in fault for fault in found) for name in ("'backofLimit'", "'resource'", "periodSeconds"))


def test_all_else_is_what_kubernetes_defines(objects: list[Object]) -> None:
    for one in objects:
        if one["apiVersion"] == "ray.io/v1":
            for group in groups(one):
                pod = {"apiVersion": "v1", "kind": "Pod", **group.pod}
                kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        else:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
        metadata = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": one["metadata"]}
        kubernetes_validate.validate(metadata, KUBERNETES, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to build them with")
def test_kubectl_builds_the_same(overlay: Path, objects: list[Object]) -> None:
    command = ["kubectl", "kustomize", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    by_name = lambda one: (one["kind"], one["metadata"]["name"])  # noqa: E731
    assert sorted(yaml.safe_load_all(done.stdout), key=by_name) == sorted(objects, key=by_name)


def test_a_job_runs_a_command_that_exists_with_settings_that_it_takes(
    ray_object: Object, settings: dict[str, str], tmp_path: Path
) -> None:
    if ray_object["kind"] != "RayJob":
        return
    *before, command = ray_object["spec"]["entrypoint"].split("&&")
    for small in before:
        python, dash_m, module, name, *flags = shlex.split(small)
        assert (python, dash_m, module) == ("python", "-m", "iqa_core")
        parser = argparse.ArgumentParser(exit_on_error=False)
        COMMANDS[name].add_flags(parser)
        parser.parse_args(flags)
    python, script, flag, path = shlex.split(command)
    assert (python, flag) == ("python", "--config")
    assert (ROOT / script.removeprefix(CODE)).is_file()
    [mount] = [one for one in next(groups(ray_object)).container["volumeMounts"] if one["mountPath"] == "/etc/iqa"]
    [volume] = [one for one in next(groups(ray_object)).pod["spec"]["volumes"] if one["name"] == mount["name"]]
    assert volume["configMap"]["name"] == ray_object["metadata"]["name"]
    found = parsed(JOBS[Path(script).stem], settings, path.removeprefix(SETTINGS), tmp_path)
    check_room(found, ray_object)


def parsed(kind: type[JobSettings], settings: dict[str, str], name: str, folder: Path) -> JobSettings:
    (folder / name).write_text(settings[name], encoding="utf-8")
    return parse(kind, ["--config", str(folder / name)])


def check_room(settings: JobSettings, one: Object) -> None:
    """The cluster, grown as far as it may, holds what the job asks for."""
    nodes = largest(one)
    if isinstance(settings, ScoreSettings):
        asked = (settings.assessor, settings.num_actors, settings.max_actors, settings.actor_cpus, settings.reader_cpus)
        assert shortage_of(plan_pool(*asked, nodes), nodes) is None
        assert settings.assessor.device != "cuda" or settings.wait_for_resources_s, "no GPU is there at the start"
    else:
        assert isinstance(settings, TrainSettings)
        fits = [n for n in nodes if n["CPU"] >= settings.worker_cpus and n.get("GPU", 0) >= settings.worker_gpus]
        assert len(fits) >= settings.num_workers


def test_the_endpoint_has_keys_that_serve_knows_and_places_for_its_replicas(ray_object: Object) -> None:
    if ray_object["kind"] != "RayService":
        return
    config = yaml.safe_load(ray_object["spec"]["serveConfigV2"])
    assert serve_faults(config) == []
    [application] = config["applications"]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    settings = parse_serve(application["args"])
    assert config["http_options"]["request_timeout_s"] > settings.request_timeout_s
    assert "runtime_env" not in application
    assert not settings.open, "it asks for the tokens that each of its pods has"
    options = {one["name"]: one["ray_actor_options"] for one in application["deployments"]}
    assert set(options) == {"Ingress", "Assessor", "Counts"}
    assert options["Assessor"].get("num_gpus") == settings.assessor.num_gpus
    least = {
        one["name"]: one.get("autoscaling_config", {}).get("min_replicas", 0) for one in application["deployments"]
    }
    nodes = largest(ray_object)
    for resource, option in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        wanted = sum(least[name] * asked.get(option, 0) for name, asked in options.items())
        assert wanted <= sum(node.get(resource, 0) for node in nodes)


def test_ray_sees_the_resources_that_a_pod_has(ray_object: Object) -> None:
    for group in groups(ray_object):
        requests, limits = (group.container["resources"][name] for name in ("requests", "limits"))
        gpus = str(requests.get("nvidia.com/gpu", "0"))
        assert gpus == str(limits.get("nvidia.com/gpu", "0")) == group.started_with.get("num-gpus", "0")
        assert requests["memory"] == limits["memory"], "a pod over its request is the first that is put out"
        if group.name != "head" or group.started_with["num-cpus"] != "0":
            assert requests["cpu"] == group.started_with["num-cpus"]
        tolerated = {one["key"] for one in group.pod["spec"].get("tolerations", ())}
        assert (gpus != "0") == ("nvidia.com/gpu" in tolerated)


def test_pods_may_do_little_and_hold_no_secret(ray_object: Object) -> None:
    assert cluster_of(ray_object)["authOptions"] == {"mode": "token", "secretName": "iqa-ray-token"}
    for group in groups(ray_object):
        spec, container = group.pod["spec"], group.container
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["livenessProbe"]["httpGet"]["path"] == "/api/local_raylet_healthz"
        given = {one["name"]: one for one in container.get("env", ())}
        assert (TOKENS in given) == (ray_object["kind"] == "RayService")
        assert all("secretKeyRef" in one["valueFrom"] for one in given.values())
        if TOKENS in given:  # a pod does not start where it is missing, nor does an application without it
            assert not given[TOKENS]["valueFrom"]["secretKeyRef"].get("optional", False)


def test_nothing_brings_a_secret_along() -> None:
    kinds = {one["kind"] for path in OVERLAYS for one in built(path)}
    assert kinds == {"ConfigMap", "PodDisruptionBudget", "RayJob", "RayService", "ServiceAccount"}


def test_versions_are_those_that_are_pinned(ray_object: Object) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line[:40])
    assert cluster_of(ray_object)["rayVersion"] == pins["ray"]
    tags = {group.container["image"].rpartition(":")[2] for group in groups(ray_object)}
    has_gpus = any(group.node["GPU"] for group in groups(ray_object))
    assert tags == {"cuda" if has_gpus else "cpu"}


def test_ray_itself_reads_the_groups_as_meant(ray_object: Object) -> None:
    """By the code with which Ray's autoscaler in the head's pod reads KubeRay's cluster."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = cluster_of(ray_object)
    custom_resource = {"metadata": {"name": "iqa", "namespace": "default"}, "spec": json.loads(json.dumps(cluster))}
    if not cluster["enableInTreeAutoscaling"]:
        return
    types = _derive_autoscaling_config_from_ray_cr(custom_resource)["available_node_types"]
    for group in groups(ray_object):
        [found] = [one for name, one in types.items() if name.removesuffix("group") == group.name]
        assert {name: found["resources"].get(name, 0) for name in ("CPU", "GPU")} == group.node


def test_a_patch_without_its_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [a.yaml]\npatches: [{path: p.yaml, target: {kind: Pod, name: other}}]\n"
    )
    (tmp_path / "a.yaml").write_text("kind: Pod\nmetadata: {name: one}\n")
    (tmp_path / "p.yaml").write_text("[]")
    with pytest.raises(ValueError, match="unpack"):
        built(tmp_path)
