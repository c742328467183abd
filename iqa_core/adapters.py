"""A reward client -> what trainers of generators call: TRL, ms-swift, verl, and pipelines in the manner of diffusers.

None of these libraries is imported here: each asks for a callable of a certain shape, and that is all there is. An
image without a score gives None where the library knows it (TRL, and its groups leave it out); the others know numbers
only, so there an image that cannot be scored is an error, unless the caller names a number for it.
"""

from __future__ import annotations

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


def swift_orm(client: RewardClient, render: Render, *, rejected: float | None = None) -> type:
    """A class for ms-swift: `orms["iqa"] = swift_orm(client, render)`, then `--reward_funcs iqa`.

    rejected: what an image without a score counts as; None stops the run.
    """

    class ImageQuality:
        def __init__(self, *args: Any, **settings: Any) -> None:
            pass

        def __call__(self, completions: list[Any], **columns: Any) -> list[float]:
            prompts = columns.pop("prompts", [None] * len(completions))
            return [_number(found, rejected) for found in _rewards(client, render(prompts, completions, **columns))]

    return ImageQuality


def verl_compute_score(client: RewardClient, *, rejected: float | None = None) -> Callable[..., dict[str, float]]:
    """A `compute_score` for verl's `custom_reward_function`, for generators whose solution is an image.

    rejected: what an image without a score counts as; None stops the run.
    """

    def compute_score(
        data_source: str,
        solution_image: ImageLike,
        ground_truth: Any = None,
        extra_info: Any = None,
        **others: Any,
    ) -> dict[str, float]:
        [score] = client.assess([solution_image])
        return {"score": _number(score.reward, rejected), **score.scores}

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
