"""A batch and settings -> rewards by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from iqa_core.records import ScoreRange
from iqa_core.training.rewards.answers import read
from iqa_core.training.rewards.batch import REWARDS, Batch, RewardSettings, rewards_of
from iqa_core.training.rewards.composition import Composition, composed
from iqa_core.training.rewards.fidelity import fidelity, over_attributes
from iqa_core.training.rewards.margin import margin
from iqa_core.training.rewards.pairs import label_scales
from iqa_core.training.rewards.scores import ScoreReward
from iqa_core.written.form import Attribute, Form, Grammar
from iqa_core.written.judging import Sample
from tests.written.forms import PERCEPTION

TWO = Form(Grammar.JSON, (Attribute("noise", "noise", ScoreRange(5, 1), 1), Attribute("quality", "rating")))
NAN = float("nan")
NAMES = ["noise", "quality"]
TEXTS = [
    ['{"noise": 2.5, "rating": 3.5}', '{"noise": 2, "rating": 4}', "no"],
    ['{"noise": 3, "rating": 2}', '{"noise": 4, "rating": 2.5}', '{"noise": 4.5, "rating": 3}'],
    ['{"noise": 1, "rating": 5}', '{"noise": 1, "rating": 5}', '{"noise": 2, "rating": 4.5}'],
]
ANSWERS = read([[Sample(text) for text in texts] for texts in TEXTS], TWO)
Y = [[3.0, 3.5], [2.0, 2.0], [NAN, 4.5]]
BATCH = Batch(ANSWERS, Y, [0, 0, 0], s_NA=np.full((3, 2), 0.5))


def settings(*names: str, **more: Any) -> RewardSettings:
    return RewardSettings(composition=Composition(weights=dict.fromkeys(names, 1.0)), **more)


def test_each_reward_is_that_of_its_function_by_the_settings() -> None:
    chosen = settings(
        "fidelity", "margin", "score", "format", preferences="soft", tolerance="sigma", variance_floor=0.01
    )
    found = rewards_of(BATCH, chosen, NAMES)
    q, s = ANSWERS.q_NKA, BATCH.s_NA
    wanted = fidelity(q, Y, [0, 0, 0], s, preferences="soft", variance_floor=0.01)
    np.testing.assert_array_equal(found["fidelity"], over_attributes(wanted, [1, 1]))
    np.testing.assert_array_equal(found["margin"], over_attributes(margin(q, Y, [0] * 3, s, tolerance="sigma"), [1, 1]))
    assert found["score"][2, 0] == ScoreReward().of_errors([0.5])  # no opinion on noise
    assert found["format"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert composed(found, chosen.composition).reward_NK[0, 2] == 0


def test_data_sets_are_compared_by_the_scales_of_the_batch() -> None:
    scales = label_scales(Y, [0, 0, 0])
    found = rewards_of(replace(BATCH, scales=scales), settings("fidelity", alignment="standardised"), NAMES)
    np.testing.assert_allclose(found["fidelity"], rewards_of(BATCH, settings("fidelity"), NAMES)["fidelity"])


def test_attributes_have_weights_by_name() -> None:
    found = rewards_of(BATCH, settings("score", attributes={"quality": 0}), NAMES)["score"]
    np.testing.assert_allclose(found[0], [*ScoreReward().of_errors([0.5, 1]), NAN])
    with pytest.raises(ValueError, match="there is no attribute colour; there are noise, quality"):
        rewards_of(BATCH, settings("score", attributes={"colour": 1}), NAMES)


def test_captions_are_judged_and_held_against_what_people_wrote() -> None:
    said = [
        f"<caption>a {caption} hall</caption><reasoning>it is {reasoning}</reasoning><rating>3</rating>"
        for caption, reasoning in (("dark", "blurred"), ("bright", "sharp"))
    ]
    answers = read([[Sample(text) for text in said], [Sample(said[0]), Sample("no")]], PERCEPTION)
    judged = [[[2.0], [4.0]], [[3.0], [NAN]]]
    batch = Batch(answers, [[4.0], [3.0]], [0, 0], references_N=[["a bright hall"], []], judged_NKA=judged)
    found = rewards_of(batch, settings("caption", "words", words="caption"), ["quality"])
    np.testing.assert_allclose(found["caption"], np.array([[0, 1], [1, NAN]]), atol=1e-12)
    np.testing.assert_allclose(found["words"], np.array([[2 / 3, 1], [NAN, NAN]]))
    own = rewards_of(batch, settings("caption", caption_target="own"), ["quality"])["caption"]
    np.testing.assert_allclose(own, np.array([[0.5, 0.5], [1, NAN]]))
    assert rewards_of(batch, settings("words", measure="recall"), ["quality"])["words"][0].tolist() == [2 / 3, 1]
    assert answers.texts("both")[1] == ["a dark hall\nit is blurred", None]
    assert answers.texts("reasoning")[0] == ["it is blurred", "it is sharp"]


def test_by_default_a_score_anchors_the_ranks() -> None:
    assert rewards_of(BATCH, RewardSettings(), NAMES).keys() == {"fidelity", "score", "format"}


@pytest.mark.parametrize("name", ["caption", "words"])
def test_a_reward_that_lacks_its_texts_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"the reward `{name}` needs"):
        rewards_of(BATCH, settings(name), NAMES)


def test_a_reward_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match=f"there is no reward beauty; there are {', '.join(REWARDS)}"):
        settings("fidelity", "beauty")
