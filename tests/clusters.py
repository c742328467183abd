"""A real Ray: of one node, of several that may be lost, with the dashboard that `ray job submit` talks to."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clock import wait_for

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # by default below everything else that this machine does
    "RAY_worker_niceness": "0",
}
"""Losses after 3 s instead of 30."""


def free_port() -> int:
    """A port for a program that binds it later: below those that the system gives to whoever asks for any."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports are taken")


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


def descendants(pid: int, title: str) -> list[psutil.Process]:
    """Live processes below this one, and no others, that Ray gave this title."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if title in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@dataclass(slots=True)
class Nodes:
    """A cluster of a head and workers, on one machine."""

    cluster: Any
    dashboard: str
    workers: list[Any]
    worker_cpus: int
    folder: Path

    def add_worker(self) -> None:
        """With files of its own, as on a machine of its own: uploaded code is unpacked anew by each node that joins."""
        node = self.cluster.add_node(
            temp_dir=tempfile.mkdtemp(dir=self.folder),
            num_cpus=self.worker_cpus,
            object_store_memory=128 * 2**20,
            dashboard_agent_listen_port=free_port(),
        )
        self.workers.append(node)

    def on_worker(self, index: int, title: str) -> list[psutil.Process]:
        """Its processes that Ray gave this title."""
        return descendants(self.workers[index].all_processes["raylet"][0].process.pid, title)

    def worker_with(self, title: str) -> int:
        """Index of the first that has such a process."""
        return next(index for index in range(len(self.workers)) if self.on_worker(index, title))

    def lose_worker(self, index: int = -1) -> None:
        """All its processes are killed, without a word."""
        self.cluster.remove_node(self.workers.pop(index), allow_graceful=False)

    def lose_head(self) -> None:
        """And with it the cluster: its drivers, and what it knows of the others."""
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)

    def submit(self, *entrypoint: object) -> subprocess.Popen[str]:
        """`ray job submit` of this command, as the documentation says it; its driver runs on the head."""
        with self._log.open("ab") as log:  # no pipe: nobody would read it while nodes come and go
            return subprocess.Popen(
                [
                    *(str(BIN / "ray"), "job", "submit", "--address", self.dashboard),
                    *("--working-dir", ".", "--", "python", *map(str, entrypoint)),
                ],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "PYTHONPATH"}},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    @property
    def _log(self) -> Path:
        return self.folder / "jobs.log"

    def printed(self) -> str:
        """By what was submitted."""
        return self._log.read_text(encoding="utf-8")

    def wait_until(self, process: subprocess.Popen[str], condition: Any, timeout_s: float = 300) -> None:
        """Until the condition holds. The job must not end before."""
        wait_for(lambda: condition() or process.poll() is not None, timeout_s)
        assert process.poll() is None, self.printed()

    def ended(self, process: subprocess.Popen[str], timeout_s: float = 1800) -> str:
        """What it printed, when it has succeeded."""
        code = process.wait(timeout_s)
        assert code == 0, self.printed()
        return self.printed()

    def _takes_jobs(self) -> bool:
        """The dashboard answers before the agent that starts jobs does."""
        from ray.job_submission import JobSubmissionClient

        try:
            JobSubmissionClient(self.dashboard).submit_job(entrypoint="true")
        except (ConnectionError, RuntimeError):
            return False
        return True


@contextmanager
def several_nodes(workers: int, *, head_cpus: int = 1, worker_cpus: int = 2) -> Iterator[Nodes]:
    """A cluster that takes jobs and soon sees which nodes are lost; it may end before the block does."""
    with pytest.MonkeyPatch.context() as patch:
        # a job's `python` is the one that its cluster finds
        patch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
        for name, value in QUICK.items():
            patch.setenv(name, value)
        # no folder of pytest's: the path of a socket has 107 characters at most
        with (
            tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
            dashboard_cluster(num_cpus=head_cpus) as (cluster, dashboard),
        ):
            nodes = Nodes(cluster, dashboard, [], worker_cpus, Path(folder))
            for _ in range(workers):
                nodes.add_worker()
            wait_for(nodes._takes_jobs, timeout_s=90)
            yield nodes
