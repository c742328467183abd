"""Ray clusters as KubeRay's objects describe them -> their groups of pods, and what Ray takes each to have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.on_ray.cluster import Resources


@dataclass(frozen=True)
class Group:
    """Pods of one kind."""

    name: str
    most: int
    started_with: dict[str, str]
    pod: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        found: dict[str, Any] = self.pod["spec"]["containers"][0]
        return found

    @property
    def node(self) -> Resources:
        """What Ray schedules by."""
        return {"CPU": float(self.started_with["num-cpus"]), "GPU": float(self.started_with.get("num-gpus", 0))}


def cluster_of(one: dict[str, Any]) -> dict[str, Any]:
    """The Ray cluster inside a RayJob or RayService."""
    found: dict[str, Any] = one["spec"]["rayClusterSpec" if one["kind"] == "RayJob" else "rayClusterConfig"]
    return found


def groups(one: dict[str, Any]) -> Iterator[Group]:
    """Of a RayJob or RayService, the head first."""
    cluster = cluster_of(one)
    head = cluster["headGroupSpec"]
    yield Group("head", 1, head["rayStartParams"], head["template"])
    for group in cluster.get("workerGroupSpecs", ()):
        yield Group(group["groupName"], group["maxReplicas"], group["rayStartParams"], group["template"])


def largest(one: dict[str, Any]) -> list[Resources]:
    """The nodes of a cluster that has grown as far as it may."""
    return [group.node for group in groups(one) for _ in range(group.most)]
