"""What all answers of a step say -> what each is worth, its advantage, and the figures that a run shows.

Shape suffixes: N images, K rollouts, A attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from iqa_core.agreement import pearson
from iqa_core.training.ranking.rollouts import Said
from iqa_core.training.ranking.sampler import Ints
from iqa_core.training.ranking.task import RankingTask
from iqa_core.training.rewards.arrays import Floats, moments
from iqa_core.training.rewards.batch import Batch, rewards_of
from iqa_core.training.rewards.composition import Composition, composed, filled
from iqa_core.training.rewards.fidelity import above_chance
from iqa_core.training.validation import RANK, written_figures

Mean = tuple[float, float]
"""Sum and number of what a figure is the mean of."""

FIDELITY = "fidelity_normalised"
"""Name of the fidelity of answers that were parsed: 0 where all predictions are equal, 1 where the order is right. That
is of hard preferences between opinions that differ."""
BLIND_FIDELITY = "fidelity_blind"
"""Name of the same of answers that are about another image of the data set: what a model has that does not look."""
CAPTION_READ, CAPTION_PLCC = "caption_read", "caption_plcc"
"""Names of the share of drawn answers from whose caption alone a rating is read, and of its correlation with opinions;
with `_base` behind it, of what the base reads there."""
DRAWN_PARSED = "parsed_drawn"
"""Name of the share of drawn answers that were parsed."""
CUT = "cut"
"""Name of the share of drawn answers that reached the limit."""


@dataclass(frozen=True)
class Worth:
    """Advantages of a step's answers, and its figures."""

    advantage_NK: Floats
    figures: Mapping[str, Mean]


def worth_of(task: RankingTask, images: Ints, said: Said) -> Worth:
    """Rewards and advantages of all workers' answers: the same on each, since each computes them from the same numbers.

    images: indices of the step's images in the task.
    """
    settings, people = task.ranking.rewards, task.people
    batch = Batch(
        said.answers,
        people.y_NA[images],
        people.d_N[images],
        people.s_NA[images],
        judged_NKA=None if said.judged_NK is None else said.judged_NK[:, :, None],
        references_N=None if task.references is None else [task.references[i] for i in images],
        scales=task.scales,
    )
    rewards = rewards_of(batch, settings, task.rubric.names)
    made = composed(rewards, settings.composition)
    figures = {"reward": _mean(made.reward_NK)} | {f"reward_{name}": _mean(filled(r)) for name, r in rewards.items()}
    if "fidelity" in rewards:
        figures[FIDELITY] = _normalised(rewards["fidelity"])
        alone = settings.model_copy(update={"composition": Composition(weights={"fidelity": 1})})
        others = replace(
            batch, answers=replace(said.answers, q_NKA=said.answers.q_NKA[_next_of_same(people.d_N[images])])
        )
        figures[BLIND_FIDELITY] = _normalised(rewards_of(others, alone, task.rubric.names)["fidelity"])
    for end, judged_NK in (("", said.judged_NK), ("_base", said.judged_by_base_NK)):
        if judged_NK is not None:
            figures[f"{CAPTION_READ}{end}"] = _mean(np.isfinite(judged_NK).astype(np.float64))
            figures[f"{CAPTION_PLCC}{end}"] = _agreement(judged_NK, people.y_NA[images][:, :1])
    figures |= _of_answers(said)
    figures["reward_std"] = _mean(made.std_N)
    figures["dead_groups"] = _mean((~(made.std_N > 0)).astype(np.float64))  # also without a reward
    return Worth(made.advantage_NK, figures)


def _agreement(judged_NK: Floats, y_N1: Floats) -> Mean:
    """PLCC of ratings with opinions, over all answers with both; none where it is not defined."""
    y_NK = np.broadcast_to(y_N1, judged_NK.shape)
    is_known_NK = np.isfinite(judged_NK) & np.isfinite(y_NK)
    value = pearson(judged_NK[is_known_NK], y_NK[is_known_NK])
    return (value, 1.0) if np.isfinite(value) else (0.0, 0.0)


def _normalised(fidelity_NK: Floats) -> Mean:
    """Fidelity of answers that were parsed, so that it is no figure of form."""
    total, count = _mean(fidelity_NK)
    return (above_chance(total / count) * count if count else 0.0), count


def _next_of_same(d_N: Ints) -> Ints:
    """For each image another one of its data set, each once; itself where it is alone."""
    order = np.arange(len(d_N))
    for dataset in np.unique(d_N):
        own = np.flatnonzero(d_N == dataset)
        order[own] = np.roll(own, 1)
    return order


def single_figures(task: RankingTask, said: Said) -> dict[str, float]:
    """Figures of the validation's images by single answers, as the mean over their numbers: `single_srcc_quality`.

    A single answer is what scoring with one drawn sample sees; a mean over samples agrees better with people.
    """
    names, q_NKA = task.rubric.names, said.answers.q_NKA
    of_answer: dict[str, list[float]] = {}
    for q_NA in q_NKA.swapaxes(0, 1):
        scores = [dict(zip(names, q_A.tolist(), strict=True)) if np.isfinite(q_A).all() else None for q_A in q_NA]
        for name, value in written_figures(task.rated, scores).items():
            if name != RANK:
                of_answer.setdefault(f"single_{name}", []).append(value)
    return {name: float(np.mean(values)) for name, values in of_answer.items()}


def _of_answers(said: Said) -> dict[str, Mean]:
    """Figures of the answers themselves."""
    num_images, num_rollouts, num_attributes = said.answers.q_NKA.shape
    answers = num_images * num_rollouts
    stds = [np.sqrt(moments(said.answers.q_NKA[:, :, a])[1]) for a in range(num_attributes)]
    return {
        DRAWN_PARSED: _mean(said.answers.format_NK),
        CUT: (sum(said.cut_N), answers),
        "answer_tokens": (sum(said.tokens_N), answers),
        "distinct_texts": (sum(said.distinct_N), num_images),
        "spread": _mean(np.stack(stds)),
    }


def _mean(values: NDArray[np.float64]) -> Mean:
    """Sum and number of those that are there."""
    known = values[np.isfinite(values)]
    return float(known.sum()), float(known.size)
