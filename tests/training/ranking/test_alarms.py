"""Figures of a run that goes wrong in one way -> that alarm alone, and none before the run has had its time."""

from __future__ import annotations

import pytest

from iqa_core.training.ranking.alarms import PATIENCE, alarms

SOUND = {"parsed_drawn": 0.9, "cut": 0.0, "dead_groups": 0.1, "fidelity_normalised": 0.5, "fidelity_blind": 0.1}


def run(steps: int, **figures: float) -> list[dict[str, float]]:
    return [{"step": step, **SOUND, **figures} for step in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("figures", "name", "remedy"),
    [
        ({"parsed_drawn": 0.4}, "parsed_drawn", "train_sft.py --text"),
        ({"cut": 0.3}, "cut", "raise --max-new-tokens"),
        ({"dead_groups": 0.95}, "dead_groups", "raise --temperature"),
        ({"fidelity_normalised": 0.15}, "blind", "does not look"),
        ({"caption_plcc": 0.8, "caption_plcc_base": 0.4}, "code", "raise --kl-weight"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(figures: dict[str, float], name: str, remedy: str) -> None:
    assert not alarms(run(PATIENCE - 1, **figures))
    [found] = alarms(run(PATIENCE + 3, **figures))
    assert found.name == name
    assert remedy in found.text
    assert (found.first, found.last, found.is_on) == (PATIENCE, PATIENCE + 3, True)


def test_what_goes_wrong_no_longer_is_told_with_its_steps() -> None:
    sound = [{**one, "step": one["step"] + PATIENCE} for one in run(PATIENCE)]
    [found] = alarms(run(PATIENCE, cut=0.3) + sound)
    assert (found.first, found.last, found.is_on) == (PATIENCE, PATIENCE + 9, False), "a third of 30 steps is sound"
    assert found.text.startswith("21% of answers are cut"), "as it was at the last of them"
    assert not alarms(run(2, cut=0.3) + [{**one, "step": one["step"] + 2} for one in run(PATIENCE)])


def test_words_that_come_nearer_while_scores_agree_less_are_recited() -> None:
    half = PATIENCE // 2
    words = [0.4] * half + [0.5] * half
    for srcc, names in ((0.7, ["recited"]), (0.9, [])):
        srccs = [0.8] * half + [srcc] * half
        records = [
            {**one, "reward_words": word, "srcc": agreement}
            for one, word, agreement in zip(run(PATIENCE), words, srccs, strict=True)
        ]
        assert [alarm.name for alarm in alarms(records)] == names


def test_a_sound_run_and_one_without_such_figures_alarm_nobody() -> None:
    assert not alarms([])
    assert not alarms(run(PATIENCE))
    assert not alarms([{"step": 40.0, "loss": 1.0}])
