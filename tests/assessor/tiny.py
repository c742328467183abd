"""Random numbers -> images, and checkpoints of 14 architectures, some 100 kilobytes each, saved like real ones."""

from __future__ import annotations

import json
import shutil
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


INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
OVIS_TOKENS = ["<image>", "<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
LLAVA_TOKENS = {"image_token": "<image>", "video_token": "<video>"}
GEMMA_TOKENS = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
}
GEMMA4_TOKENS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "boa_token": "<|audio>",  # its processor asks for tokens of audio too
    "eoa_token": "<audio|>",
}
GLM_TOKENS = ["<|image|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"]
MINICPM_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
CHAT_TOKENS = ["<|im_start|>", "<|im_end|>"]
HYBRID = ("qwen3_5", "qwen3_5_moe", "minicpm")
"""Fixtures of models some of whose layers keep a recurrent state instead of keys and values."""
FAMILIES = ("qwen", "qwen2", "qwen3", "internvl", "ovis2", "llava", "idefics", "gemma3", "gemma4", "glm4v", *HYBRID)
"""Fixtures with a checkpoint each, of models whose prompts can share an image's prefix."""
TILED = ("internvl", "ovis2", "llava", "idefics", "gemma3", "paligemma")
"""Those of models whose images are cut into tiles where they are read."""


SHOWN = """
id = "shown"
domain = "Tests."
prompt_version = 1
description = "What a picture was to show."
slots = ["prompt", "style"]
answer_prefix = "The answer is"
levels = ["bad", "poor", "fair", "good", "excellent"]
dimensions = [
  { name = "faithful", query = 'Does this picture show "{prompt}"?' },
  { name = "style", query = 'Does this picture show "{prompt}" in the style of {style}' },
  { name = "good", query = "How good is this picture?" },
]
"""
"""A rubric with two slots, one of them in two questions, and a question that has none."""


def chatml_with(image: str) -> str:
    """The same chat markup around another placeholder."""
    return CHATML.replace("<|vision_start|><|image_pad|><|vision_end|>", image)


def make_tokenizer(special_tokens: list[str], named: dict[str, str] | None = None) -> Any:
    """Byte-level BPE over the words of the shipped rubrics; named tokens become attributes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rubrics = [load_rubric(name) for name in rubric_names()]
    texts = [d.query + rubric.answer_start(d) for rubric in rubrics for d in rubric.dimensions]
    words = (*rubrics[0].levels, "Yes", "No", *"ABCD0123456789")
    levels = [f" {word}" for word in words] * 200  # so frequent that each becomes one token
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special_tokens = [*special_tokens, *(named or {}).values()]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<pad>", *special_tokens], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts + levels, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", extra_special_tokens=named or special_tokens
    )


def save_qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: windowed vision attention, multimodal rotary positions, sides in multiples of 28."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

    tokenizer = make_tokenizer(QWEN_TOKENS)
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
        **_qwen_ids(tokenizer),
    )
    _save(folder, _made(Qwen2_5_VLForConditionalGeneration, config), tokenizer, CHATML)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112).save_pretrained(folder)
    return folder


def damaged(folder: Path, copy: Path, name: str, value: float) -> Path:
    """A copy of a checkpoint with one number of a weight replaced."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    weights[name].view(-1)[-1] = value
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def save_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: attention over whole images, layer norms and a plain MLP in the tower."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

    tokenizer = make_tokenizer(QWEN_TOKENS)
    vision = {"depth": 2, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "patch_size": 14, "hidden_size": 48}
    text = {**_text_config(tokenizer), "rope_parameters": _mrope()}
    config = Qwen2VLConfig(vision_config=vision, text_config=text, **_qwen_ids(tokenizer))
    _save(folder, _made(Qwen2VLForConditionalGeneration, config), tokenizer, CHATML)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112).save_pretrained(folder)
    return folder


