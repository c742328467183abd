"""Figures of a run so far -> what goes wrong in it, and what to do, in a sentence each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from iqa_core.training.ranking.worth import BLIND_FIDELITY, CAPTION_PLCC, CUT, DRAWN_PARSED, FIDELITY
from iqa_core.training.rewards.fidelity import CHANCE

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


def alarms(records: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, str]]:
    """Name and sentence of what is wrong at the last of the records, which are in the order of their steps."""
    last = records[-1]["step"] if records else 0
    if last < PATIENCE:
        return
    recent = [record for record in records if record["step"] > last - PATIENCE]
    sight = (_mean(recent, FIDELITY) - _mean(recent, BLIND_FIDELITY)) * (1 - CHANCE)
    parsed, cut, dead = (_mean(recent, name) for name in (DRAWN_PARSED, CUT, DEAD))
    code = _mean(recent, CAPTION_PLCC) - _mean(recent, f"{CAPTION_PLCC}_base")
    rise, climb = (_rise(records, name) for name in (WORDS, SRCC))
    found = {
        DRAWN_PARSED: (parsed, parsed < LEAST_PARSED),
        CUT: (cut, cut > MOST_CUT),
        DEAD: (dead, dead > MOST_DEAD),
        BLIND: (sight, sight < LEAST_SIGHT),
        CODE: (code, code > MOST_CODE),
        RECITED: (rise, rise > LEAST_RISE and climb < -LEAST_FALL),
    }
    yield from ((name, SENTENCES[name].format(value)) for name, (value, is_wrong) in found.items() if is_wrong)


def _rise(records: Sequence[Mapping[str, float]], name: str) -> float:
    """From the mean of the first half of the steps to that of the second."""
    middle = records[-1]["step"] / 2
    first, second = ([one for one in records if (one["step"] > middle) == late] for late in (False, True))
    return _mean(second, name) - _mean(first, name)


def _mean(records: Sequence[Mapping[str, float]], name: str) -> float:
    """NaN where no record has it, which is neither above nor below anything."""
    found = [record[name] for record in records if name in record]
    return sum(found) / len(found) if found else math.nan
