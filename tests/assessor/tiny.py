"""Random numbers -> images, and checkpoints of two architectures, some hundred kilobytes each, saved like real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from iqa_core.records import ImageHeader, RgbImage
from iqa_core.rubrics import load_rubric, rubric_names

RUBRIC = "interior-v2"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
USER_ASSISTANT = (
    "{% for m in messages %}{{ m.role | capitalize }}{{ ':' if m.content[0].type == 'image' else ': ' }}"
    "{% for part in m.content %}{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
QWEN_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
IDEFICS_TOKENS = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"] + [
    f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)
]


def make_tokenizer(special_tokens: list[str]) -> Any:
    """Byte-level BPE over the words of the shipped rubrics."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rubrics = [load_rubric(name) for name in rubric_names()]
    texts = [d.query + rubric.answer_start(d) for rubric in rubrics for d in rubric.dimensions]
    levels = [f" {word}" for word in rubrics[0].levels] * 200  # so frequent that each becomes one token
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<pad>", *special_tokens], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts + levels, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", extra_special_tokens=special_tokens)


def save_qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: windowed vision attention, multimodal rotary positions, sides in multiples of 28."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

    tokenizer = make_tokenizer(QWEN_TOKENS)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in QWEN_TOKENS}
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 14,
            "window_size": 56,
            "out_hidden_size": 48,
            "fullatt_block_indexes": [1],
        },
        text_config={**_text_config(tokenizer), "rope_parameters": _mrope()},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    _save(folder, Qwen2_5_VLForConditionalGeneration(config), tokenizer, CHATML)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112).save_pretrained(folder)
    return folder


def save_idefics3(folder: Path) -> Path:
    """Idefics3: tiles of 56 x 56 and an overview, Lanczos, a template without a space after `Assistant:`."""
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil

    tokenizer = make_tokenizer(IDEFICS_TOKENS)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        text_config={"model_type": "llama", **_text_config(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    _save(folder, Idefics3ForConditionalGeneration(config), tokenizer, USER_ASSISTANT)
    Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}).save_pretrained(folder)
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Idefics3Processor", "image_seq_len": 4})
    )
    return folder


def make_images(*sizes: tuple[int, int]) -> list[RgbImage]:
    """Random blocks of colour, one image per (height, width)."""
    rng = np.random.default_rng(7)
    images = []
    for height, width in sizes:
        blocks = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
        pixels = np.ascontiguousarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])
        images.append(RgbImage(pixels, ImageHeader(width, height, "png", 1)))
    return images


def _text_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,  # so that images and dimensions get clearly different scores
        "bos_token_id": None,
        "eos_token_id": tokenizer.pad_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }


def _mrope() -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}


def _save(folder: Path, model: Any, tokenizer: Any, chat_template: str) -> None:
    tokenizer.chat_template = chat_template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "assessor.toml").write_text(f'rubric = "{RUBRIC}"\nprompt_version = 2\ndtype = "float32"\n')
