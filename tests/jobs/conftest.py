"""A real Ray cluster for the tests of jobs, shared by all of them: starting one costs five seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

CLUSTER_CPUS = 4
"""Logical, so that a job with its two actors and its readers fits whatever the machine has."""


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Address of a cluster of one node, which no test may harm beyond its own job."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": CLUSTER_CPUS,
            "include_dashboard": False,
            "object_store_memory": 256 * 2**20,
        },
    )
    yield cluster.address
    cluster.shutdown()
