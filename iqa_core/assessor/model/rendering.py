"""A checkpoint folder and a written rubric -> a digest of the prompt's token ids; a refusal of what has no room."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from PIL import Image
from transformers import AutoConfig

from iqa_core.assessor.encoders.processor import processor_output
from iqa_core.assessor.model.asking import context_of, probe_images, shortage
from iqa_core.assessor.model.processors import load_processor
from iqa_core.assessor.ovis2_5.registration import register_ovis2_5
from iqa_core.assessor.preparing.preparers import ModelPreparer
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


def require_room(folder: Path, rubric: WrittenRubric, preparer: ModelPreparer) -> None:
    """Raises CallerError where the context has no room for an answer about a small image; no weights are loaded.

    Tokens of texts in slots are known only when the checkpoint is loaded, which refuses then.
    """
    if rubric.slots:
        return
    register_ovis2_5()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CallerError(f"the configuration of checkpoint {folder} cannot be read: {error}") from None
    for image in probe_images():
        tokens = preparer.shape(image.header).tokens
        if said := shortage(tokens, rubric.decoding.max_new_tokens, context_of(config)):
            raise without_room(rubric, said)


def without_room(rubric: WrittenRubric, said: str) -> CallerError:
    """The refusal of a rubric whose answers do not fit."""
    return CallerError(f"rubric {rubric.id}: {said}; set a smaller max_new_tokens")
