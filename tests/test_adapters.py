"""The shapes of callable that trainers ask for, against a real endpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from iqa_core.adapters import ImageReward, swift_orm, trl_reward, verl_compute_score
from iqa_core.client import RewardClient
from iqa_core.errors import RunError
from tests.serve.local import listening
from tests.trainers.drawing import draw as render
from tests.trainers.drawing import picture

IMAGES = [picture(i) for i in range(4)]


@pytest.fixture(scope="module")
def client() -> Iterator[RewardClient]:
    with listening() as url, RewardClient(url) as found:
        yield found


@pytest.fixture(scope="module")
def rewards(client: RewardClient) -> list[float | None]:
    return [score.reward for score in client.assess(IMAGES)]


def test_trl_gets_none_for_what_has_no_score(client: RewardClient, rewards: list[float | None]) -> None:
    reward = trl_reward(client, render)
    found = reward(prompts=["p"] * 5, completions=["2", "", "0", "?", "2"], completion_ids=[[1]] * 5, seed=[0] * 5)
    assert found == [rewards[2], None, rewards[0], None, rewards[2]]
    layout = trl_reward(client, render, dimension="layout")
    assert layout(prompts=["p"], completions=["1"]) == [client.assess([IMAGES[1]])[0].scores["layout"]]
    assert (reward.__name__, layout.__name__) == ("iqa_reward", "iqa_layout")


def test_swift_gets_none_for_what_has_no_score(client: RewardClient, rewards: list[float | None]) -> None:
    orm = swift_orm(client, render)(None)
    assert orm(["3", "?", "", "1"], solution=["x"] * 4) == [rewards[3], None, None, rewards[1]]
    assert swift_orm(client, render, rejected=1.0)()(["?", ""]) == [1.0, 1.0]
    layout = swift_orm(client, render, dimension="layout")()
    assert layout(["1"]) == [client.assess([IMAGES[1]])[0].scores["layout"]]


def test_verl_gets_a_score_and_its_parts(client: RewardClient, rewards: list[float | None]) -> None:
    found = verl_compute_score(client)("rooms", solution_image=IMAGES[1], ground_truth=None, extra_info={})
    assert found["score"] == rewards[1]
    assert set(found) == {"score", "layout", "harmony", "lighting", "distortion"}
    assert verl_compute_score(client, render)("rooms", solution_str="1") == found
    with pytest.raises(RunError, match="`render`"):
        verl_compute_score(client)("rooms", solution_str="1")
    for text in ("?", ""):
        with pytest.raises(RunError, match="rejected="):
            verl_compute_score(client, render)("rooms", solution_str=text)
        unscored = verl_compute_score(client, render, rejected=1.0)("rooms", solution_str=text)
        assert unscored.pop("score") == 1.0
        assert unscored.keys() == found.keys() - {"score"}, "verl takes the first solution's keys for all"
        assert all(map(math.isnan, unscored.values()))


def test_a_diffusers_trainer_gets_one_reward_per_image(client: RewardClient, rewards: list[float | None]) -> None:
    assert ImageReward(client)(IMAGES, ["a hall"] * 4) == rewards
    assert ImageReward(client, rejected=0.0)([b"broken"]) == [0.0]
