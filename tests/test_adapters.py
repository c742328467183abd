"""The shapes of callable that trainers ask for, against a real endpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqa_core.adapters import ImageReward, swift_orm, trl_reward, verl_compute_score
from iqa_core.client import RequestRefused, RewardClient
from iqa_core.errors import RunError
from tests.serve.local import UNEVEN, listening
from tests.trainers.drawing import draw as render
from tests.trainers.drawing import picture

PROMPTED = Path(__file__).parent / "serve" / "prompted.toml"
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


def test_each_adapter_asks_the_rubric_that_it_is_given() -> None:
    settings = {"rubrics": ["interior-v1", "q-align"], "fusion": {"interior-v1": UNEVEN}}
    with listening(**settings) as url, RewardClient(url) as client:
        scores = client.assess(IMAGES, rubric="q-align")
        assert list(scores[0].scores) == ["quality", "aesthetics"]
        wanted = [score.reward for score in scores]
        assert wanted != [score.reward for score in client.assess(IMAGES)]
        assert client.rank(IMAGES, rubric="q-align").scores == scores
        reward = trl_reward(client, render, rubric="q-align")
        assert reward(prompts=["p"] * 4, completions=["0", "1", "2", "3"]) == wanted
        assert reward.__name__ == "iqa_q-align_reward"
        assert swift_orm(client, render, rubric="q-align")()(["0", "1", "2", "3"]) == wanted
        assert ImageReward(client, rubric="q-align")(IMAGES) == wanted
        found = verl_compute_score(client, rubric="q-align")("rooms", solution_image=IMAGES[1])
        assert found == {"score": wanted[1], **scores[1].scores}
        with pytest.raises(RequestRefused, match="this endpoint serves interior-v1, q-align"):
            client.assess(IMAGES, rubric="other")
        with pytest.raises(RunError, match="no rubric other"):
            verl_compute_score(client, render, rejected=1.0, rubric="other")("rooms", solution_str="")


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


PROMPTS = ["a hall", "two dogs", "a red sofa", "a cat"]
TALKS = [
    [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "?"}, {"role": "user", "content": prompt}]
    for prompt in PROMPTS
]
PARTS = [
    [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]},
        {"role": "system", "content": ""},
    ]
    for prompt in PROMPTS
]


@pytest.fixture(scope="module")
def prompted() -> Iterator[RewardClient]:
    """Of an endpoint whose rubric asks about the prompt."""
    with listening(rubric=str(PROMPTED), fusion=None) as url, RewardClient(url) as found:
        yield found


@pytest.mark.parametrize("prompts", [PROMPTS, TALKS, PARTS], ids=["texts", "conversations", "parts"])
def test_every_trainers_prompts_reach_their_images(prompted: RewardClient, prompts: list[Any]) -> None:
    scores = prompted.assess(IMAGES, PROMPTS)
    wanted = [score.reward for score in scores]
    swapped = prompted.assess(IMAGES, PROMPTS[::-1])
    assert all(own.reward != other.reward for own, other in zip(scores, swapped, strict=True))
    completions = ["0", "1", "2", "3"]
    assert trl_reward(prompted, render)(prompts=prompts, completions=completions) == wanted
    assert swift_orm(prompted, render)()(completions, prompts=prompts) == wanted
    assert swift_orm(prompted, render)()(completions, messages=prompts) == wanted
    assert ImageReward(prompted)(IMAGES, prompts) == wanted
    verl = verl_compute_score(prompted, render)
    for number, prompt, score in zip(completions, prompts, scores, strict=True):
        assert verl("rooms", solution_str=number, extra_info={"prompt": prompt})["score"] == score.reward
        assert verl("rooms", solution_str=number, ground_truth=prompt)["score"] == score.reward
        known = {"prompt": prompt}
        assert verl("rooms", solution_image=picture(int(number)), ground_truth="7", extra_info=known) == {
            "score": score.reward,
            **score.scores,
        }


def test_a_completion_without_an_image_takes_no_others_prompt(prompted: RewardClient) -> None:
    found = trl_reward(prompted, render)(prompts=PROMPTS, completions=["0", "", "2", "?"])
    scores = prompted.assess(IMAGES, PROMPTS)
    assert found == [scores[0].reward, None, scores[2].reward, None]


def test_a_prompt_that_is_no_text_leaves_its_image_out(prompted: RewardClient) -> None:
    found = trl_reward(prompted, render)(prompts=["a hall", None, [], " "], completions=["0", "1", "2", "3"])
    assert [reward is None for reward in found] == [False, True, True, True]
    with pytest.raises(RequestRefused, match="rubric prompted asks about it"):
        trl_reward(prompted, render)(prompts=[7], completions=["0"])


def test_a_dimension_as_reward_is_better_where_it_is_more(prompted: RewardClient) -> None:
    [score] = prompted.assess(IMAGES[:1], "a hall")
    [found] = trl_reward(prompted, render, dimension="faults")(prompts=["a hall"], completions=["0"])
    assert found == score.rating("faults") == pytest.approx(5 - 4 * score.scores["faults"] / 10)


def test_prompts_of_another_number_are_not_sent(client: RewardClient, rewards: list[float | None]) -> None:
    assert ImageReward(client)(IMAGES, ["a hall"]) == rewards


def test_a_diffusers_trainer_gets_one_reward_per_image(client: RewardClient, rewards: list[float | None]) -> None:
    assert ImageReward(client)(IMAGES, ["a hall"] * 4) == rewards
    assert ImageReward(client, rejected=0.0)([b"broken"]) == [0.0]
