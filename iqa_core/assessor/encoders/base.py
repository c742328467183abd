"""Prepared images, their texts and a rubric's prompts -> token ids and pixel tensors: what all encoders have.

`processor.py` serves any model: the checkpoint's own processor encodes each image. The others normalise on the device
and make token ids without the processor: `patches.py` for the Qwen2-VL family, `tiles.py` for models that cut a picture
into tiles, `ovis2_5/encoder.py` for Ovis2.5.

Shape suffixes: N images, K prompts, A axes of rotary positions, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.prompts.slot_texts import LONG_TEXT, SlotTails, Tails
from iqa_core.slots import SAMPLE_TEXT


@dataclass(frozen=True)
class PromptTokens:
    """Token ids of one image's K prompts: their common prefix, and the suffix of each (never empty)."""

    prefix: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    types: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Argument of the model, such as token types -> one value per token of the prefix; tokens of suffixes have 0."""
    positions: torch.Tensor | None = None
    """Rotary positions (A, length of prefix); None where they are 0, 1, 2, …"""
    views: tuple[tuple[int, ...], ...] | None = None
    """Of each suffix, the tokens of the prefix that it sees, by index, in order; None: all suffixes see all of it."""

    def asking(self, questions: Sequence[int]) -> PromptTokens:
        """The same with some of the suffixes, by their numbers."""
        views = self.views and tuple(self.views[k] for k in questions)
        return replace(self, suffixes=tuple(self.suffixes[k] for k in questions), views=views)

    @property
    def next_position(self) -> int:
        """Rotary position of the first token behind the prefix."""
        return len(self.prefix) if self.positions is None else int(self.positions.max()) + 1

    def whole(self) -> PromptTokens:
        """The only prompt as a prefix that nothing follows."""
        [suffix] = self.suffixes
        types = {name: (*values, *[0] * len(suffix)) for name, values in self.types.items()}
        positions = self.positions
        if positions is not None:
            rest = torch.arange(self.next_position, self.next_position + len(suffix))
            positions = torch.cat([positions, rest.expand(len(positions), -1)], dim=1)
        return PromptTokens((*self.prefix, *suffix), (), types, positions)


@dataclass(frozen=True)
class EncodedBatch:
    """Prompts and pixels of a batch, as a model takes them."""

    prompts: tuple[PromptTokens, ...]
    pixels: Mapping[str, torch.Tensor]
    """Argument of the model -> tensor: pixels on the device; sizes on the CPU, where reading them waits for no GPU."""

    @property
    def num_questions(self) -> int:
        """Prompts of each image."""
        return len(self.prompts[0].suffixes)

    def asking(self, questions: Sequence[int]) -> EncodedBatch:
        """The same images with some of the questions, by their numbers."""
        return replace(self, prompts=tuple(prompt.asking(questions) for prompt in self.prompts))


class Encoder(ABC):
    """Turns prepared images, each in the rubric's K prompts, into a batch."""

    image_token: int | None = None
    """Id that stands in a prompt for each visual token, where these are a grid over the whole picture, row by row."""
    tails: SlotTails | None = None
    """Encodes texts into the prompts, where the rubric has slots. `encoded` gives the prompts with SAMPLE_TEXT."""
    head_tokens = 0
    """Tokens before what `tails` encodes, but for those of the image: of markup, and of a system prompt."""

    def __call__(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[Mapping[str, str]] | None = None
    ) -> EncodedBatch:
        """One entry per image. texts: of each image, slot -> text; None takes a short and a long one in turn.

        Raises TextRefused when a text cannot stand in the prompts, ValueError when a prompt does not end as expected.
        """
        batch = self.encoded(images)
        if self.tails is None:
            return batch
        samples = [dict.fromkeys(self.tails.slots, text) for text in (SAMPLE_TEXT, LONG_TEXT)]
        chosen = [samples[i % 2] for i in range(len(images))] if texts is None else texts
        prompts = [
            with_tails(prompt, self.tails.sample, self.tails(own))
            for prompt, own in zip(batch.prompts, chosen, strict=True)
        ]
        return replace(batch, prompts=tuple(prompts))

    @abstractmethod
    def encoded(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        """The images in the prompts that the encoder was made with."""

    def longest_prompt_text(self, texts: Mapping[str, str]) -> int:
        """Tokens around the image in the longest prompt; 0 where the rubric has no slots. Raises TextRefused."""
        return 0 if self.tails is None else self.head_tokens + max(map(len, self.tails(texts)))

    def text_tokens(self, texts: Mapping[str, str]) -> int:
        """Tokens that an image's texts add to those of SAMPLE_TEXT. Raises TextRefused."""
        if self.tails is None:
            return 0
        return max(0, _num_shared(self.tails(texts)) - _num_shared(self.tails.sample))


def split_prompts(prompts_K: Sequence[Sequence[int]]) -> PromptTokens:
    """Prompts split into their longest common prefix and their suffixes of at least one token."""
    whole_K = [tuple(prompt) for prompt in prompts_K]
    first, last = min(whole_K), max(whole_K)  # in order, so that all others begin as these two do
    shortest = min(map(len, whole_K)) - 1
    length = next((j for j in range(shortest) if first[j] != last[j]), shortest)
    return PromptTokens(first[:length], tuple(whole[length:] for whole in whole_K))


def with_tails(prompts: PromptTokens, old_K: Tails, new_K: Tails) -> PromptTokens:
    """Prompts that end in new tokens instead of the old ones, behind a head that all have in common.

    Raises ValueError when they do not end in the old ones.
    """
    num_heads = {
        len(prompts.prefix) + len(suffix) - len(old) for suffix, old in zip(prompts.suffixes, old_K, strict=True)
    }
    num_head = min(num_heads)
    between = prompts.prefix[num_head:]
    is_old = all(between + suffix == old for suffix, old in zip(prompts.suffixes, old_K, strict=True))
    if not is_old or num_head < 1 or any(any(values[num_head:]) for values in prompts.types.values()):
        raise ValueError("a prompt does not end in the tokens that its end gives by itself")
    new = split_prompts(new_K)
    types = {name: (*values[:num_head], *[0] * len(new.prefix)) for name, values in prompts.types.items()}
    positions = prompts.positions
    if positions is not None:
        last = int(positions[:, :num_head].max())
        rest = torch.arange(last + 1, last + 1 + len(new.prefix)).expand(len(positions), -1)
        positions = torch.cat([positions[:, :num_head], rest], dim=1)
    return PromptTokens(prompts.prefix[:num_head] + new.prefix, new.suffixes, types, positions)


def _num_shared(prompts_K: Tails) -> int:
    """Tokens of prompts of which the common prefix counts once."""
    split = split_prompts(prompts_K)
    return len(split.prefix) + sum(map(len, split.suffixes))


def normalisation(settings: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and summand per channel, float32, that scale and normalise 8 bits by an image processor's settings."""
    factor = settings.rescale_factor if settings.do_rescale else 1.0
    mean_C = torch.tensor(settings.image_mean if settings.do_normalize else [0.0] * 3, dtype=torch.float64)
    std_C = torch.tensor(settings.image_std if settings.do_normalize else [1.0] * 3, dtype=torch.float64)
    return (factor / std_C).float().to(device), (-mean_C / std_C).float().to(device)
