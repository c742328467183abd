"""The project's own prompts -> tokenizer, image processor and configuration of the demo model, all untrained.

A Qwen2.5-VL in small: the same classes, chat form and special tokens; 4.3 million parameters instead of 8 billion.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLConfig, Qwen2VLImageProcessorPil

SIZE = 112
"""Pixels of the square scenes that the model is trained on; other images are resized to about as many pixels."""
PATCH, MERGE, FRAMES = 14, 2, 2
VISUAL_TOKENS = (SIZE // PATCH // MERGE) ** 2
VOCABULARY = 2048
"""Upper bound: 1,799 are found with the marks. A token costs 768 bytes of weights."""

TAGS = ("think", "caption", "reasoning", "rating", "answer")
"""Of written answers. Both marks of each are one token, which no text of the corpus falls apart into."""
SINGLE_WORDS = """
top middle bottom left right whole all none part yes no Yes No true false
bad poor fair good excellent
zero one two three four five six seven eight nine ten
red orange yellow green blue purple pink brown grey white black teal cyan magenta lime
sofa chair table lamp bookcase chest plant window wall floor curtains rug
sofas chairs tables lamps bookcases chests plants
Sharpness Color Noise Composition Overall Layout Harmony Lighting Distortion Quality
sharpness color noise composition overall layout harmony lighting distortion quality
sharp blurred blurry noisy clean blocks warped wavy tilted upright floating bunched overlapping spread evenly even
uneven dark bright dim muted saturated related clashing colours hues light furniture stands stand
""".split()
"""Words that answers are made of: each is one token, behind a space and at the beginning of a line."""

PROCESSOR_CLASS = "PaddleOCRVLProcessor"
"""Does to images what Qwen2_5_VLProcessor does, but has no video part, which needs torchvision."""

SPECIAL_TOKENS = {
    "pad_token": "<|endoftext|>",
    "turn_start_token": "<|im_start|>",
    "turn_end_token": "<|im_end|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}

CHAT_TEMPLATE = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_tokenizer(
    prompts: Sequence[str], levels: Sequence[str], vocabulary: int = VOCABULARY
) -> PreTrainedTokenizerBase:
    """Byte-level BPE on prompts and a page about rooms; any other text falls apart into shorter pieces.

    Raises ValueError unless each level word, with its leading space, and each of SINGLE_WORDS are one token.
    """
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    page = resources.files("iqa_core.demo").joinpath("words.txt").read_text(encoding="utf-8")
    single = sorted({form for word in SINGLE_WORDS for form in (word, f" {word}")} | {f" {word}" for word in levels})
    trained = Qwen2Tokenizer().train_new_from_iterator(
        [page, *prompts, *single * 200],  # so frequent that they are merged first
        vocabulary,
        new_special_tokens=list(SPECIAL_TOKENS.values())[1:],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    merges = json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]
    tokenizer = Qwen2Tokenizer(
        vocab=trained.get_vocab(),
        merges=[tuple(pair) for pair in merges],
        eos_token=SPECIAL_TOKENS["turn_end_token"],
        extra_special_tokens={name: token for name, token in SPECIAL_TOKENS.items() if name != "pad_token"},
        chat_template=CHAT_TEMPLATE,
        processor_class=PROCESSOR_CLASS,
    )
    marks = [mark for tag in TAGS for mark in (f"<{tag}>", f"</{tag}>")]
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in marks])
    split = [text for text in (*single, *marks) if len(tokenizer(text)["input_ids"]) != 1]
    if split:
        raise ValueError(f"{split} are not one token each in a vocabulary of {vocabulary}")
    return tokenizer


def make_image_processor() -> Qwen2VLImageProcessorPil:
    """Qwen2-VL's, on Pillow; bounds keep an image of any size near the pixels of a scene."""
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=FRAMES,
        min_pixels=SIZE * SIZE * 3 // 4,
        max_pixels=SIZE * SIZE,
    )


def make_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """Vision 5 layers x 160, text 4 layers x 192."""
    from transformers import Qwen2_5_VLConfig

    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL_TOKENS.items()}
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 5,
            "hidden_size": 160,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES,
            "window_size": SIZE,
            "out_hidden_size": 192,
            "fullatt_block_indexes": [1, 4],
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 448,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": ids["pad_token"],
            "eos_token_id": ids["turn_end_token"],
            "pad_token_id": ids["pad_token"],
        },
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        vision_start_token_id=ids["vision_start_token"],
        vision_end_token_id=ids["vision_end_token"],
    )
