"""Prepared images and a rubric's prompts -> token ids and tensors from the checkpoint's own processor, for any model.

Shape suffixes: N images, K prompts, A axes of rotary positions, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from inspect import signature
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iqa_core.assessor.encoders.base import EncodedBatch, Encoder, PromptTokens, split_prompts
from iqa_core.assessor.prompts.chat import adds_special_tokens


class ProcessorEncoder(Encoder):
    """An `Encoder` for any model: the processor encodes the first prompt, the other prompts add their suffixes."""

    def __init__(self, processor: Any, prompts_K: Sequence[str], model: Any, *, resizes: bool) -> None:
        self._processor = processor
        self._prompt = prompts_K[0]
        self._model = model
        self._settings = {} if resizes else {"do_resize": False}
        self._adds_special = adds_special_tokens(processor.tokenizer, prompts_K[0])
        self._suffixes_K = self._common_suffixes(prompts_K)

    def encoded(self, images: Sequence[NDArray[np.uint8]]) -> EncodedBatch:
        """See `Encoder.encoded`."""
        inputs = self._processed([self._prompt] * len(images), images)
        positions_ANT = self._positions(inputs)
        ids_NT, mask_NT = inputs.pop("input_ids"), inputs.pop("attention_mask").bool()
        per_token = {name: value for name, value in inputs.items() if value.shape == ids_NT.shape}
        prompts = []
        for i, mask_T in enumerate(mask_NT):
            ids = tuple(ids_NT[i][mask_T].tolist())
            length = len(ids) - len(self._suffixes_K[0])
            if ids[length:] != self._suffixes_K[0]:
                raise ValueError(
                    f"the prompt ends in other tokens behind an image of {images[i].shape[:2]} than behind a grey one"
                )
            types = {name: tuple(value[i][mask_T].tolist()[:length]) for name, value in per_token.items()}
            positions = None if positions_ANT is None else positions_ANT[:, i][:, mask_T][:, :length].cpu()
            prompts.append(PromptTokens(ids[:length], self._suffixes_K, types, positions))
        pixels = {name: value for name, value in inputs.items() if name not in per_token}
        return EncodedBatch(tuple(prompts), pixels)

    def _positions(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Rotary positions (A, N, T) of the first prompt by the model's own function; None where it has none."""
        of_model = getattr(getattr(self._model, "model", None), "get_rope_index", None)
        if of_model is None:
            return None
        known = signature(of_model).parameters
        return torch.as_tensor(of_model(**{name: value for name, value in inputs.items() if name in known})[0])

    def _processed(self, texts: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        return processed(
            self._processor,
            self._model,
            texts,
            [Image.fromarray(pixels) for pixels in images],
            {"padding": True, "add_special_tokens": self._adds_special},
            self._settings,
        )

    def _common_suffixes(self, prompts_K: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Suffixes of the prompts, taken from those around a grey image: they are the same for every image."""
        grey = np.full((64, 64, 3), 128, np.uint8)
        encoded = [self._processed([prompt], [grey])["input_ids"][0].tolist() for prompt in prompts_K]
        return split_prompts(encoded).suffixes


class _Listener:
    """A processor's tokenizer that notes the texts which it is given."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str | Sequence[str], *given: Any, **settings: Any) -> Any:
        self.texts += [text] if isinstance(text, str) else text
        return self._tokenizer(text, *given, **settings)


def given_to_tokenizer(processor: Any, prompt: str) -> str:
    """What a processor makes of a prompt with a grey image before it tokenises it; the last piece, if it cuts it up."""
    listening = copy.copy(processor)
    listening.tokenizer = _Listener(processor.tokenizer)
    listening(text=[prompt], images=[[Image.new("RGB", (64, 64), (128, 128, 128))]], return_tensors="pt")
    return listening.tokenizer.texts[-1] if listening.tokenizer.texts else ""


def processed(
    processor: Any,
    model: Any,
    texts: Sequence[str],
    images: Sequence[Image.Image],
    text_settings: Mapping[str, Any],
    image_settings: Mapping[str, Any],
) -> dict[str, torch.Tensor]:
    """Output of a checkpoint's own processor for prompts with one image each, on the model's device."""
    return dict(processor_output(processor, texts, images, text_settings, image_settings).to(model.device, model.dtype))


def processor_output(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Image.Image],
    text_settings: Mapping[str, Any],
    image_settings: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """The same in the processor's own kind of mapping, on the CPU."""
    inputs = processor(
        text=list(texts),
        images=[[image] for image in images],
        text_kwargs=dict(text_settings),
        images_kwargs=dict(image_settings),
        return_tensors="pt",
    )
    inputs.pop("labels", None)  # PaliGemma's processor makes some for training
    return inputs
