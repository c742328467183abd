"""An answer is what an endpoint says, in every value, or it is none."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import numpy as np
import pytest

from iqa_core.endpoint.answers import Score, WrittenText, best_first, models_of, scores_of
from iqa_core.records import ScoreRange

SCORED = {
    "status": "scored",
    "scores": {"layout": 3.0, "harmony": 5},
    "std": {"layout": 0.5, "harmony": 0},
    "probs": {"layout": [0.0, 0.25, 0.5, 0.25, 0.0], "harmony": [0, 0, 0, 0, 1]},
    "reward": 4.0,
    "width": 112,
}
REJECTED = {"status": "rejected", "reason": "corrupt", "detail": "it is cut"}
ANSWER = {"fingerprint": "f", "rubric": "r", "results": [SCORED, REJECTED]}


def test_equal_rewards_keep_their_order_and_what_has_none_has_no_place() -> None:
    assert best_first([3.0, None, 4.0, 3.0, 4.5]) == [4, 2, 0, 3]
    assert best_first([None]) == []


def test_a_whole_answer_is_taken_and_what_is_new_in_it_passed_over() -> None:
    scored, rejected = scores_of(ANSWER, 2, with_probs=True)
    assert scored == Score(4.0, SCORED["scores"], SCORED["std"], None, None, "f", SCORED["probs"])  # type: ignore[arg-type]
    assert rejected == Score(None, {}, {}, "corrupt", "it is cut", "f")
    assert scores_of(ANSWER, 2, with_probs=False)[0].probs is None


NO_NUMBERS = [math.nan, math.inf, -math.inf, 99, 0.99, -1, "high", "3", None, True, [3], {}, 10**400]


def damaged(place: str, value: Any, answer: Any = ANSWER) -> Any:
    """The answer with another value at a place; without the place where the value is `...`."""
    answer = copy.deepcopy(answer)
    inside: Any = answer
    *path, last = (int(name) if name.isdigit() else name for name in place.split("."))
    for name in path:
        inside = inside[name]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return answer


@pytest.mark.parametrize("place", ["results.0.reward", "results.0.scores.layout"])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_a_reward_that_is_none_is_named(place: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{place} is .*, no number from 1 to 5$") as caught:
        scores_of(damaged(place, value), 2, with_probs=True)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("fingerprint", ..., "it has no fingerprint"),
        ("fingerprint", 7, "fingerprint is 7, no text"),
        ("results", ..., "it has no results"),
        ("results", {}, "it has 0 results, and 2 were asked for"),
        ("results", [SCORED], "it has 1 results, and 2 were asked for"),
        ("results", [SCORED] * 3, "it has 3 results, and 2 were asked for"),
        ("results.0", None, "it has no results.0.status"),
        ("results.0.status", ..., "it has no results.0.status"),
        ("results.0.status", "fine", "results.0.status is 'fine', neither scored nor rejected"),
        ("results.0.status", ["scored"], "results.0.status is a list of 1, neither"),
        ("results.0.reward", ..., "it has no results.0.reward"),
        ("results.0.scores", ..., "it has no results.0.scores"),
        ("results.0.scores", {}, "results.0.scores is a dict of 0, no values by dimension"),
        ("results.0.scores", [3.0], "results.0.scores is a list of 1, no values by dimension"),
        ("results.0.std.layout", 2.01, "results.0.std.layout is 2.01, no number from 0 to 2"),
        ("results.0.std.layout", math.nan, "results.0.std.layout is nan, no number from 0 to 2"),
        ("results.0.std.layout", ..., "has other dimensions than results.0.scores"),
        ("results.0.std", ..., "it has no results.0.std"),
        ("results.0.probs", ..., "it has no results.0.probs"),
        ("results.0.probs.layout", [0.5, 0.5], "results.0.probs.layout is a list of 2, no 5 probabilities"),
        ("results.0.probs.layout", [0.5, 0.5, 0.5, 0, 0], "results.0.probs.layout sums to 1.5, not to 1"),
        ("results.0.probs.layout", [-1, 1, 1, 0, 0], "results.0.probs.layout is -1, no number from 0 to 1"),
        ("results.0.probs.layout", [math.nan] * 5, "results.0.probs.layout is nan"),
        ("results.0.probs.more", [0, 0, 0, 0, 1], "has other dimensions than results.0.scores"),
        ("results.1.reason", ..., "it has no results.1.reason"),
        ("results.1.detail", None, "results.1.detail is None, no text"),
        ("results.1.reward", 5.0, "results.1.reward is there though the image was rejected"),
    ],
)
def test_what_else_is_no_answer_is_named(place: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        scores_of(damaged(place, value), 2, with_probs=True)


@pytest.mark.parametrize("answer", [None, [], "x", 7, {}, {"results": [SCORED, REJECTED]}])
def test_what_is_no_object_is_no_answer(answer: Any) -> None:
    with pytest.raises(ValueError, match="it has no"):
        scores_of(answer, 2, with_probs=False)
    with pytest.raises(ValueError, match="it has no models"):
        models_of(answer)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({}, "it has no models"),
        ([], "it has no models"),
        ([7], "it has no models.0.fingerprint"),
        ([{"fingerprint": "f"}], "it has no models.0.dimensions"),
        ([{"fingerprint": "f", "dimensions": []}], "it has no models.0.dimensions"),
        ([{"fingerprint": "f", "dimensions": ["layout"]}], "it has no models.0.dimensions.0.name"),
        ([{"fingerprint": "f", "dimensions": [{"name": 1}]}], "models.0.dimensions.0.name is 1, no text"),
    ],
)
def test_what_is_no_model_is_named(models: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        models_of({"models": models})


ASKED = {
    "fingerprint": "f",
    "scales": {
        "faults": {"worst": 10, "best": 0, "answers": ["none", "few", "many"], "worths": [0, 3, 10]},
        "counting": {"worst": 0, "best": 1, "statements": ["two_dogs", "one_cat"]},
    },
    "results": [
        {
            "status": "scored",
            "scores": {"layout": 3.0, "faults": 2.5, "counting": 0.75},
            "std": {"layout": 0.5, "faults": 5, "counting": 0.25},
            "probs": {"layout": [0.0, 0.25, 0.5, 0.25, 0.0], "faults": [0.25, 0.5, 0.25]},
            "yes": {"counting": [0.5, 1.0]},
            "reward": 4.0,
        }
    ],
}
"""A rubric with a question of three answers where less is better, and a group of two statements."""


def test_scores_lie_in_the_ranges_that_the_answer_names() -> None:
    [score] = scores_of(ASKED, 1, with_probs=True)
    assert score.ranges == {"faults": ScoreRange(10, 0), "counting": ScoreRange(0, 1)}
    assert score.yes == {"counting": [0.5, 1.0]}
    assert score.probs is not None
    assert list(map(len, score.probs.values())) == [5, 3]
    assert [score.rating(name) for name in score.scores] == [3.0, 4.0, 4.0], "1 is worst and 5 best"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("results.0.scores.faults", 10.01, "results.0.scores.faults is 10.01, no number from 0 to 10"),
        ("results.0.scores.faults", math.nan, "no number from 0 to 10"),
        ("results.0.scores.counting", 1.001, "no number from 0 to 1"),
        ("results.0.scores.layout", 0.5, "no number from 1 to 5"),
        ("results.0.reward", 0.5, "results.0.reward is 0.5, no number from 1 to 5"),
        ("results.0.std.faults", 5.01, "results.0.std.faults is 5.01, no number from 0 to 5"),
        ("results.0.std.counting", 0.6, "no number from 0 to 0.5"),
        ("results.0.probs.faults", [0.5, 0.5], "results.0.probs.faults is a list of 2, no 3 probabilities"),
        ("results.0.probs.counting", [0.5, 0.5], "results.0.probs has other dimensions than results.0.scores"),
        ("results.0.yes.counting", [0.5], "results.0.yes.counting is a list of 1, no 2 probabilities"),
        ("results.0.yes.counting", [0.5, 1.1], "results.0.yes.counting is 1.1, no number from 0 to 1"),
        ("results.0.yes", ..., "results.0.yes has other dimensions than results.0.scores"),
        ("results.0.yes.faults", [0, 0, 1], "results.0.yes has other dimensions than results.0.scores"),
        ("scales", [], "scales is a list of 0, nothing by dimension"),
        ("scales.faults", 7, "it has no scales.faults.worst"),
        ("scales.faults.best", "0", "scales.faults.best is '0', no number from -1e+06 to 1e+06"),
        ("scales.faults.best", 10, "scales.faults.best is 10, as is scales.faults.worst"),
        ("scales.faults.answers", ..., "it has no scales.faults.answers"),
        ("scales.counting.statements", [], "scales.counting.answers is a list of 0, no answers or statements"),
        ("scales.faults", ..., "no number from 0 to 2"),
    ],
)
def test_what_is_outside_of_the_ranges_is_named(place: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        scores_of(damaged(place, value, ASKED), 1, with_probs=True)


def test_an_end_that_float32_rounds_up_is_inside() -> None:
    end = 123456.7
    answer = damaged("scales.faults.worst", end, damaged("results.0.scores.faults", float(np.float32(end)), ASKED))
    assert scores_of(answer, 1, with_probs=True)[0].scores["faults"] > end


def test_the_first_fault_ends_the_check() -> None:
    answer = {"fingerprint": "f", "results": [0] * 100_000}
    with pytest.raises(ValueError, match=r"it has no results\.0\.status"):
        scores_of(answer, 100_000, with_probs=False)


WRITTEN = {
    "status": "scored",
    "scores": {"quality": 3.5},
    "std": {},
    "reward": 3.5,
    "written": {"caption": None, "reasoning": "soft", "parsed": 2, "finish": "stop", "answers": ["a", "b"]},
}
WROTE = {"fingerprint": "f", "rubric": "r", "results": [WRITTEN]}


def test_what_was_written_comes_with_its_scores() -> None:
    [found] = scores_of(WROTE, 1, with_probs=False)
    assert found.written == WrittenText(None, "soft", 2, "stop")
    assert (found.scores, found.std) == ({"quality": 3.5}, {})
    [drawn] = scores_of(damaged("results.0.std", {"quality": 2.8284}, WROTE), 1, with_probs=False)
    assert drawn.std == {"quality": 2.8284}


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("written.caption", 3, "written.caption is 3, no text"),
        ("written.parsed", 0, "written.parsed is 0, no number"),
        ("written.finish", "eos", "written.finish is 'eos', neither stop nor length"),
        ("written.reasoning", ..., "it has no results.0.written.reasoning"),
        ("written", None, "it has no results.0.written.caption"),
        ("written", ..., "std has other dimensions"),
        ("std", {"quality": 2.9}, "std.quality is 2.9"),
        ("std", {"layout": 1.0}, "std has other dimensions"),
    ],
)
def test_what_is_no_written_answer_is_named(place: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        scores_of(damaged(f"results.0.{place}", value, WROTE), 1, with_probs=False)
