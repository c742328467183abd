"""A prompt and an image -> the logits of the whole vocabulary and the model's own words, by the untouched model.

The slow, plain way: transformers' own forward, one prompt and one image at a time, the checkpoint's own processor.

Shape suffixes: T positions of the prompt, P the last of them, V words of the vocabulary, D width of the model.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.encoders.processor import processed
from iqa_core.assessor.model.loading import open_checkpoint, require_finite_weights
from iqa_core.assessor.preparing.preparers import QWEN_PROCESSOR, scaled_down
from iqa_core.assessor.prompts.chat import adds_special_tokens
from iqa_core.records import RgbImage


class ExactHead(torch.nn.Module):
    """An output matrix, multiplied in float32 whatever the model computes in."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    @property
    def weight(self) -> Any:
        return self.head.weight

    def forward(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        bias = getattr(self.head, "bias", None)
        return torch.nn.functional.linear(
            hidden_TD.float(), self.weight.float(), None if bias is None else bias.float()
        )


@dataclass(frozen=True, slots=True)
class PlainLogits:
    """What a model computes behind the last tokens of a prompt."""

    logits_PV: NDArray[np.float32]
    """Row p is what follows token p of the last P; the last row is what follows the prompt."""
    prompt_tokens: int
    """Tokens of the prompt, visual ones included."""
    visual_tokens: int | None
    """Visual tokens; None where the model's configuration does not say which token stands for the image."""


class PlainModel:
    """A loaded checkpoint, for looking into."""

    def __init__(self, model: Any, processor: Any, max_pixels: int | None) -> None:
        """max_pixels: bound on the prepared image; None is the processor's own."""
        model.set_output_embeddings(ExactHead(model.get_output_embeddings()))
        self.processor = processor
        self._model = model
        self._max_pixels = max_pixels

    @classmethod
    def load(cls, folder: Path, dtype: str, config: AssessorConfig, max_pixels: int | None) -> PlainModel:
        """The model of a complete checkpoint folder. Raises CallerError when it cannot be loaded whole."""
        return cls(*open_checkpoint(folder, dtype, config), max_pixels)

    @torch.inference_mode()
    def read(self, prompt: str, image: RgbImage, positions: int = 1) -> PlainLogits:
        """Logits behind the last `positions` tokens of a prompt that has the image's placeholder once.

        Raises CallerError where they are not finite because a weight is not.
        """
        inputs = self._inputs(prompt, image)
        kept = {"logits_to_keep": positions} if "logits_to_keep" in _parameters(self._model) else {}
        logits_PV = self._model(**inputs, use_cache=False, **kept).logits[0, -positions:].float()
        if not logits_PV.isfinite().all():
            require_finite_weights(self._model)
        ids_T = inputs["input_ids"][0]
        image_token = getattr(self._model.config, "image_token_id", None)
        visual = None if image_token is None else int((ids_T == image_token).sum())
        return PlainLogits(logits_PV.cpu().numpy(), len(ids_T), visual)

    @torch.inference_mode()
    def say(self, prompt: str, image: RgbImage, tokens: int) -> str:
        """What the model says next by itself, word for word the likeliest, at most so many tokens; markup left out."""
        inputs = self._inputs(prompt, image)
        ids = self._model.generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        said: str = self.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return said

    def _inputs(self, prompt: str, image: RgbImage) -> dict[str, torch.Tensor]:
        picture, settings = Image.fromarray(image.pixels_HWC), {}
        vision = self.processor.image_processor
        if self._max_pixels is not None and type(vision).__name__.startswith(QWEN_PROCESSOR):
            settings = {"size": {"shortest_edge": vision.size["shortest_edge"], "longest_edge": self._max_pixels}}
        elif self._max_pixels is not None:
            height, width = scaled_down(picture.height, picture.width, self._max_pixels)
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        adds_special = adds_special_tokens(self.processor.tokenizer, prompt)
        return processed(
            self.processor, self._model, [prompt], [picture], {"add_special_tokens": adds_special}, settings
        )


def _parameters(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)
