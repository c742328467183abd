"""What a request says of its images beside the pictures -> the texts of each image, by slot of the rubric.

Every rubric takes prompts, and one without the slot leaves them aside: trainers send theirs whatever the reward is.
"""

from __future__ import annotations

from collections.abc import Sequence

from iqa_core.rubrics import AnyRubric
from serve.errors import Refusal
from serve.model.asking import Texts

PROMPT = "prompt"
"""The slot of a request's prompts."""


def texts_of_prompts(prompts: str | Sequence[str | None] | None, num_images: int) -> list[Texts]:
    """The texts of each image. prompts: one for all of them, one for each, or none.

    Raises Refusal (422) where they are more or fewer than the images.
    """
    if prompts is None:
        return [{}] * num_images
    if isinstance(prompts, str):
        return [{PROMPT: prompts}] * num_images
    check_number(prompts, num_images)
    return [{PROMPT: prompt} for prompt in prompts]


def check_number(prompts: Sequence[str | None], num_images: int) -> None:
    """Raise Refusal (422) where there is not one prompt per image."""
    if len(prompts) != num_images:
        raise Refusal(422, f"{len(prompts)} prompts for {num_images} images")


def check_texts(texts: Sequence[Texts], rubric: AnyRubric) -> None:
    """Check that a request has what a rubric asks about, though not for every image.

    texts: of each image. Raises Refusal (422) where a slot has nothing at all, or a text has no slot.
    """
    given = {slot for own in texts for slot in own}
    if unknown := sorted(given - {PROMPT, *rubric.slots}):
        served = ", ".join(rubric.slots) or "none"
        raise Refusal(422, f"texts: {unknown[0][:64]!r} is no slot of rubric {rubric.id}, which has {served}")
    for slot in rubric.slots:
        if slot not in given:
            way_out = (
                "prompt, or prompts with one per image" if slot == PROMPT else f'"texts": {{"{slot}": …}} per image'
            )
            raise Refusal(422, f"{slot}: rubric {rubric.id} asks about it; send {way_out}")
