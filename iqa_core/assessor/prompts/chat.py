"""A rubric's dimension -> the text that a model is shown, up to where the level word comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from iqa_core.errors import CallerError
from iqa_core.rubrics import Rubric, RubricDimension


class ChatTemplate(Protocol):
    """What prompts need of a transformers processor."""

    @property
    def chat_template(self) -> Any: ...

    def apply_chat_template(self, conversation: list[dict[str, Any]], **settings: Any) -> Any: ...


def build_prompt(processor: ChatTemplate, rubric: Rubric, dimension: RubricDimension, system: str | None) -> str:
    """Chat markup with the image, a newline, the query, and the beginning of the answer.

    system: the system prompt; None leaves it to the checkpoint's chat template.
    The image stands first, so that all dimensions of one image share it as a prefix; the text has the model's
    placeholder for it, once. A space and a level word would complete the text.
    Raises CallerError when the checkpoint has no chat template.
    """
    return render_prompt(processor, [None, f"\n{dimension.query}"], rubric.answer_start(dimension), system)


def render_prompt(processor: ChatTemplate, user: Sequence[str | None], answer: str, system: str | None) -> str:
    """Chat markup with the user's turn, where None is the image, and the beginning of the answer.

    Raises CallerError when the checkpoint has no chat template.
    """
    messages = [_message("user", *({"type": "image"} if part is None else _text(part) for part in user))]
    if system is not None:
        messages.insert(0, _message("system", _text(system)))
    asked = _render(processor, messages, add_generation_prompt=True)
    answered = _render(processor, [*messages, _message("assistant", _text(answer))], add_generation_prompt=False)
    return asked + _gap(asked, answered, answer) + answer


def turn_end(processor: ChatTemplate, system: str | None) -> str:
    """What the chat template puts behind an answer, without white space: the token that ends the turn, if it has one.

    Raises CallerError when the checkpoint has no chat template.
    """
    answer = "good"
    messages = [_message("user", {"type": "image"}, _text("?")), _message("assistant", _text(answer))]
    if system is not None:
        messages.insert(0, _message("system", _text(system)))
    return _render(processor, messages, add_generation_prompt=False).rpartition(answer)[2].strip()


def _gap(asked: str, answered: str, answer: str) -> str:
    """White space that a template puts before an answer but not after its generation prompt (`Assistant:` has one)."""
    end = answered.rfind(answer)
    gap = answered[len(asked) : end] if answered.startswith(asked) and end >= 0 else ""
    return gap if gap.isspace() else ""


def _render(processor: ChatTemplate, messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    thinking = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
    try:
        text = processor.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False, **thinking
        )
    except ValueError as error:
        raise CallerError(f"the checkpoint's chat template cannot be applied: {error}") from None
    return str(text)


def _message(role: str, *content: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def adds_special_tokens(tokenizer: Any, prompt: str) -> bool:
    """Whether the tokenizer is to add its own: not if the template began with it already, nor if one came last."""
    if tokenizer.bos_token and prompt.startswith(tokenizer.bos_token):
        return False
    plain = tokenizer.encode(prompt, add_special_tokens=False)
    return bool(tokenizer.encode(prompt, add_special_tokens=True)[-len(plain) :] == plain)


def with_visual_tokens(ids: Sequence[int], image_id: int, count: int) -> list[int]:
    """Token ids with so many visual tokens in the image's place. Raises CallerError unless there is one such place."""
    if ids.count(image_id) != 1:
        raise CallerError(f"the chat template puts {ids.count(image_id)} images into a prompt; it must be one")
    at = ids.index(image_id)
    return [*ids[:at], *[image_id] * count, *ids[at + 1 :]]
