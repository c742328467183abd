"""Settings and nodes -> how many actors, with what, and whether the nodes hold them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.errors import CallerError, RunError
from jobs.cluster_session import Pool, Resources, connected, plan_pool, shortage_of

HEAD: Resources = {"CPU": 8.0}
ONE_GPU: Resources = {"CPU": 8.0, "GPU": 1.0}
THREE_GPUS: Resources = {"CPU": 24.0, "GPU": 3.0}


def planned(nodes: Sequence[Resources], num_gpus: float | None, num_actors: int | None = None) -> Pool:
    return plan_pool(AssessorConfig(checkpoint="org/model", num_gpus=num_gpus), num_actors, None, 0.25, nodes)


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


def test_gpus_that_no_node_has_together_are_refused() -> None:
    nodes = [HEAD, ONE_GPU, THREE_GPUS]
    assert shortage_of(planned(nodes, 4), nodes) == (
        "an actor's 4 GPUs must lie on one node, and no node has more than 3"
    )


def test_gpus_for_an_assessor_on_the_cpu_are_refused() -> None:
    for config in (AssessorConfig(device="cpu", num_gpus=1), AssessorConfig(checkpoint="fake:", num_gpus=0.5)):
        with pytest.raises(CallerError, match=r"--assessor.num-gpus (1|0.5): this assessor runs on the CPU"):
            plan_pool(config, None, None, 0.25, [ONE_GPU])


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
