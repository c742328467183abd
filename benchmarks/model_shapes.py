"""A shape's name -> a model of that size with random weights, made on the device, and its operations counted.

Needs torch, transformers and numpy alone, so that it runs on a rented machine as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen3_5Config

from iqa_core.assessor.encoders.base import Encoder
from iqa_core.assessor.encoders.patches import PatchEncoder
from iqa_core.assessor.ovis2_5.configuration import Ovis2_5Config
from iqa_core.assessor.ovis2_5.encoder import Ovis2_5Encoder
from iqa_core.assessor.ovis2_5.modeling import Ovis2_5ForConditionalGeneration
from iqa_core.assessor.ovis2_5.processing import IMAGE, Ovis2_5ImageProcessor, Ovis2_5Processor

VISION_START_ID, IMAGE_ID, WORDS = 1, 2, 200
"""Ids of the tokens that the prompts here are made of; words follow."""

QWEN_TOKENS: dict[str, Any] = {
    "image_token_id": IMAGE_ID,
    "video_token_id": 3,
    "vision_start_token_id": VISION_START_ID,
    "vision_end_token_id": 4,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Shape:
    """Sides of a model's two halves, as its configuration names them."""

    vision: dict[str, Any]
    text: dict[str, Any]
    dtype: torch.dtype
    sides: tuple[int, ...]
    """Pixels of the square images that are measured."""

    image_text = "<vision> <image> </vision>"
    """How a prompt of this family shows the image."""

    def make_model(self, device: torch.device, dtype: torch.dtype) -> Any:
        """Random weights, drawn where they will be used."""
        torch.manual_seed(0)
        with device:
            return self._from_config(dtype).eval()

    def _from_config(self, dtype: torch.dtype) -> Any:
        raise NotImplementedError

    def make_encoder(self, prompts: list[str], model: Any) -> Encoder:
        raise NotImplementedError

    def see(self, model: Any, pixels: Any) -> object:
        """The vision tower alone."""
        raise NotImplementedError

    def tower_operations(self, side: int) -> float:
        """Multiplications and additions of the vision tower for one square image."""
        raise NotImplementedError

    def decoder_operations(self, prefix: int, suffixes: list[int]) -> float:
        """The same of the packed decoder, whose last layer computes keys and values for all tokens and little else."""
        width, heads = self.text["hidden_size"], self.text["num_attention_heads"]
        attended = heads * self.text.get("head_dim", width // heads)
        keys = 2 * width * attended * self.text["num_key_value_heads"] // heads
        others = 2 * width * attended + 3 * width * self.text["intermediate_size"]
        tokens, layers = prefix + sum(suffixes), self.text["num_hidden_layers"]
        seen = prefix**2 / 2 + sum(size * (prefix + size / 2) for size in suffixes)
        last = 2 * len(suffixes) * others + 4 * attended * sum(prefix + size for size in suffixes)
        return float(layers * 2 * tokens * keys + (layers - 1) * (2 * tokens * others + 4 * attended * seen) + last)


@dataclass(frozen=True)
class Qwen2_5VLShape(Shape):
    """Patches of 14 pixels, four to a token; most layers of the tower attend inside windows of 112 pixels."""

    patch_size = 14

    def _from_config(self, dtype: torch.dtype) -> Any:
        config = Qwen2_5_VLConfig(
            vision_config={"patch_size": 14, "window_size": 112, **self.vision},
            text_config={
                "max_position_embeddings": 8192,
                "bos_token_id": None,
                "eos_token_id": 0,
                "pad_token_id": 0,
                **self.text,
            },
            **QWEN_TOKENS,
        )
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)

    def make_encoder(self, prompts: list[str], model: Any) -> Encoder:
        settings = SimpleNamespace(
            patch_size=self.patch_size,
            merge_size=2,
            temporal_patch_size=2,
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[0.481, 0.458, 0.408],
            image_std=[0.269, 0.261, 0.276],
        )
        processor = SimpleNamespace(tokenizer=make_tokenizer(), image_processor=settings)
        return PatchEncoder(processor, prompts, model)

    def see(self, model: Any, pixels: Any) -> object:
        return model.model.visual(pixels["pixel_values"], grid_thw=pixels["image_grid_thw"])

    def tower_operations(self, side: int) -> float:
        """Patches come from a single frame."""
        width, depth, patches = self.vision["hidden_size"], self.vision["depth"], (side // 14) ** 2
        per_window = min((112 // 14) ** 2, patches)
        linear = 4 * width**2 + 3 * width * self.vision["intermediate_size"]
        whole = len(self.vision["fullatt_block_indexes"])
        attended = 4 * width * (whole * patches + (depth - whole) * per_window)
        group = 4 * width
        merger = (group**2 + group * self.vision["out_hidden_size"]) / 4
        return float(patches * (2 * (depth * linear + merger + 3 * 14**2 * width) + attended))


@dataclass(frozen=True)
class Qwen3_5Shape(Qwen2_5VLShape):
    """Patches of 16 pixels, four to a token, attention over the whole image; a language model of linear attention."""

    patch_size = 16

    def _from_config(self, dtype: torch.dtype) -> Any:
        config = Qwen3_5Config(
            vision_config=self.vision,
            text_config={"max_position_embeddings": 8192, "eos_token_id": 0, "pad_token_id": 0, **self.text},
            **QWEN_TOKENS,
        )
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)


@dataclass(frozen=True)
class Ovis2_5Shape(Shape):
    """Patches of 16 pixels, four to a token, attention over the whole image, and a head of visual words."""

    visual_words: int = 65536

    image_text = IMAGE

    def _from_config(self, dtype: torch.dtype) -> Any:
        config = Ovis2_5Config(
            vit_config=self.vision,
            llm_config={"model_type": "qwen3", "rope_theta": 1e6, **self.text},
            visual_vocab_size=self.visual_words,
            hidden_size=self.text["hidden_size"],
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return Ovis2_5ForConditionalGeneration(config)
        finally:
            torch.set_default_dtype(before)

    def make_encoder(self, prompts: list[str], model: Any) -> Encoder:
        return Ovis2_5Encoder(Ovis2_5Processor(Ovis2_5ImageProcessor(), make_tokenizer()), prompts, model)

    def see(self, model: Any, pixels: Any) -> object:
        return model.get_image_features(**pixels)

    def tower_operations(self, side: int) -> float:
        """With the visual head and the visual words' embeddings."""
        width, depth, patches = self.vision["hidden_size"], self.vision["num_hidden_layers"], (side // 16) ** 2
        linear = 4 * width**2 + 2 * width * self.vision["intermediate_size"]
        words = self.visual_words * (4 * width + self.text["hidden_size"]) / 4
        return float(patches * (2 * (depth * linear + 3 * 16**2 * width + words) + 4 * width * depth * patches))


TINY_TOWER = {"depth": 6, "hidden_size": 192, "intermediate_size": 512, "num_heads": 6}
TINY_TEXT = {
    "vocab_size": 1536,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}

SHAPES: dict[str, Shape] = {
    "tiny": Qwen2_5VLShape(
        {
            **TINY_TOWER,
            "out_hidden_size": 256,
            "fullatt_block_indexes": [2, 5],
        },
        {
            **TINY_TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
        },
        torch.float32,
        (448,),
    ),
    "qwen2.5-vl-7b": Qwen2_5VLShape(
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
    "tiny-qwen3.5": Qwen3_5Shape(
        {
            **TINY_TOWER,
            "patch_size": 16,
            "out_hidden_size": 256,
            "num_position_embeddings": 784,
        },
        {
            **TINY_TEXT,
            "head_dim": 32,
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 8,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
        },
        torch.float32,
        (448,),
    ),
    "tiny-ovis2.5": Ovis2_5Shape(
        {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6},
        {
            **TINY_TEXT,
            "head_dim": 32,
        },
        torch.float32,
        (448,),
        visual_words=1024,
    ),
    "ovis2.5-9b": Ovis2_5Shape(
        {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
        {
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        torch.bfloat16,
        (512, 1024),
    ),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words separated by blanks."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<pad>", "<vision>", "<image>", "<video>", "</vision>", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_prompts(image_text: str, sizes: Sequence[int]) -> list[str]:
    """Some words of markup, the image, and for each prompt so many tokens of its own behind it."""
    start = f"w1 w2 w3 {image_text} w4"
    return [
        f"{start} w{(100 + k) % WORDS} " + " ".join(f"w{(7 * i + k) % WORDS}" for i in range(size - 1))
        for k, size in enumerate(sizes)
    ]
