"""Greedy answers against transformers' own `generate`; samples in any company. Tests caches.py and prefill.py too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, GenerationConfig

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.encoders.base import Encoder
from iqa_core.assessor.load import describe
from iqa_core.assessor.model.backend import make_encoder
from iqa_core.assessor.model.generation.decoding import Answer, Decoder, Ending
from iqa_core.assessor.model.generation.noise import key_of
from iqa_core.assessor.model.generation.prefill import Prefill, length, prefill
from iqa_core.assessor.model.generation.sampling import Sampling
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import render_prompt
from iqa_core.records import ImageLimits
from tests.assessor.tiny import FAMILIES, make_images

IMAGES = make_images((96, 64), (64, 64), (120, 90))
TOKENS = 12
SAMPLED = Sampling(temperature=1.0, top_k=40, top_p=0.95)


class Writer:
    """A tiny checkpoint that writes."""

    def __init__(self, folder: Path) -> None:
        config = AssessorConfig(checkpoint=str(folder), threads=1)
        self.preparer: Any = describe(config, None, ImageLimits()).preparer
        self.processor = load_processor(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.prompt = render_prompt(self.processor, [None, "\nDescribe the quality."], "", None)
        self.encoder: Encoder = make_encoder(self.processor, [self.prompt], self.model, self.preparer)
        self.pixels = [self.preparer.prepare(image) for image in IMAGES]

    def prefilled(self, pixels: Sequence[np.ndarray], width: int | None = None) -> Prefill:
        batch = self.encoder(pixels)
        widest = max(map(length, batch.prompts))
        with torch.inference_mode():
            return prefill(self.model, batch, batch.pixels, width or widest)

    def decoder(self, sampling: Sampling = SAMPLED, **settings: Any) -> Decoder:
        ending = Ending(frozenset(), (), TOKENS)
        return Decoder(self.model, sampling, ending, self.processor.tokenizer.decode, **settings)


def texts_of(answers: Sequence[Sequence[Answer]]) -> list[list[str]]:
    return [[answer.text for answer in row] for row in answers]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", [*FAMILIES, "paligemma"])
def test_greedy_answers_are_those_of_generate(name: str, request: pytest.FixtureRequest) -> None:
    """Three images of unlike sizes at once, one after another in `generate`."""
    writer = Writer(request.getfixturevalue(name))
    found = writer.decoder(Sampling())(writer.prefilled(writer.pixels), [[0]] * len(IMAGES))
    settings = GenerationConfig(do_sample=False, max_new_tokens=TOKENS, eos_token_id=None, pad_token_id=0)
    for image, (answer,) in zip(IMAGES, found, strict=True):
        inputs = writer.processor(
            text=[writer.prompt], images=[[Image.fromarray(image.pixels_HWC)]], return_tensors="pt"
        )
        ids = writer.model.generate(**inputs, generation_config=settings)[0, inputs["input_ids"].shape[1] :]
        assert answer.ids == tuple(ids.tolist())
        assert answer.finish == "length"
