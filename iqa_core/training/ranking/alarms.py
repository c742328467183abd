"""Figures of a run so far -> what goes wrong in it, since when, and what to do, in a sentence each.

Shape suffix: R records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iqa_core.training.ranking.worth import BLIND_FIDELITY, CAPTION_PLCC, CUT, DRAWN_PARSED, FIDELITY
from iqa_core.training.rewards.arrays import Floats, Ints
from iqa_core.training.rewards.fidelity import CHANCE

Bools = NDArray[np.bool_]

PATIENCE = 30
"""Steps that a run is given, and over which figures are averaged: a step's own are of a few images."""

LEAST_PARSED, MOST_CUT, MOST_DEAD = 0.5, 0.2, 0.9
LEAST_SIGHT = 0.02
"""Fidelity by which answers are better than those about another image."""

MOST_CODE = 0.3
"""Correlation by which the model reads more from its captions than its base does."""
LEAST_RISE, LEAST_FALL = 0.02, 0.03
"""Of the reward of words, and of the SRCC of validations, from the first half of the run to the second."""

DEAD, WORDS, SRCC = "dead_groups", "reward_words", "srcc"
BLIND, CODE, RECITED = "blind", "code", "recited"
SENTENCES = {
    DRAWN_PARSED: "{:.0%} of answers are parsed: teach the form by jobs/train_sft.py --text, or lower --temperature",
    CUT: "{:.0%} of answers are cut, and none of these is parsed: raise --max-new-tokens",
    DEAD: (
        "all answers are worth the same for {:.0%} of images, which teaches nothing: raise --temperature, or --rollouts"
    ),
    BLIND: (
        "fidelity is only {:.3f} above that of answers about other images: the model does not look; train it on texts "
        "about images first"
    ),
    CODE: (
        "the model reads its captions better than its base does, by {:.2f} of PLCC: a code that nobody else reads; "
        "lower the weight of the reward caption, or raise --kl-weight"
    ),
    RECITED: (
        "words come nearer to those of people, by {:.3f}, while scores agree less with them: lower the weight of the "
        "reward words"
    ),
}
"""Name of an alarm -> what it says of a figure."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that goes wrong, or went wrong for a while."""

    name: str
    text: str
    """What it is at the last of its steps, and what to do."""
    first: int
    """Step at which it was seen first."""
    last: int
    """Step at which it was seen last; between the two it may have been gone."""
    is_on: bool
    """Whether that is the run's last step so far."""


def alarms(records: Sequence[Mapping[str, float]]) -> list[Alarm]:
    """What goes wrong in a run, or went wrong, in the order in which it began.

    records: figures by name, in the order of their steps; they are looked at up to each step alone.
    """
    if not records:
        return []
    step_R = np.array([record["step"] for record in records])
    found = []
    for name, (value_R, is_wrong_R) in _looked_at(step_R, records).items():
        places = np.flatnonzero(is_wrong_R & (step_R >= PATIENCE))
        if len(places):
            first, last = places[0], places[-1]
            text = SENTENCES[name].format(value_R[last])
            found.append(Alarm(name, text, int(step_R[first]), int(step_R[last]), bool(last == len(records) - 1)))
    return sorted(found, key=lambda alarm: alarm.first)


def _looked_at(step_R: Floats, records: Sequence[Mapping[str, float]]) -> dict[str, tuple[Floats, Bools]]:
    """Name of an alarm -> at each record, the figure that it is about, and whether that is wrong."""
    now_R = np.arange(1, len(records) + 1)
    recent_R, middle_R = (np.searchsorted(step_R, each_R, side="right") for each_R in (step_R - PATIENCE, step_R / 2))

    def recent(name: str) -> Floats:
        """Mean of the last PATIENCE steps."""
        return _means(records, name, recent_R, now_R)

    def rise(name: str) -> Floats:
        """From the mean of the first half of the steps to that of the second."""
        return _means(records, name, middle_R, now_R) - _means(records, name, np.zeros_like(now_R), middle_R)

    parsed_R, cut_R, dead_R = map(recent, (DRAWN_PARSED, CUT, DEAD))
    sight_R = (recent(FIDELITY) - recent(BLIND_FIDELITY)) * (1 - CHANCE)
    code_R = recent(CAPTION_PLCC) - recent(f"{CAPTION_PLCC}_base")
    rise_R, climb_R = rise(WORDS), rise(SRCC)
    return {
        DRAWN_PARSED: (parsed_R, parsed_R < LEAST_PARSED),
        CUT: (cut_R, cut_R > MOST_CUT),
        DEAD: (dead_R, dead_R > MOST_DEAD),
        BLIND: (sight_R, sight_R < LEAST_SIGHT),
        CODE: (code_R, code_R > MOST_CODE),
        RECITED: (rise_R, (rise_R > LEAST_RISE) & (climb_R < -LEAST_FALL)),
    }


def _means(records: Sequence[Mapping[str, float]], name: str, begin_R: Ints, end_R: Ints) -> Floats:
    """Mean of a figure over records begin to end; NaN where none of them has it, which is neither above nor below
    anything."""
    value_R = np.array([record.get(name, np.nan) for record in records])
    total_R, count_R = (np.append(0, np.cumsum(each_R)) for each_R in (np.nan_to_num(value_R), np.isfinite(value_R)))
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray((total_R[end_R] - total_R[begin_R]) / (count_R[end_R] - count_R[begin_R]))