def save_qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL: learned positions resampled to the grid, visual features added in several layers, interleaved axes."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = make_tokenizer(QWEN_TOKENS)
    config = Qwen3VLConfig(
        vision_config={**_qwen3_vision(), "depth": 3, "deepstack_visual_indexes": [0, 1]},
        text_config={**_text_config(tokenizer), "num_hidden_layers": 3, "head_dim": 12, "rope_parameters": _mrope()},
        **_qwen_ids(tokenizer),
    )
    return _save_qwen3(folder, Qwen3VLForConditionalGeneration, config, tokenizer)


def save_qwen3_5(folder: Path) -> Path:
    """Qwen3.5: linear attention in every second layer (in three of four of the real one), the tower of Qwen3-VL."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    tokenizer = make_tokenizer(QWEN_TOKENS)
    text = {**_text_config(tokenizer), **_linear_attention()}
    config = Qwen3_5Config(vision_config=_qwen3_vision(), text_config=text, **_qwen_ids(tokenizer))
    return _save_qwen3(folder, Qwen3_5ForConditionalGeneration, config, tokenizer)


def save_qwen3_5_moe(folder: Path) -> Path:
    """Qwen3.5 with experts, the language model of Qwen3-Next: each token takes two of four, and a shared one."""
    from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration

    tokenizer = make_tokenizer(QWEN_TOKENS)
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }
    text = {**_text_config(tokenizer), **_linear_attention(), **experts}
    config = Qwen3_5MoeConfig(vision_config=_qwen3_vision(), text_config=text, **_qwen_ids(tokenizer))
    return _save_qwen3(folder, Qwen3_5MoeForConditionalGeneration, config, tokenizer)


def _save_qwen3(folder: Path, model_class: Any, config: Any, tokenizer: Any) -> Path:
    from transformers import Qwen2VLImageProcessorPil

    _save(folder, _made(model_class, config), tokenizer, CHATML)
    Qwen2VLImageProcessorPil(patch_size=16, min_pixels=64 * 64, max_pixels=128 * 128).save_pretrained(folder)
    return folder


def save_glm4v(folder: Path) -> Path:
    """GLM-4.1V: multimodal rotary positions over half a head, norms behind attention and MLP too."""
    from transformers import Glm4vConfig, Glm4vForConditionalGeneration, Glm4vImageProcessorPil

    tokenizer = make_tokenizer([*CHAT_TOKENS, *GLM_TOKENS])
    config = Glm4vConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 14,
            "image_size": 112,
            "out_hidden_size": 48,
        },
        text_config={
            **_text_config(tokenizer),
            "rope_parameters": {**_mrope(), "mrope_section": [1, 1, 1], "partial_rotary_factor": 0.5},
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        image_start_token_id=tokenizer.convert_tokens_to_ids("<|begin_of_image|>"),
        image_end_token_id=tokenizer.convert_tokens_to_ids("<|end_of_image|>"),
        video_start_token_id=tokenizer.convert_tokens_to_ids("<|begin_of_video|>"),
        video_end_token_id=tokenizer.convert_tokens_to_ids("<|end_of_video|>"),
    )
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    _save(folder, _made(Glm4vForConditionalGeneration, config), tokenizer, chatml_with(image))
    bounds = {"shortest_edge": 2 * 56 * 56, "longest_edge": 2 * 112 * 112}
    Glm4vImageProcessorPil(size=bounds).save_pretrained(folder)
    _name_processor(folder, "Glm4vProcessor")
    return folder


def save_gemma4(folder: Path) -> Path:
    """Gemma 4: tokens of an image see each other both ways, embeddings per layer, layers that share keys and values."""
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration, Gemma4ImageProcessorPil

    tokenizer = make_tokenizer(CHAT_TOKENS, GEMMA4_TOKENS)
    config = Gemma4Config(
        vision_config={
            **_vision_config(),
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 8,
            "position_embedding_size": 64,
            "pooling_kernel_size": 2,
        },
        text_config={
            **_text_config(tokenizer),
            "num_hidden_layers": 4,
            "head_dim": 12,
            "global_head_dim": 16,
            "sliding_window": 24,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": len(tokenizer),
            "final_logit_softcapping": 20.0,
            "use_bidirectional_attention": "vision",
        },
        audio_config=None,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        boi_token_id=tokenizer.convert_tokens_to_ids("<|image>"),
        eoi_token_id=tokenizer.convert_tokens_to_ids("<image|>"),
        boa_token_id=tokenizer.convert_tokens_to_ids("<|audio>"),
        tie_word_embeddings=False,
    )
    _save(folder, _made(Gemma4ForConditionalGeneration, config), tokenizer, chatml_with("<|image|>"))
    Gemma4ImageProcessorPil(patch_size=8, max_soft_tokens=70, pooling_kernel_size=2).save_pretrained(folder)
    _name_processor(folder, "Gemma4Processor")
    return folder


def save_minicpm(folder: Path) -> Path:
    """MiniCPM-V 4.6: an overview and up to two slices of any size, the language model of Qwen3.5."""
    from transformers import (
        MiniCPMV4_6Config,
        MiniCPMV4_6ForConditionalGeneration,
        MiniCPMV4_6ImageProcessorPil,
    )

    tokenizer = make_tokenizer(CHAT_TOKENS, MINICPM_TOKENS)
    config = MiniCPMV4_6Config(
        vision_config={**_vision_config(), "image_size": 112, "patch_size": 8},
        text_config={"model_type": "qwen3_5_text", **_text_config(tokenizer), **_linear_attention()},
        insert_layer_id=0,
        image_size=112,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )
    _save(folder, _made(MiniCPMV4_6ForConditionalGeneration, config), tokenizer, chatml_with("<|image_pad|>"))
    MiniCPMV4_6ImageProcessorPil(max_slice_nums=2, scale_resolution=64, patch_size=8).save_pretrained(folder)
    _name_processor(folder, "MiniCPMV4_6Processor")
    return folder


def save_internvl(folder: Path) -> Path:
    """InternVL: up to four tiles of 56 x 56 and an overview."""
    from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration

    tokenizer = make_tokenizer(CHAT_TOKENS, INTERNVL_TOKENS)
    config = InternVLConfig(
        vision_config={**_vision_config(), "image_size": 56, "patch_size": 14},
        text_config={"model_type": "qwen2", **_text_config(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    _save(folder, _made(InternVLForConditionalGeneration, config), tokenizer, chatml_with("<IMG_CONTEXT>"))
    GotOcr2ImageProcessorPil(
        size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=4, image_mean=[0.485, 0.456, 0.406]
    ).save_pretrained(folder)
    _name_processor(folder, "InternVLProcessor", image_seq_length=4)
    return folder


def save_ovis2(folder: Path) -> Path:
    """Ovis2: tiles in a grid that tokens describe, visual tokens as mixtures of a visual vocabulary."""
    from transformers import Ovis2Config, Ovis2ForConditionalGeneration, Ovis2ImageProcessorPil

    tokenizer = make_tokenizer([*CHAT_TOKENS, *OVIS_TOKENS])
    config = Ovis2Config(
        vision_config={
            **_vision_config(),
            "image_size": 56,
            "patch_size": 14,
            "vocab_size": 40,
            "hidden_stride": 2,
            "initializer_range": 0.3,
        },
        text_config={"model_type": "qwen2", **_text_config(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(OVIS_TOKENS[2:]),
        vocab_size=len(tokenizer),
        hidden_size=48,
    )
    _save(folder, _made(Ovis2ForConditionalGeneration, config), tokenizer, chatml_with("<image>"))
    Ovis2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=4).save_pretrained(
        folder
    )
    _name_processor(folder, "Ovis2Processor", image_seq_length=4)
    return folder


def save_llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision: tiles on a padded canvas, visual tokens of the padding dropped, a token at each row's end."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessorPil,
    )

    tokenizer = make_tokenizer(CHAT_TOKENS, LLAVA_TOKENS)
    canvases = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = LlavaOnevisionConfig(
        vision_config=_siglip(),
        text_config={"model_type": "qwen2", **_text_config(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=canvases,
    )
    _save(folder, _made(LlavaOnevisionForConditionalGeneration, config), tokenizer, chatml_with("<image>"))
    LlavaOnevisionImageProcessorPil(size={"height": 56, "width": 56}, image_grid_pinpoints=canvases).save_pretrained(
        folder
    )
    _name_processor(folder, "LlavaOnevisionProcessor", num_image_tokens=16, vision_feature_select_strategy="full")
    return folder


def save_gemma3(folder: Path) -> Path:
    """Gemma 3: image tokens that see each other both ways, windows shorter than the prompt in every second layer."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil

    tokenizer = make_tokenizer(CHAT_TOKENS, GEMMA_TOKENS)
    config = Gemma3Config(
        vision_config=_siglip(),
        text_config={
            **_text_config(tokenizer),
            "head_dim": 12,
            "sliding_window": 24,
            "layer_types": ["sliding_attention", "full_attention"],
            "final_logit_softcapping": 20.0,
            "query_pre_attn_scalar": 12,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        mm_tokens_per_image=4,
    )
    model = _made(Gemma3ForConditionalGeneration, config)
    model.model.multi_modal_projector.mm_input_projection_weight.data.normal_()  # zeros, if left alone
    _save(folder, model, tokenizer, chatml_with("<start_of_image>"))
    Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, do_convert_rgb=True).save_pretrained(folder)
    _name_processor(folder, "Gemma3Processor", image_seq_length=4)
    return folder


