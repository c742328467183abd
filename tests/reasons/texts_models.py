"""A tiny encoder of random weights with a vocabulary of a dozen words, as a folder of transformers."""

from __future__ import annotations

from pathlib import Path

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "dark", "bright", "hall", "room", "is", "the")
MAX_TOKENS = 12


def save_tiny_texts_model(folder: Path) -> Path:
    """The folder, written."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=MAX_TOKENS, **shape)
    BertModel(config).save_pretrained(folder)
    return folder
