"""What flow_grpo and verl-omni post, pickled -> pictures and prompts, and our results -> the pickle that they expect.

    flow_grpo      {"images": [JPEG bytes]}, some of its rewards {"images", "prompts"}     reads "outputs"
    verl-omni      {"images": [JPEG bytes], "prompts": [text], "metadata": {}}             reads "scores"

Both post to whatever URL they are given, without a token. A picture without a reward is None in the answer: of all that
could stand there it alone is no number to either, `weight * None` and `float(None)` end the step. NaN would go on into
the gradients, and a reported "error" becomes 0.0 in older versions of verl-omni.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, Strict, ValidationError
from typing_extensions import TypedDict

from iqa_core.records import Rejection
from serve.errors import Refusal
from serve.model.results import ImageResult, Model
from serve.protocol.bodies import EncodedImage, FewFields, check_count, invalid, with_prompts
from serve.protocol.pickles import values_of_pickle
from serve.settings import MAX_TEXT

PICKLE = "application/octet-stream"
ANSWER_PROTOCOL = 4
"""Of Python 3.4 and later."""


class FlowGrpoBody(FewFields):
    """What is asked. GenEval's fields (`meta_datas`, `only_strict`) ask for another reward, and are refused."""

    images: list[Annotated[bytes, Strict()]] = Field(min_length=1, fail_fast=True)
    prompts: list[Annotated[str, Strict()] | None] | None = Field(None, fail_fast=True)
    metadata: Any = None
    """Not looked at."""


class FlowGrpoAnswer(TypedDict):
    """What is answered: a reward per picture under both names, None where `reasons` says why there is none."""

    outputs: list[float | None]
    scores: list[float | None]
    reasons: list[str | None]
    fingerprint: str


def flow_grpo_images(body: bytes, max_images: int) -> list[EncodedImage]:
    """The pictures, each with its prompt where there are prompts.

    Raises Refusal (422) on what is no pickle of plain values, or another's.
    """
    values = values_of_pickle(body, max_images)
    if not isinstance(values, dict):
        raise Refusal(422, "body: no dict with `images`")
    images = values.get("images")
    check_count(len(images) if isinstance(images, (list, tuple)) else 0, max_images)
    try:
        asked = FlowGrpoBody.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None
    prompts = asked.prompts and [prompt and prompt[:MAX_TEXT] for prompt in asked.prompts]
    return with_prompts(asked.images, prompts)


def flow_grpo_answer(model: Model, results: Sequence[ImageResult]) -> bytes:
    """A pickled FlowGrpoAnswer: of a dict, lists, texts and floats, so that it names nothing to import."""
    rewards = [None if isinstance(one, Rejection) else float(one.reward) for one in results]
    answer: FlowGrpoAnswer = {
        "outputs": rewards,
        "scores": list(rewards),  # the same list in two places would be a reference
        "reasons": [str(one.reason) if isinstance(one, Rejection) else None for one in results],
        "fingerprint": model.fingerprint,
    }
    return pickle.dumps(answer, protocol=ANSWER_PROTOCOL)
