"""A checkpoint folder and a written rubric -> a digest of the prompt's token ids, as the model is given them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from PIL import Image

from iqa_core.assessor.encoders.processor import processor_output
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.prompts.chat import adds_special_tokens, written_prompt
from iqa_core.errors import CallerError
from iqa_core.rubrics import WrittenRubric
from iqa_core.slots import SAMPLE_TEXT

SIDE = 56
"""Pixels along a side of the grey square that stands for the image; its visual tokens are in the digest too."""


def prompt_digest(folder: Path, rubric: WrittenRubric) -> str:
    """SHA-256, hex, over token ids; slots have SAMPLE_TEXT.

    Files and rubric do not determine them: the libraries that render a template and expand placeholders do too.
    Raises CallerError when the checkpoint has no processor or no chat template, or one that places no image.
    """
    processor = load_processor(folder)
    prompt = written_prompt(processor, rubric, dict.fromkeys(rubric.slots, SAMPLE_TEXT))
    settings = {"add_special_tokens": adds_special_tokens(processor.tokenizer, prompt)}
    image = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    try:
        ids = processor_output(processor, [prompt], [image], settings)["input_ids"][0].tolist()
    except ValueError as error:
        raise CallerError(f"the checkpoint's processor cannot take the rubric's prompt: {error}") from None
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()
