"""A rubric's question -> the prompt text, up to where the answer comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from jinja2 import TemplateError

from iqa_core.errors import CallerError
from iqa_core.questions import Question
from iqa_core.rubrics import WrittenRubric


class ChatTemplate(Protocol):
    """The part of a transformers processor that prompts need."""

    @property
    def chat_template(self) -> Any:
        """The template's text, or texts by name; None where the checkpoint has none."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, Any]], **settings: Any) -> Any:
        """The conversation in the model's markup.

        Raises ValueError when there is no template, TemplateError where a template cannot say it, or refuses to.
        """
        ...


def build_prompt(processor: ChatTemplate, question: Question, system: str | None) -> str:
    """Chat markup with the image, a newline or what the rubric has there, the query, and the beginning of the answer.

    system: the system prompt; None leaves it to the checkpoint's chat template.
    The image comes first, so that the prompts of all questions share it as a prefix; the text has the model's
    placeholder for it, once. `answer_joint` and an answer complete the text.
    Raises CallerError when the checkpoint has no chat template.
    """
    return render_prompt(processor, [None, f"{question.between}{question.query}"], question.answer_start, system)


def answer_joint(processor: ChatTemplate, question: Question, system: str | None) -> str:
    """What stands between a prompt and the answer: a space, or what the template puts before an answer that is whole.

    Raises CallerError when the checkpoint has no chat template.
    """
    return " " if question.answer_start else _rendered(processor, [None, "?"], "good", system)[1]


def written_prompt(processor: ChatTemplate, rubric: WrittenRubric, texts: Mapping[str, str]) -> str:
    """Chat markup with image and question in the rubric's order, up to where the model writes. texts: slot -> text.

    Raises CallerError when the checkpoint has no chat template.
    """
    parts = {"image": {"type": "image"}, "text": _text(rubric.asked(texts))}
    messages = _turns(_message("user", *(parts[part] for part in rubric.parts)), rubric.system)
    return _render(processor, messages, add_generation_prompt=True, template=rubric.template)


def render_prompt(
    processor: ChatTemplate,
    user: Sequence[str | None],
    answer: str,
    system: str | None,
    template: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Chat markup with the user's turn, in whose parts None is the image, and the beginning of the answer, if any.

    template: further arguments of the chat template. Raises CallerError when the checkpoint has no chat template.
    """
    asked, gap = _rendered(processor, user, answer or "good", system, template)
    return f"{asked}{gap}{answer}" if answer else asked


def _rendered(
    processor: ChatTemplate,
    user: Sequence[str | None],
    answer: str,
    system: str | None,
    template: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, str]:
    """The question's markup, and white space that the template puts between it and an answer."""
    turn = _message("user", *({"type": "image"} if part is None else _text(part) for part in user))
    messages = _turns(turn, system)
    asked = _render(processor, messages, add_generation_prompt=True, template=template)
    whole = [*messages, _message("assistant", _text(answer))]
    answered = _render(processor, whole, add_generation_prompt=False, template=template)
    return asked, _gap(asked, answered, answer)


def turn_end(processor: ChatTemplate, system: str | None, template: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Text that the chat template puts behind an answer, stripped: the token that ends the turn, if there is one.

    template: further arguments of the chat template. Raises CallerError when the checkpoint has no chat template.
    """
    answer = "good"
    messages = [*_turns(_message("user", {"type": "image"}, _text("?")), system), _message("assistant", _text(answer))]
    rendered = _render(processor, messages, add_generation_prompt=False, template=template)
    return rendered.rpartition(answer)[2].strip()


def _gap(asked: str, answered: str, answer: str) -> str:
    """White space that a template puts before an answer, but not behind its generation prompt, such as `Assistant:`."""
    end = answered.rfind(answer)
    gap = answered[len(asked) : end] if answered.startswith(asked) and end >= 0 else ""
    return gap if gap.isspace() else ""


def _turns(user: dict[str, Any], system: str | None) -> list[dict[str, Any]]:
    return [user] if system is None else [_message("system", _text(system)), user]


def _render(
    processor: ChatTemplate,
    messages: list[dict[str, Any]],
    *,
    add_generation_prompt: bool,
    template: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """The conversation's markup. template: further arguments of the chat template; thinking is off without them."""
    thinking = {"enable_thinking": False} if "enable_thinking" in str(processor.chat_template) else {}
    try:
        text = processor.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False, **{**thinking, **template}
        )
    except (ValueError, TemplateError) as error:
        raise CallerError(f"the checkpoint's chat template cannot be applied: {error}") from None
    return str(text)


def _message(role: str, *content: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def adds_special_tokens(tokenizer: Any, prompt: str) -> bool:
    """Whether the tokenizer is to add its special tokens.

    It is not if the prompt begins with its bos token already, or if it would add one behind the prompt.
    """
    if tokenizer.bos_token and prompt.startswith(tokenizer.bos_token):
        return False
    plain = tokenizer.encode(prompt, add_special_tokens=False)
    return bool(tokenizer.encode(prompt, add_special_tokens=True)[-len(plain) :] == plain)


def with_visual_tokens(ids: Sequence[int], image_id: int, count: int) -> list[int]:
    """Token ids with so many visual tokens in place of the image's one. Raises CallerError unless there is just one."""
    if ids.count(image_id) != 1:
        raise CallerError(f"the chat template puts {ids.count(image_id)} images into a prompt; it must be one")
    at = ids.index(image_id)
    return [*ids[:at], *[image_id] * count, *ids[at + 1 :]]