def save_paligemma(folder: Path) -> Path:
    """PaliGemma: every token of the prompt sees every other, so nothing can be shared between two prompts."""
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipImageProcessorPil

    tokenizer = make_tokenizer(CHAT_TOKENS, {"image_token": "<image>"})
    tokenizer.bos_token = "<|im_start|>"
    config = PaliGemmaConfig(
        vision_config=_siglip(),
        text_config={"model_type": "gemma", **_text_config(tokenizer), "head_dim": 12},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vocab_size=len(tokenizer),
        projection_dim=48,
        hidden_size=48,
    )
    _save(folder, _made(PaliGemmaForConditionalGeneration, config), tokenizer, chatml_with("<image>"))
    SiglipImageProcessorPil(size={"height": 56, "width": 56}, image_seq_length=16).save_pretrained(folder)
    _name_processor(folder, "PaliGemmaProcessor")
    return folder


def save_idefics3(folder: Path) -> Path:
    """Idefics3: tiles of 56 x 56 and an overview, Lanczos, a template without a space after `Assistant:`."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil

    tokenizer = make_tokenizer(IDEFICS_TOKENS)
    config = Idefics3Config(
        vision_config={**_vision_config(), "image_size": 56, "patch_size": 14},
        text_config={"model_type": "llama", **_text_config(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    _save(folder, _made(Idefics3ForConditionalGeneration, config), tokenizer, USER_ASSISTANT)
    Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}).save_pretrained(folder)
    _name_processor(folder, "Idefics3Processor", image_seq_len=4)
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


def _vision_config() -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def _siglip() -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        **_vision_config(),
        "image_size": 56,
        "patch_size": 14,
        "vision_use_head": False,
    }


def _qwen3_vision() -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 16,
        "out_hidden_size": 48,
        "num_position_embeddings": 64,
    }


def _linear_attention() -> dict[str, Any]:
    return {
        "layer_types": ["linear_attention", "full_attention"],
        "initializer_range": 0.15,  # gates and experts make more of a rounding error than attention does
        "head_dim": 12,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "rope_parameters": _mrope(),
    }


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _name_processor(folder: Path, name: str, **settings: Any) -> None:
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": name, **settings}))


def _mrope() -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}


def _made(model_class: Any, config: Any) -> Any:
    """A model with the random weights that it always has."""
    import torch

    torch.manual_seed(0)
    return model_class(config)


def _save(folder: Path, model: Any, tokenizer: Any, chat_template: str) -> None:
    tokenizer.chat_template = chat_template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "assessor.toml").write_text(f'rubric = "{RUBRIC}"\nprompt_version = 2\ndtype = "float32"\n')
