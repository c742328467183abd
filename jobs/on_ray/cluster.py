"""Where the job runs: a Ray cluster that is there, or one started for it; and whether the work fits into it."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from iqa_core.assessor.config import AssessorConfig
from iqa_core.errors import CallerError, RunError, heed_termination
from jobs.command import ROOT
from jobs.on_ray.head_watch import head_watched

Resources = Mapping[str, float]
"""Resources of a node, as Ray names them: CPU, GPU, memory and others."""

OBJECT_STORE_BYTES = 512 * 2**20
"""Object store of a Ray that is started here: a few dozen batches of pixels, on a machine that others use as well."""

ANSWER_TIMEOUT_S = 10.0
"""Seconds that a cluster's port may take to accept a connection."""

CPU_ACTOR_SHARE = 0.75
"""Share of each CPU that actors get where there is no GPU; the rest is left to readers."""

RAY_ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # a thread that outlives the driver's Ray would start another one, to ask it for what is gone
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # a task killed for memory is otherwise retried without end
    "RAY_task_oom_retries": "3",
    # what a dying worker costs is found by ordinal and said in images; Ray's own lines say it per attempt
    "RAY_enable_output_error_log_if_still_retry": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Set before Ray is imported, where the caller has not set it."""


@dataclass(frozen=True, slots=True)
class Pool:
    """How the cluster is shared between the assessor's actors and the readers."""

    num_actors: int
    actor_cpus: float
    actor_gpus: float
    reader_cpus: float
    threads_per_actor: int
    max_actors: int | None = None
    """Actors to which the pool grows when there is room; None: it stays as it begins."""

    @property
    def most_actors(self) -> int:
        """Actors once the pool has grown."""
        return self.max_actors or self.num_actors

    def describe(self) -> str:
        """The pool in words, for people."""
        actors = f"{self.num_actors} to {self.max_actors}" if self.max_actors else f"{self.num_actors}"
        gpus = f" and {self.actor_gpus:g} GPU" if self.actor_gpus else ""
        return f"{actors} actors with {self.actor_cpus:g} CPU{gpus} each; readers with {self.reader_cpus:g} CPU"


