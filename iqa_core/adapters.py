"""A reward client -> what trainers of generators call: TRL, ms-swift, verl, and pipelines in the manner of diffusers.

None of these libraries is imported here: each asks for a callable of a certain shape, and that is all there is. An
image without a score gives None where the library knows it (TRL and ms-swift, whose groups leave it out); the others
know numbers only, so there an image that cannot be scored is an error, unless the caller names a number for it.

Prompts go along to the slot `prompt` of the endpoint's rubric; one without it leaves them aside. The prompt of a
conversation is what its user said last. `rubric=` is the id of one where an endpoint has several; without it the first
is asked.
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


def trl_reward(
    client: RewardClient, render: Render, *, dimension: str | None = None, rubric: str | None = None
) -> Callable[..., Any]:
    """A reward function for `GRPOTrainer(reward_funcs=...)`.

    dimension: its score instead of the reward, as `Score.rating` gives it.
    A completion without image or score gets None.
    """

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        return _rewards(client, render(prompts, completions, **columns), prompts, dimension, rubric)

    reward.__name__ = "_".join(filter(None, ("iqa", rubric, dimension or "reward")))  # under which TRL logs it
    return reward


def swift_orm(
    client: RewardClient,
    render: Render,
    *,
    dimension: str | None = None,
    rejected: float | None = None,
    rubric: str | None = None,
) -> type:
    """A class for ms-swift (4.6): `orms["iqa"] = swift_orm(client, render)`, then `--reward_funcs iqa`.

    dimension: its score instead of the reward, as `Score.rating` gives it.
    rejected: what a completion without image or score counts as; None leaves it out.
    """

    class ImageQuality:
        def __init__(self, *args: Any, **settings: Any) -> None:
            pass

        def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
            prompts = columns.pop("prompts", None) or columns.get("messages") or [None] * len(completions)
            found = _rewards(client, render(prompts, completions, **columns), prompts, dimension, rubric)
            return [rejected if reward is None else reward for reward in found]

    return ImageQuality


def verl_compute_score(
    client: RewardClient, render: Render | None = None, *, rejected: float | None = None, rubric: str | None = None
) -> Callable[..., dict[str, float]]:
    """A `compute_score` for verl's `custom_reward_function`: the reward, and for the log each dimension's score.

    render: makes the image of a text, for generators whose solution is one (`solution_str`, which is all that verl 0.9
    knows). A solution that is an image (`solution_image`) needs none.
    The prompt is `extra_info["prompt"]`, else the `ground_truth`, where that is a text, as it is in verl-omni.
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
        known = extra_info.get("prompt") if isinstance(extra_info, dict) else None
        prompt = prompt_text(known) or prompt_text(ground_truth)
        [score] = client.assess([image], prompt, rubric=rubric) if image is not None else [None]
        reward = _number(score.reward if score else None, rejected)
        if not dimensions:  # verl wants the same keys of every solution
            dimensions.extend(_dimensions(client, rubric))
        scores = score.scores if score else {}
        return {"score": reward, **{name: scores.get(name, math.nan) for name in dimensions}}

    return compute_score


@dataclass(frozen=True, slots=True)
class ImageReward:
    """`reward(images, prompts) -> rewards`, as trainers of diffusion models ask for."""

    client: RewardClient
    rejected: float | None = None
    """What an image without a score counts as; None stops the run."""
    rubric: str | None = None

    def __call__(self, images: Sequence[ImageLike], prompts: str | Sequence[str] | None = None, *_: Any) -> list[float]:
        """One reward per image, 1 to 5. prompts: one for all, or one per image; of another number, none is sent."""
        given = [prompts] * len(images) if isinstance(prompts, str) else () if prompts is None else prompts
        scores = self.client.assess(images, _sent(given, len(images)), rubric=self.rubric)
        return [_number(score.reward, self.rejected) for score in scores]


def _dimensions(client: RewardClient, rubric: str | None) -> list[str]:
    """Names of a rubric's dimensions. Raises RunError where the endpoint does not have it."""
    for model in client.models():
        if rubric in (None, model.get("rubric")):
            return [one["name"] for one in model["dimensions"]]
    raise RunError(f"the endpoint has no rubric {rubric}; /v1/models says which it has")


def prompt_text(prompt: Any) -> str | None:
    """The text of a prompt: itself, or what the user said last in a conversation; None where there is none.

    Parts of a message that are no text, such as images, are left out.
    """
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list | tuple):
        return None
    said = [one.get("content") for one in prompt if isinstance(one, dict) and one.get("role") == "user"]
    last = said[-1] if said else None
    if isinstance(last, list | tuple):
        texts = [part.get("text") for part in last if isinstance(part, dict)]
        last = " ".join(text for text in texts if isinstance(text, str))
    return last if isinstance(last, str) else None


def _rewards(
    client: RewardClient,
    images: Sequence[ImageLike | None],
    prompts: Sequence[Any],
    dimension: str | None,
    rubric: str | None,
) -> list[float | None]:
    there = {place: image for place, image in enumerate(images) if image is not None}
    given = _sent(prompts, len(images))
    scores = client.assess(list(there.values()), given and [given[place] for place in there], rubric=rubric)
    found = dict(zip(there, scores, strict=True))
    return [_value(found[place], dimension) if place in found else None for place in range(len(images))]


def _sent(prompts: Sequence[Any], num_images: int) -> list[str | None] | None:
    """The texts of prompts, where there is one prompt per image and a text among them."""
    texts = list(map(prompt_text, prompts))
    return texts if len(texts) == num_images and any(texts) else None


def _value(score: Score, dimension: str | None) -> float | None:
    if dimension is None or score.reward is None:
        return score.reward
    return score.rating(dimension)


def _number(found: float | None, rejected: float | None) -> float:
    if found is None and rejected is None:
        raise RunError("an image has no score, and this trainer takes numbers only; give `rejected=` one to go on")
    return float(found if found is not None else rejected)  # type: ignore[arg-type]
