"""Rubric and chat template -> the exact text that a model is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template

from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import build_prompt, turn_end
from iqa_core.errors import CallerError
from iqa_core.rubrics import Rubric, load_rubric
from tests.assessor.tiny import CHATML, USER_ASSISTANT

pytestmark = pytest.mark.slow

RUBRIC = load_rubric("interior-v2")
LIGHTING = RUBRIC.questions[2]
ANSWER = "The spatial aesthetic lighting quality level of this image is"
CHATML_PROMPT = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>\n"
    "<lighting>How good is the lighting of this room?<|im_end|>\n"
    f"<|im_start|>assistant\n{ANSWER}"
)


class Templated:
    """A processor as far as prompts see one: a Jinja template and its variables."""

    def __init__(self, chat_template: str) -> None:
        self.chat_template = chat_template

    def apply_chat_template(self, conversation: list[dict[str, Any]], **settings: Any) -> str:
        assert settings.pop("tokenize") is False
        return Template(self.chat_template).render(messages=conversation, **settings)


def test_a_chatml_prompt_is_image_newline_tag_query_answer(qwen: Path) -> None:
    assert build_prompt(load_processor(qwen), LIGHTING, None) == CHATML_PROMPT


@pytest.mark.parametrize("between", ["", " ", "\n\n"])
def test_a_rubric_says_what_stands_between_image_and_query(between: str, qwen: Path) -> None:
    """And an answer may begin with a space, as some judges read theirs."""
    [dimension] = (one for one in RUBRIC.dimensions if one.name == "lighting")
    own = dimension.model_dump() | {"answer_prefix": " It is"}
    rubric = Rubric.model_validate(
        RUBRIC.model_dump() | {"between": between, "answer_prefix": None, "dimensions": [own]}
    )
    prompt = build_prompt(load_processor(qwen), rubric.questions[0], None)
    assert prompt == CHATML_PROMPT.replace("end|>\n<l", f"end|>{between}<l").replace(ANSWER, " It is")


def test_a_system_prompt_comes_first(qwen: Path) -> None:
    prompt = build_prompt(load_processor(qwen), LIGHTING, "You judge rooms.")
    assert prompt == f"<|im_start|>system\nYou judge rooms.<|im_end|>\n{CHATML_PROMPT}"


def test_an_answer_is_set_off_as_the_template_sets_it_off(idefics: Path) -> None:
    """Its generation prompt is `Assistant:`, its answers begin `Assistant: `: the space is kept."""
    prompt = build_prompt(load_processor(idefics), LIGHTING, None)
    assert prompt.endswith(f"<end_of_utterance>\nAssistant: {ANSWER}")
    assert prompt.startswith("User:<image>\n<lighting>")


def test_all_dimensions_begin_alike_up_to_the_query() -> None:
    prompts = [build_prompt(Templated(CHATML), question, None) for question in RUBRIC.questions]
    shared = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>\n<"
    assert all(prompt.startswith(shared) for prompt in prompts)
    assert len(set(prompts)) == len(prompts)


def test_thinking_is_switched_off_where_the_template_knows_it() -> None:
    thinking = CHATML.replace(
        "assistant\n{% endif %}",
        "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    )
    prompt = build_prompt(Templated(thinking), LIGHTING, None)
    assert prompt.endswith(f"assistant\n<think>\n\n</think>\n\n{ANSWER}")
    assert build_prompt(Templated(USER_ASSISTANT), LIGHTING, None).endswith(f"Assistant: {ANSWER}")


def test_a_turn_ends_as_the_rubrics_template_arguments_have_it() -> None:
    closing = Templated(
        "{% for message in messages %}{{ message.content[-1].text }}{{ closing or '<end>' }}{% endfor %}"
    )
    assert turn_end(closing, None) == "<end>"
    assert turn_end(closing, None, {"closing": "<eot>"}) == "<eot>"


def test_a_checkpoint_without_a_chat_template_is_refused(qwen: Path) -> None:
    processor = load_processor(qwen)
    processor.chat_template = None
    with pytest.raises(CallerError, match="chat template"):
        build_prompt(processor, LIGHTING, None)
