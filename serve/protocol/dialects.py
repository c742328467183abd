"""What other people's trainers send -> a question of ours, and our results -> what they expect. Pure translation.

    UniRL          POST /score, GET /rewards, GET /health
    Flow-Factory   POST /compute, GET /health

A failure is a null and a reason, never a number. Pickled requests are in `flow_grpo.py`, OpenAI's clients in `chat.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from iqa_core.records import Rejection
from serve.errors import Refusal
from serve.model.results import ImageResult, Model
from serve.protocol.bodies import EncodedImage, FewFields, Name, from_base64, validated, with_prompts
from serve.protocol.json_values import LongStrings
from serve.protocol.texts import check_number
from serve.settings import MAX_TEXT

REWARD = "iqa"
"""The name under which UniRL asks for our reward; its parts are `reward` and the dimensions."""


class UniRlTurn(BaseModel):
    """A prompt and the picture made from it. Fields of other modalities may stand there, but are not scored."""

    text: str = ""
    image_b64: str | None = None


class UniRlRequest(BaseModel):
    """One image to score: that of the last turn."""

    history: list[UniRlTurn] = Field(min_length=1, fail_fast=True)
    required_rewards: list[Name] = Field(min_length=1, fail_fast=True)
    metadata: dict[str, Any] | None = None


class UniRlBody(FewFields):
    """What UniRL asks."""

    requests: list[UniRlRequest] = Field(min_length=1, fail_fast=True)


class UniRlAnswer(TypedDict):
    """What UniRL is answered: an entry per request in `results` and in `errors`, one of them empty."""

    results: list[dict[str, dict[str, float]]]
    errors: list[dict[str, str]]
    fingerprint: str


def unirl_images(body: bytes, max_images: int) -> list[EncodedImage]:
    """The picture of each request's last turn, and the text of that turn as its prompt.

    Raises Refusal (422) where there is none, or another reward is asked for.
    """
    asked, strings = validated(UniRlBody, body, "requests", max_images)
    images, prompts = list[bytes](), list[str]()
    for place, request in enumerate(asked.requests):
        unknown = sorted(set(request.required_rewards) - {REWARD})
        if unknown:
            raise Refusal(422, f"requests.{place}: reward {unknown[0][:64]!r} is not served here; {REWARD} is")
        turn = request.history[-1]
        if turn.image_b64 is None:
            raise Refusal(422, f"requests.{place}: the last turn has no image_b64")
        data = from_base64(strings.pieces(turn.image_b64), f"requests.{place}: image_b64")
        prompts.append(_prompt(turn.text, f"requests.{place}: text", strings))
        images.append(data)
    return with_prompts(images, prompts)


def unirl_answer(model: Model, results: Sequence[ImageResult]) -> UniRlAnswer:
    """Our results as UniRL expects them."""
    answer: UniRlAnswer = {"results": [], "errors": [], "fingerprint": model.fingerprint}
    for one in results:
        if isinstance(one, Rejection):
            answer["results"].append({})
            answer["errors"].append({REWARD: f"{one.reason}: {one.detail}"})
            continue
        scores = dict(zip(model.spec.rubric.names, one.assessment.scores_K.tolist(), strict=True))
        answer["results"].append({REWARD: {"reward": one.reward, **scores}})
        answer["errors"].append({})
    return answer


class FlowFactoryBody(FewFields):
    """What Flow-Factory asks. Its client always names all modalities; those that are not pictures must be null."""

    prompt: list[str] = Field(fail_fast=True)
    image: list[str] = Field(min_length=1, fail_fast=True)
    video: None = None
    condition_images: list[Any] | None = None
    condition_videos: None = None
    kwargs: dict[str, Any] | None = None


class FlowFactoryAnswer(TypedDict):
    """What Flow-Factory is answered: a reward per image, null where `reasons` says why there is none."""

    rewards: list[float | None]
    reasons: list[str | None]
    fingerprint: str


def flow_factory_images(body: bytes, max_images: int) -> list[EncodedImage]:
    """The pictures, one per prompt. Raises Refusal (422) where they are more or fewer."""
    asked, strings = validated(FlowFactoryBody, body, "image", max_images)
    check_number(asked.prompt, len(asked.image))
    prompts = [_prompt(text, f"prompt.{place}", strings) for place, text in enumerate(asked.prompt)]
    images = [from_base64(strings.pieces(text), f"image.{place}") for place, text in enumerate(asked.image)]
    return with_prompts(images, prompts)


def flow_factory_answer(model: Model, results: Sequence[ImageResult]) -> FlowFactoryAnswer:
    """Our results as Flow-Factory expects them."""
    return {
        "rewards": [None if isinstance(one, Rejection) else one.reward for one in results],
        "reasons": [str(one.reason) if isinstance(one, Rejection) else None for one in results],
        "fingerprint": model.fingerprint,
    }


def _prompt(text: str, field: str, strings: LongStrings) -> str:
    """The prompt, or its beginning where it is longer than any that is asked about. Raises Refusal (422)."""
    try:
        return strings.beginning(text, MAX_TEXT)
    except ValueError as error:
        raise Refusal(422, f"{field}: {error}") from None
