"""A shape's name -> a model of that size with random weights, made on the device, and its operations counted.

Needs torch, transformers and numpy alone, so that it runs on a rented machine as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast, Qwen2_5_VLConfig

VISION_START, IMAGE, WORDS = 1, 2, 200
"""Ids of the tokens that the prompts here are made of; words follow."""


@dataclass(frozen=True)
class Shape:
    """A Qwen2.5-VL: sides of its two halves."""

    vision: dict[str, Any]
    text: dict[str, Any]
    dtype: torch.dtype
    sides: tuple[int, ...]
    """Pixels of the square images that are measured."""


SHAPES = {
    "tiny": Shape(
        {
            "depth": 6,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_heads": 6,
            "out_hidden_size": 256,
            "fullatt_block_indexes": [2, 5],
        },
        {
            "vocab_size": 1536,
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
        },
        torch.float32,
        (448,),
    ),
    "qwen2.5-vl-7b": Shape(
        {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        torch.bfloat16,
        (504, 1008),
    ),
}


def make_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """Random weights, drawn where they will be used."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        vision_config={"patch_size": 14, "window_size": 112, **shape.vision},
        text_config={
            "max_position_embeddings": 8192,
            "bos_token_id": None,
            "eos_token_id": 0,
            "pad_token_id": 0,
            **shape.text,
        },
        image_token_id=IMAGE,
        video_token_id=3,
        vision_start_token_id=VISION_START,
        vision_end_token_id=4,
        tie_word_embeddings=False,
    )
    with device:
        return AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()


def make_processor() -> Any:
    """As much of a processor as `PatchEncoder` reads: words separated by blanks, and the family's normalisation."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<pad>", "<vision>", "<image>", "<video>", "</vision>", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    settings = SimpleNamespace(
        patch_size=14,
        merge_size=2,
        temporal_patch_size=2,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.481, 0.458, 0.408],
        image_std=[0.269, 0.261, 0.276],
    )
    return SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer), image_processor=settings)


def make_prompts(num_prompts: int, tokens: int) -> list[str]:
    """Some words of markup, the image, and for each prompt so many tokens of its own behind it."""
    start = "w1 w2 w3 <vision> <image> </vision> w4"
    return [
        f"{start} w{100 + k} " + " ".join(f"w{(7 * i + k) % WORDS}" for i in range(tokens - 1))
        for k in range(num_prompts)
    ]


def tower_operations(model: Any, side: int) -> float:
    """Multiplications and additions of the vision tower for one square image, patches from a single frame."""
    config = model.config.vision_config
    width, patches = config.hidden_size, (side // config.patch_size) ** 2
    per_window = min((config.window_size // config.patch_size) ** 2, patches)
    linear = 4 * width**2 + 3 * width * config.intermediate_size
    whole = len(config.fullatt_block_indexes)
    attended = 4 * width * (whole * patches + (config.depth - whole) * per_window)
    group = 4 * width
    merger = (group**2 + group * config.out_hidden_size) / 4
    embedding = 3 * config.patch_size**2 * width
    return float(patches * (2 * (config.depth * linear + merger + embedding) + attended))


def decoder_operations(model: Any, prefix: int, suffixes: list[int]) -> float:
    """The same of the packed decoder, whose last layer computes keys and values for all tokens and little else."""
    config = model.config.text_config
    width, heads = config.hidden_size, config.num_attention_heads
    head = width // heads
    keys = 2 * width * config.num_key_value_heads * head
    others = 2 * width**2 + 3 * width * config.intermediate_size
    tokens, layers = prefix + sum(suffixes), config.num_hidden_layers
    seen = prefix**2 / 2 + sum(size * (prefix + size / 2) for size in suffixes)
    last = 2 * len(suffixes) * others + 4 * width * sum(prefix + size for size in suffixes)
    return float(layers * 2 * tokens * keys + (layers - 1) * (2 * tokens * others + 4 * width * seen) + last)
