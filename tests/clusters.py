"""A real Ray: of one node, or with the dashboard that `ray job submit` and `serve deploy` talk to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def one_node(num_cpus: int) -> Iterator[str]:
    """Address of a cluster whose workers have the environment of this moment."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": num_cpus,
            "include_dashboard": False,
            "object_store_memory": 256 * 2**20,
            # what tests count is exported after a second instead of ten
            "_system_config": {"metrics_report_interval_ms": 1000},
        },
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def dashboard_cluster(num_cpus: int) -> Iterator[tuple[Any, str]]:
    """A cluster of one node on this machine, to which others may be added, and its dashboard's address."""
    from ray.cluster_utils import Cluster

    port = free_port()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": num_cpus,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": port,
            # the agent is what starts jobs; on its default port it would lose to any other Ray on this machine
            "dashboard_agent_listen_port": free_port(),
            "object_store_memory": 128 * 2**20,
        },
    )
    try:
        yield cluster, f"http://127.0.0.1:{port}"
    finally:
        cluster.shutdown()