@contextmanager
def connected(address: str | None, code_on_nodes: bool = False) -> Iterator[None]:
    """Inside: Ray, at this address, at RAY_ADDRESS (as in a submitted job), or started on this machine for the job.

    code_on_nodes: every node of the cluster has this checkout at the same path.

    Raises CallerError where the cluster cannot be used, RunError where no Ray could be started here.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.WARNING)
    there = require_answer(address)
    code = _code_for_workers(bool(there) and not code_on_nodes)
    options: dict[str, Any] = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        found: Any = ray.init(
            address=there or "local",
            **code,
            log_to_driver=False,
            logging_level=logging.WARNING,
            configure_logging=False,
            **({} if there else options),
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RpcError) as error:
        if not there:
            raise RunError(f"no Ray could be started here ({error})") from error
        raise CallerError(f"the Ray cluster at {there} cannot be used ({error})") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Ray raises a bare Exception where the processes that it starts do not come up within 30 s
        raise RunError(f"no Ray could be started here ({error}); try again when the machine is less busy") from error
    heed_termination()  # Ray has installed a handler with which a driver ends without a word
    with head_watched(found.address_info["gcs_address"]):
        try:
            yield
        finally:
            ray.shutdown()


def require_answer(given: str | None) -> str | None:
    """The cluster to be used, by flag or environment; None: one is started.

    Raises CallerError for what is no address of a cluster, and where nothing listens: Ray itself looks for 100 s.
    """
    origin, address = ("--ray-address", given) if given else ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS"))
    if not address or address in ("auto", "local"):
        return address or None
    if address.startswith("ray://"):
        raise CallerError(
            f"{address}: Ray Client is not supported; give HOST:6379, or submit the job to http://HOST:8265"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal()) or "/" in host or int(port) > 65535:
        raise CallerError(
            f"{origin} {address}: a cluster is named HOST:6379, or `auto` for the one on this machine. Through a "
            "dashboard a job is submitted: ray job submit --address http://HOST:8265 --working-dir . -- python jobs/…"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIMEOUT_S).close()
    except OSError as error:
        raise CallerError(f"{origin} {address}: no Ray cluster answers there ({error})") from error
    return address


@contextmanager
def connected_on_demand(address: str | None, code_on_nodes: bool) -> Iterator[Callable[[], None]]:
    """A function that connects when it is called first; where nothing is left to do, nothing is started."""
    with ExitStack() as session:
        is_connected = False

        def connect() -> None:
            nonlocal is_connected
            if not is_connected:
                session.enter_context(connected(address, code_on_nodes))
                is_connected = True

        yield connect


def _code_for_workers(is_copied: bool) -> dict[str, Any]:
    """Arguments of `ray.init` with which workers find this code: by its path, or in a copy that they are sent."""
    submission = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "null"))
    if submission is None:
        return {"runtime_env": {"working_dir": str(ROOT)}} if is_copied else {"job_config": code_from_here()}
    # the path would come before the copy that was submitted
    return {} if "working_dir" in (submission.get("runtime_env") or {}) else {"job_config": code_from_here()}


def code_from_here() -> Any:
    """A job's configuration with which its workers look for this code at its path.

    The same by a runtime environment (PYTHONPATH) makes each worker import Ray twice: 0.7 s of CPU time.
    """
    from ray.job_config import JobConfig

    return JobConfig(_py_driver_sys_path=[str(ROOT)])


def plan_pool(
    config: AssessorConfig,
    num_actors: int | None,
    max_actors: int | None,
    actor_cpus: float | None,
    reader_cpus: float,
    nodes: Sequence[Resources],
) -> Pool:
    """An actor wherever its GPUs fit; without GPUs one per CPU, with a quarter of each CPU left to readers.

    max_actors, if it is more, is what the pool may grow to; the CPUs that are there are shared among that many.

    Raises CallerError for --assessor.num-gpus with an assessor that runs on the CPU.
    """
    may_use_gpu = config.device != "cpu" and not config.checkpoint.startswith("fake:") and not config.is_served
    if config.num_gpus and not may_use_gpu:
        raise CallerError(f"--assessor.num-gpus {config.num_gpus:g}: this assessor runs on the CPU")
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    on_gpu = may_use_gpu and (config.device == "cuda" or bool(config.num_gpus) or gpus > 0)
    gpus_each = (config.num_gpus or 1.0) if on_gpu else 0.0
    cpus_each = actor_cpus or (1.0 if on_gpu else CPU_ACTOR_SHARE)
    most = sum(_gpu_slots(node, gpus_each) for node in nodes) if on_gpu else int(CPU_ACTOR_SHARE * cpus / cpus_each)
    count = num_actors or max(1, most)
    if max_actors is not None and num_actors is None:
        count = min(count, max_actors)
    at_once = max(count, min(max_actors or count, most))
    most_cpus = max((node.get("CPU", 0.0) for node in nodes), default=1.0)
    threads = config.threads or max(1, int(min(cpus / at_once, most_cpus)))
    grows_to = max_actors if max_actors is not None and max_actors > count else None
    return Pool(count, cpus_each, gpus_each, reader_cpus, threads, grows_to)


@contextmanager
def made_room(pool: Pool, wait_s: float) -> Iterator[None]:
    """Inside: the cluster holds the pool, at its smallest, and one reader. Raises CallerError after wait_s."""
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + wait_s
    must_grow = wait_s > 0 and shortage_of(pool, living_nodes()) is not None
    if must_grow:
        # a cluster that grows does so on demand, and nothing has asked for anything yet
        actor = {"CPU": pool.actor_cpus} | ({"GPU": pool.actor_gpus} if pool.actor_gpus else {})
        request_resources(bundles=[*[actor] * pool.num_actors, {"CPU": pool.reader_cpus}])
    try:
        while shortage := shortage_of(pool, living_nodes()):
            if time.monotonic() >= deadline:
                raise CallerError(
                    f"the cluster cannot hold the work: {shortage}. Lower --num-actors, --actor-cpus, --reader-cpus or "
                    "--assessor.num-gpus, or let it grow and give --wait-for-resources-s"
                )
            time.sleep(min(2.0, wait_s))
        yield
    finally:
        if must_grow:
            # what was asked for outlives the job: the machines would stay, and cost
            request_resources(bundles=[])


def shortage_of(pool: Pool, nodes: Sequence[Resources]) -> str | None:
    """What these nodes lack to hold the pool and one reader; None if nothing."""
    most_gpus = max(node.get("GPU", 0.0) for node in nodes)
    if pool.actor_gpus > most_gpus:
        return f"an actor's {pool.actor_gpus:g} GPUs must lie on one node, and no node has more than {most_gpus:g}"
    slots = sum(_slots(node, pool) for node in nodes)
    if slots < pool.num_actors:
        have = ", ".join(f"{node.get('CPU', 0):g} CPU + {node.get('GPU', 0):g} GPU" for node in nodes)
        return f"{pool.describe()}, but there is room for {slots} of them ({have})"
    # a slot that no actor takes is room for readers, and so is what is left of a node beside its slots
    has_spare_slot = slots > pool.num_actors and pool.actor_cpus >= pool.reader_cpus
    cpus_left = max(node.get("CPU", 0.0) - _slots(node, pool) * pool.actor_cpus for node in nodes)
    if not has_spare_slot and cpus_left < pool.reader_cpus - 1e-6:
        return f"{pool.describe()}, but the actors leave {max(cpus_left, 0):g} CPU for reading"
    return None


def living_nodes() -> list[Resources]:
    """Resources of each node that is alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _slots(node: Resources, pool: Pool) -> int:
    by_cpu = int(node.get("CPU", 0.0) / pool.actor_cpus + 1e-6)
    return min(by_cpu, _gpu_slots(node, pool.actor_gpus)) if pool.actor_gpus else by_cpu


def _gpu_slots(node: Resources, gpus_each: float) -> int:
    """How many reservations a node's GPUs hold: a share of one never lies on two."""
    gpus = node.get("GPU", 0.0)
    return int(gpus) * int(1 / gpus_each + 1e-6) if gpus_each < 1 else int(gpus / gpus_each)


def room_for(cpus: float, gpus: float) -> int:
    """How many processes with so many CPUs and GPUs each the living nodes hold, if nothing else runs there."""
    return sum(_slots(node, Pool(1, cpus, gpus, 0.0, 1)) for node in living_nodes())
