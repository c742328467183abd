"""Tiny checkpoints whose weights are set by hand so that they say their answers by themselves: no training, any fault.

Each token of the answer has a direction of its own in the residual stream, and the output matrix maps the direction of
one token to the next. Behind the last token all five level words are alike but for what the image adds through
attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iqa_core.rubrics import load_rubric
from tests.assessor.tiny import save_qwen2_5_vl

RUBRIC = """\
id = "speaking"
domain = "Anything."
prompt_version = 1
description = "For a model that says this sentence by itself."
answer_prefix = "The quality level of this picture is"
levels = ["bad", "poor", "fair", "good", "excellent"]
[[dimensions]]
name = "layout"
query = "How good is the layout of this room?"
[[dimensions]]
name = "lighting"
query = "How good is the lighting of this room?"
"""
GAIN = 20.0
LOUD = 60.0
QUIET = 0.3
"""What is left of each layer's contribution, so that the directions of the answer's tokens stay visible."""


WRITING = """\
kind = "written"
id = "writing"
domain = "Anything."
prompt_version = 1
description = "For a model that writes a label and a digit by itself."
question = "How good is the layout of this room?"
[output]
grammar = "attributes"
thought = "none"
[[attributes]]
name = "quality"
label = "Q"
[decoding]
max_new_tokens = 6
"""


def save_speaking(folder: Path, image_gain: float = 3.0) -> Path:
    """image_gain: how much the image moves the level words; 0 gives every image the same score."""
    save_qwen2_5_vl(folder)
    (folder / "speaking.toml").write_text(RUBRIC)
    (folder / "assessor.toml").write_text('rubric = "speaking.toml"\nprompt_version = 1\ndtype = "float32"\n')
    rubric = load_rubric(str(folder / "speaking.toml"))
    _teach(folder, f"\n{rubric.answer_prefix}", rubric.levels, image_gain)
    return folder


def save_writing(folder: Path, image_gain: float = 3.0) -> Path:
    """One that writes `Q: 1` to `Q: 5` and ends its turn, but has no assessor.toml. image_gain: as above, of digits."""
    save_qwen2_5_vl(folder)
    (folder / "writing.toml").write_text(WRITING)
    _teach(folder, "\nQ:", "12345", image_gain, end="<|im_end|>")
    return folder


def _teach(folder: Path, said: str, choices: Sequence[str], image_gain: float, end: str | None = None) -> None:
    """Make a model say some text, one of the choices that the image decides on, and then an end."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chain = _tokens(tokenizer, said)
    assert len(set(chain)) == len(chain), "a token that comes twice cannot have one successor"
    chosen = [_tokens(tokenizer, f" {word}")[0] for word in choices]
    with torch.no_grad():
        words, head = model.get_input_embeddings().weight, model.lm_head.weight
        directions = LOUD * torch.eye(words.shape[1])
        words[:, : len(chain) + 1] = 0
        words[chain] = directions[: len(chain)]
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight *= QUIET
            layer.mlp.down_proj.weight *= QUIET
        noise = torch.randn(head[chosen].shape, generator=torch.Generator().manual_seed(4))
        head.zero_()
        for here, following in zip(range(len(chain) - 1), chain[1:], strict=True):
            head[following, here] = GAIN
        head[chosen] = image_gain * noise
        head[chosen, len(chain) - 1] = GAIN
        if end is not None:
            words[chosen] = directions[len(chain)]
            head[_tokens(tokenizer, end), len(chain)] = GAIN
    model.save_pretrained(folder)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
