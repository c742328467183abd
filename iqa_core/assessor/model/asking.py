"""A checkpoint and prompts -> their encoder, texts in slots among them; images -> those that can be asked about.

Shape suffixes: N images, K prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_core.assessor.encoders.base import Encoder
from iqa_core.assessor.encoders.patches import PatchEncoder
from iqa_core.assessor.encoders.processor import ProcessorEncoder, given_to_tokenizer
from iqa_core.assessor.encoders.tiles import TileEncoder
from iqa_core.assessor.families import OVIS2_5, QWEN2_VL
from iqa_core.assessor.ovis2_5.encoder import Ovis2_5Encoder
from iqa_core.assessor.preparing.preparers import (
    FullSizePreparer,
    ModelPreparer,
    SmartResizePreparer,
    TilingPreparer,
)
from iqa_core.assessor.prompts.plain_text import PlainText, TextRefused, ids_of_markup
from iqa_core.assessor.prompts.slot_texts import SlotTails
from iqa_core.errors import CallerError
from iqa_core.records import ImageHeader, Reason, Rejection, RgbImage

TOO_LARGE = Rejection(Reason.ASSESSOR_FAILED, "the image alone does not fit into the memory of the device")

PROBABILITY_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Largest difference of a strategy from one forward per prompt, tried when a checkpoint is loaded; by dtype."""


def context_of(config: Any) -> float:
    """Tokens that a model of this configuration takes; infinite where it does not say."""
    found: float | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found or math.inf


def shortage(prompt: int, answer: int, context: float) -> str | None:
    """Why an image's prompt and its answer, of so many tokens, do not fit a context; None where they do."""
    if prompt + answer <= context:
        return None
    written = f" and its answer up to {answer}" if answer else ""
    return f"the image takes {prompt} tokens{written}, and the model's context has {context}"


class Intake:
    """Decides which images can be asked about with their texts."""

    def __init__(self, model: Any, preparer: ModelPreparer, encoder: Encoder, num_written: int = 0) -> None:
        """num_written: tokens that the model may write behind a prompt, where an image has no limit of its own."""
        self._preparer = preparer
        self._encoder = encoder
        self._num_written = num_written
        self._context = context_of(model.config)

    def __call__(
        self,
        images: Sequence[NDArray[np.uint8]],
        texts: Sequence[Mapping[str, str]],
        limits: Sequence[int] | None = None,
    ) -> tuple[dict[int, int], dict[int, Rejection]]:
        """Index -> tokens of an image's prompts together; index -> rejection of an image that cannot be asked about.

        texts: of each image, slot -> text; limits: tokens that may be written about each, None is `num_written`.
        """
        limits = limits or [self._num_written] * len(images)
        tokens, refused = dict[int, int](), dict[int, Rejection]()
        for i, (pixels, own, limit) in enumerate(zip(images, texts, limits, strict=True)):
            try:
                tokens[i] = self._tokens(pixels, own, limit)
            except TextRefused as error:
                refused[i] = Rejection(error.reason, str(error))
        return tokens, refused

    def _tokens(self, pixels: NDArray[np.uint8], texts: Mapping[str, str], limit: int) -> int:
        tokens = self._preparer.tokens(pixels)
        longest = tokens
        if texts:
            longest += self._encoder.longest_prompt_text(texts) - self._preparer.cost.text_tokens
        if (texts or limit) and (said := shortage(longest, limit, self._context)):
            raise TextRefused(f"with its text {said}" if texts else said, Reason.TOO_LARGE)
        return tokens + self._encoder.text_tokens(texts)


def encoder_of(
    processor: Any,
    model: Any,
    preparer: ModelPreparer,
    prompts_K: Sequence[str],
    slots_K: Sequence[Sequence[str]],
    prompts_of: Callable[[Mapping[str, str]], Sequence[str]],
) -> Encoder:
    """The encoder of a rubric's prompts.

    prompts_K: with SAMPLE_TEXT in their slots; slots_K: names of each prompt's slots; prompts_of: texts, slot -> text
    -> the prompts with them. Raises CallerError where the checkpoint cannot take texts there.
    """
    encoder = make_encoder(processor, prompts_K, model, preparer)
    if any(slots_K):
        encoder.tails = _slot_tails(processor, model, slots_K, prompts_of)
        probe = [preparer.prepare(image) for image in probe_images()]
        _require_fitting(encoder, probe)
        encoder.head_tokens = _head_tokens(encoder, encoder.tails.sample[0], preparer, probe[0])
    return encoder


def make_encoder(processor: Any, prompts_K: Sequence[str], model: Any, preparer: ModelPreparer) -> Encoder:
    """The encoder for what a preparer prepares; the checkpoint's own processor where there is no faster one."""
    if isinstance(preparer, SmartResizePreparer) and model.config.model_type in QWEN2_VL:
        return PatchEncoder(processor, prompts_K, model)
    if isinstance(preparer, TilingPreparer):
        return TileEncoder(processor, prompts_K, model, preparer.tiling)
    if model.config.model_type == OVIS2_5:
        return Ovis2_5Encoder(processor, prompts_K, model)
    return ProcessorEncoder(processor, prompts_K, model, resizes=preparer.processor_resizes)


def _slot_tails(
    processor: Any,
    model: Any,
    slots_K: Sequence[Sequence[str]],
    prompts_of: Callable[[Mapping[str, str]], Sequence[str]],
) -> SlotTails:
    """What encodes texts into K prompts; see `encoder_of`."""
    plain = PlainText(processor.tokenizer, ids_of_markup(model.config.to_dict()))
    markers = {slot: plain.marker(i) for i, slot in enumerate(dict.fromkeys(chain.from_iterable(slots_K)))}
    prompts_K = [given_to_tokenizer(processor, prompt) for prompt in prompts_of(markers)]
    for prompt, slots in zip(prompts_K, slots_K, strict=True):
        if not all(markers[slot] in prompt for slot in slots):
            raise CallerError(
                f"the rubric has slots, but the checkpoint's chat template or processor changes or leaves out what "
                f"stands for {', '.join(slots)}; use another checkpoint"
            )
    return SlotTails(plain, markers, prompts_K)


def _head_tokens(encoder: Encoder, end: Sequence[int], preparer: ModelPreparer, pixels: NDArray[np.uint8]) -> int:
    """See `Encoder.head_tokens`; 0 where the preparer only estimates an image's tokens. end: of the first prompt."""
    if isinstance(preparer, FullSizePreparer):
        return 0
    [prompt] = encoder.encoded([pixels]).prompts
    visual = preparer.tokens(pixels) - preparer.cost.text_tokens
    return max(0, len(prompt.prefix) + len(prompt.suffixes[0]) - len(end) - visual)


def _require_fitting(encoder: Encoder, probe: Sequence[NDArray[np.uint8]]) -> None:
    try:
        encoder(probe)
    except (TextRefused, ValueError) as error:
        raise CallerError(
            f"the rubric has slots, but this checkpoint cannot take texts behind an image: {error}; "
            "use another checkpoint, or a rubric without slots"
        ) from None


def probe_images() -> list[RgbImage]:
    """Two small images of noise in different shapes, on which strategies are compared."""
    rng = np.random.default_rng(0)
    sizes = ((96, 96), (64, 160))
    return [
        RgbImage(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), ImageHeader(width, height, "png", 1))
        for height, width in sizes
    ]
