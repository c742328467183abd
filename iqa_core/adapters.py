"""A reward client -> what trainers of generators call: TRL, ms-swift, verl, and pipelines in the manner of diffusers.

None of these libraries is imported here: each asks for a callable of a certain shape, and that is all there is. An
image without a score gives None where the library knows it (TRL and ms-swift, whose groups leave it out); the others
know numbers only, so there an image that cannot be scored is an error, unless the caller names a number for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from iqa_core.client import ImageLike, RewardClient, Score
from iqa_core.errors import RunError

Render = Callable[..., Sequence[ImageLike | None]]
"""(prompts, completions, **columns) -> one image per completion; None where a completion gives none."""


def trl_reward(client: RewardClient, render: Render, *, dimension: str | None = None) -> Callable[..., Any]:
    """A reward function for `GRPOTrainer(reward_funcs=...)`.

    dimension: its score instead of the reward. A completion without image or score gets None.
    """

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        return _rewards(client, render(prompts, completions, **columns), dimension)

    reward.__name__ = f"iqa_{dimension or 'reward'}"  # the name under which TRL logs it
    return reward


def swift_orm(
    client: RewardClient, render: Render, *, dimension: str | None = None, rejected: float | None = None
) -> type:
    """A class for ms-swift (4.6): `orms["iqa"] = swift_orm(client, render)`, then `--reward_funcs iqa`.

    dimension: its score instead of the reward.
    rejected: what a completion without image or score counts as; None leaves it out.
    """

    class ImageQuality:
        def __init__(self, *args: Any, **settings: Any) -> None:
            pass

        def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
            prompts = columns.pop("prompts", None) or columns.get("messages") or [None] * len(completions)
            found = _rewards(client, render(prompts, completions, **columns), dimension)
            return [rejected if reward is None else reward for reward in found]

    return ImageQuality


def verl_compute_score(
    client: RewardClient, render: Render | None = None, *, rejected: float | None = None
) -> Callable[..., dict[str, float]]:
    """A `compute_score` for verl's `custom_reward_function`: the reward, and for the log each dimension's score.

    render: makes the image of a text, for generators whose solution is one (`solution_str`, which is all that verl 0.9
    knows). A solution that is an image (`solution_image`) needs none.
    rejected: what a solution without image or score counts as (its dimensions are NaN); None stops the run.
    The function that is made raises RunError to stop the run, and on a text where there is no `render`.
    """
    dimensions: list[str] = []

    def compute_score(
        data_source: str,
        solution_str: str | None = None,
        ground_truth: Any = None,
        extra_info: Any = None,
        solution_image: ImageLike | None = None,
        **others: Any,
    ) -> dict[str, float]:
        image = solution_image
        if image is None:
            if render is None:
                raise RunError("verl handed over a text; give verl_compute_score a `render` that makes its image")
            columns = {"data_source": [data_source], "ground_truth": [ground_truth], "extra_info": [extra_info]}
            [image] = render([None], [solution_str], **columns)
        [score] = client.assess([image]) if image is not None else [None]
        reward = _number(score.reward if score else None, rejected)
        if not dimensions:  # verl wants the same keys of every solution
            dimensions.extend(one["name"] for one in client.models()[0]["dimensions"])
        scores = score.scores if score else {}
        return {"score": reward, **{name: scores.get(name, math.nan) for name in dimensions}}

    return compute_score


@dataclass(frozen=True, slots=True)
class ImageReward:
    """`reward(images, prompts) -> rewards`, as trainers of diffusion models ask for."""

    client: RewardClient
    rejected: float | None = None
    """What an image without a score counts as; None stops the run."""

    def __call__(self, images: Sequence[ImageLike], prompts: Sequence[str] | None = None, *_: Any) -> list[float]:
        """One reward per image, 1 to 5; the prompts make no difference."""
        return [_number(score.reward, self.rejected) for score in self.client.assess(images)]


def _rewards(
    client: RewardClient, images: Sequence[ImageLike | None], dimension: str | None = None
) -> list[float | None]:
    scores = iter(client.assess([image for image in images if image is not None]))
    return [None if image is None else _value(next(scores), dimension) for image in images]


def _value(score: Score, dimension: str | None) -> float | None:
    if dimension is None or score.reward is None:
        return score.reward
    return score.scores[dimension]


def _number(found: float | None, rejected: float | None) -> float:
    if found is None and rejected is None:
        raise RunError("an image has no score, and this trainer takes numbers only; give `rejected=` one to go on")
    return float(found if found is not None else rejected)  # type: ignore[arg-type]
