"""A question and a checkpoint's processor -> its prompt, and the token ids of the level words that are read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from iqa_core.assessor.prompts.chat import answer_joint, build_prompt
from iqa_core.errors import CallerError
from iqa_core.questions import Question


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that level words need."""

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        """Token ids of a text."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as a checkpoint is asked it."""

    question: Question
    text: str
    """Chat markup up to where an answer, behind `joint`, would follow."""
    joint: str
    answer_ids: tuple[int, ...]
    """First token of each answer, worst to best; all are different."""


def prompt_of(processor: Any, question: Question, system: str | None) -> Prompt:
    """The prompt of a question by a transformers processor. system: as `build_prompt` takes it.

    Raises CallerError when the checkpoint has no chat template, or its tokenizer cannot tell the answers apart.
    """
    text, joint = build_prompt(processor, question, system), answer_joint(processor, question, system)
    return Prompt(
        question, text, joint, tuple(level_token_ids(processor.tokenizer, text, question.scale.answers, joint))
    )


def level_token_ids(tokenizer: Tokenizer, text_before: str, levels: Sequence[str], joint: str = " ") -> list[int]:
    """The first token id of each answer behind `text_before` and `joint`: distinct ids, in order.

    Raises CallerError, which names the words, when one changes the tokens before it, or when two begin with the same
    token: they would have one probability.
    """
    before = list(tokenizer.encode(text_before, add_special_tokens=False))
    ids: dict[str, int] = {}
    for word in levels:
        tokens = list(tokenizer.encode(f"{text_before}{joint}{word}", add_special_tokens=False))
        if tokens[: len(before)] != before or len(tokens) == len(before):
            raise CallerError(
                f"level word {word!r} does not begin a token of its own after {text_before[-40:]!r}: "
                "the tokenizer merges it with the text before; change the rubric's answer_prefix or levels"
            )
        ids[word] = tokens[len(before)]
    clashing = [word for word in levels if list(ids.values()).count(ids[word]) > 1]
    if clashing:
        raise CallerError(
            f"level words {', '.join(map(repr, clashing))} begin with the same token after {text_before[-40:]!r}; "
            "choose other level words, or a tokenizer that has them as words"
        )
    return list(ids.values())
