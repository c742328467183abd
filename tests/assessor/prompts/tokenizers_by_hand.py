"""Tokenizers of the great families, a thousand tokens each, with the oddities that released checkpoints have."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.assessor.tiny import (
    CHAT_TOKENS,
    GEMMA_TOKENS,
    IDEFICS_TOKENS,
    INTERNVL_TOKENS,
    LLAVA_TOKENS,
    OVIS_TOKENS,
    QWEN_TOKENS,
    make_tokenizer,
)

WORDS = "the photo of a room show does this picture is good bad yes no User Assistant".split()
SPECIAL = ["<s>", "</s>", "<image>", "<start_of_image>", "<|im_start|>", "<|im_end|>"]
LETTERS = sorted({chr(code) for code in range(33, 127)} | {"▁", "\n", "é", "犬"})


def _merged(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges that put words together letter by letter."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        for end in range(1, len(word)):
            merges[word[:end], word[end]] = None
    return [left + right for left, right in merges], list(merges)


def sentence_piece_bpe(dummy_prefix: str) -> Any:
    """BPE over `▁` with bytes for what is no piece.

    dummy_prefix: none, normaliser (Llama), first or always (Metaspace).
    As in Gemma's vocabulary, `<b>` is an added token that is not special, and merges would make it of its letters.
    """
    pieces, merges = _merged([f"▁{word}" for word in WORDS] + ["<b>", "▁▁", "\n\n"])
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = list(dict.fromkeys(["<unk>", *SPECIAL, *all_bytes, *LETTERS, *pieces]))
    model = models.BPE(
        vocab={piece: i for i, piece in enumerate(vocabulary)},
        merges=merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(" ", "▁")
    if dummy_prefix == "none":
        tokenizer.normalizer = spaces
    elif dummy_prefix == "normaliser":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=dummy_prefix, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _finished(tokenizer, ["<b>", "▁▁", "\n\n"])


def unigram() -> Any:
    """SentencePiece's other model, behind NFKC: `＜` becomes `<`, any piece found in a text, few letters known."""
    pieces = ["<unk>", *SPECIAL, *LETTERS, *(f"▁{word}" for word in WORDS)]
    model = models.Unigram([(piece, 0.0 if piece in SPECIAL else -1.0 - 1 / len(piece)) for piece in pieces], unk_id=0)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return _finished(tokenizer, [])


def spaces_added() -> Any:
    """GPT-NeoX's way: runs of spaces are added tokens; one of them, as in Phi 3, takes the spaces behind it."""
    tokenizer = make_tokenizer(QWEN_TOKENS)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    number = len(tokenizer)
    for content, special in (("   ", False), ("<|end|>", True), ("<think>", False)):
        added = {"single_word": False, "lstrip": False, "normalized": content.isspace()}
        token = {"id": number, "content": content, "rstrip": content == "<|end|>", "special": special, **added}
        backend["added_tokens"].append(token)
        number += 1
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)), pad_token="<pad>")


def _finished(tokenizer: Tokenizer, plain: list[str]) -> Any:
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ["<unk>", *SPECIAL]])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "qwen": lambda: make_tokenizer(QWEN_TOKENS),
    "internvl": lambda: make_tokenizer(CHAT_TOKENS, INTERNVL_TOKENS),
    "ovis2": lambda: make_tokenizer([*CHAT_TOKENS, *OVIS_TOKENS]),
    "llava": lambda: make_tokenizer(CHAT_TOKENS, LLAVA_TOKENS),
    "gemma3": lambda: make_tokenizer(CHAT_TOKENS, GEMMA_TOKENS),
    "idefics": lambda: make_tokenizer(IDEFICS_TOKENS),
    "spaces": spaces_added,
    "gemma": lambda: sentence_piece_bpe("none"),
    "llama": lambda: sentence_piece_bpe("normaliser"),
    "metaspace": lambda: sentence_piece_bpe("first"),
    "always": lambda: sentence_piece_bpe("always"),
    "unigram": unigram,
}
