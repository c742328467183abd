"""Questions with a closed set of answers -> log-probabilities of the answers behind any image of the demo's size.

Arrays: N images, K questions, A answers, L tokens of a prompt, T visual tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from iqa_core.demo.blueprint import PATCH, SIZE, VISUAL_TOKENS
from iqa_core.demo.captions import COLOURS, SIDES, WINDOW
from iqa_core.demo.scenes import FURNITURE
from iqa_core.rubrics import Rubric


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, how its answer begins, and the words of which one comes next, each one token."""

    query: str
    answer_start: str
    answers: tuple[str, ...]


SURFACES = ("wall", "floor", "rug")
EXTENTS, ROWS, COLUMNS = ("none", "part", "all"), ("top", "middle", "bottom"), ("left", "middle", "right")
PLACES = (
    Asked("How much of this picture is distorted?", "What is distorted is", tuple(f" {word}" for word in EXTENTS)),
    Asked("Where is this picture distorted, from top to bottom?", "It is the", tuple(f" {word}" for word in ROWS)),
    Asked("Where is this picture distorted, from left to right?", "It is the", tuple(f" {word}" for word in COLUMNS)),
)
"""Of pictures with one distortion: how far it reaches, and where its middle lies."""

PLACES_OF_THINGS = ("in this room", "on the left", "on the right")
STATEMENTS = tuple(
    Asked(f'Does the picture show "{statement}."?', "", ("No", "Yes"))
    for statement in (
        *(f"There is a {thing} {place}" for place in PLACES_OF_THINGS for thing in FURNITURE),
        *(f"A room with a {colour} {surface}" for surface in SURFACES for colour in COLOURS),
        *(f"A room with a {WINDOW} on the {side}" for side in SIDES),
    )
)
"""True of a scene or not: furniture, place by place; colours, surface by surface; the window."""


def rubric_questions(rubric: Rubric) -> tuple[Asked, ...]:
    """What a rubric asks, a level word behind the beginning of each answer."""
    words = tuple(f" {word}" for word in rubric.levels)
    return tuple(Asked(each.query, rubric.answer_start(each), words) for each in rubric.dimensions)


class Prompts:
    """K questions with A answers each, ready to be read behind any image of SIZE x SIZE."""

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        questions: Sequence[Asked],
    ) -> None:
        rows = [_prompt_ids(tokenizer, question) for question in questions]
        self.last_K = torch.tensor([len(row) - 1 for row in rows])
        longest = max(len(row) for row in rows)
        self.ids_KL = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
        self.answer_ids_KA = torch.tensor(
            [[tokenizer(answer)["input_ids"][0] for answer in question.answers] for question in questions]
        )
        is_image = self.ids_KL == model.config.image_token_id
        self.first_image = int(is_image[0].int().argmax())
        grid = torch.tensor([[1, SIZE // PATCH, SIZE // PATCH]] * len(rows))
        self.positions_3KL = model.model.get_rope_index(self.ids_KL, is_image.int(), image_grid_thw=grid)[0]

    def log_probs(self, model: Qwen2_5_VLForConditionalGeneration, seen_NTD: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (N, K, A) of the answers among all words of the vocabulary.

        Padding stands at the right, where causal attention keeps it out of sight.
        """
        n, k = len(seen_NTD), len(self.ids_KL)
        words = model.model.language_model.embed_tokens(self.ids_KL).expand(n, -1, -1, -1)
        seen = seen_NTD.to(words.dtype)[:, None].expand(-1, k, -1, -1)
        start, end = self.first_image, self.first_image + VISUAL_TOKENS
        inputs = torch.cat([words[:, :, :start], seen, words[:, :, end:]], dim=2).flatten(0, 1)
        positions = self.positions_3KL.repeat(1, n, 1)
        hidden = model.model.language_model(inputs_embeds=inputs, position_ids=positions, use_cache=False)
        hidden_NKD = hidden.last_hidden_state.unflatten(0, (n, k))[:, torch.arange(k), self.last_K]
        log_probs: torch.Tensor = model.lm_head(hidden_NKD).float().log_softmax(-1)
        return log_probs.gather(-1, self.answer_ids_KA.expand(n, -1, -1))


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, question: Asked) -> list[int]:
    """Tokens up to the answer's word, the image token already once per visual token."""
    content = [{"type": "image"}, {"type": "text", "text": f"\n{question.query}"}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    image: str = tokenizer.image_token
    return list(tokenizer(text.replace(image, image * VISUAL_TOKENS) + question.answer_start)["input_ids"])
