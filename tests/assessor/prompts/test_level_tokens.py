"""Level words in context -> token ids, with tokenizers of both great families."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from iqa_core.assessor.prompts.level_tokens import level_token_ids
from iqa_core.errors import CallerError
from iqa_core.rubrics import load_rubric, rubric_names
from tests.assessor.tiny import make_tokenizer

pytestmark = pytest.mark.slow

LEVELS = ("bad", "poor", "fair", "good", "excellent")
BEFORE = "The quality is"


def sentence_piece(pieces: list[str]) -> Any:
    """A Unigram tokenizer with SentencePiece's `▁` for a space; what is no piece falls apart into letters."""
    from transformers import PreTrainedTokenizerFast

    letters = sorted({letter for piece in [*pieces, BEFORE, *LEVELS] for letter in piece} | {"▁"})
    vocabulary = [("<unk>", 0.0), *((piece, -1.0) for piece in pieces), *((letter, -10.0) for letter in letters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def word_pieces(vocabulary: list[str], merges: list[tuple[str, str]]) -> Any:
    """A byte-level BPE without any split at spaces, so that merges may cross them."""
    from transformers import PreTrainedTokenizerFast

    ids = {piece: i for i, piece in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *vocabulary])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("name", rubric_names())
def test_byte_level_words_are_read_with_their_space(name: str) -> None:
    tokenizer, rubric = make_tokenizer([]), load_rubric(name)
    for dimension in rubric.dimensions:
        ids = level_token_ids(tokenizer, rubric.answer_start(dimension), rubric.levels)
        assert [tokenizer.decode([token]) for token in ids] == [f" {word}" for word in rubric.levels]


def test_sentence_piece_words_are_read_with_their_mark() -> None:
    tokenizer = sentence_piece([f"▁{word}" for word in LEVELS])
    ids = level_token_ids(tokenizer, BEFORE, LEVELS)
    assert tokenizer.convert_ids_to_tokens(ids) == [f"▁{word}" for word in LEVELS]


def test_a_word_of_several_tokens_is_read_by_its_first() -> None:
    tokenizer = sentence_piece(["▁bad", "▁poor", "▁fair", "▁good", "▁ex"])
    assert tokenizer.convert_ids_to_tokens(level_token_ids(tokenizer, BEFORE, LEVELS))[-1] == "▁ex"


def test_words_that_begin_alike_are_named() -> None:
    """`poor` and `excellent` are no pieces here: both begin with the bare space mark."""
    with pytest.raises(CallerError, match=r"'poor', 'excellent' begin with the same token"):
        level_token_ids(sentence_piece(["▁bad", "▁fair", "▁good"]), BEFORE, LEVELS)


def test_a_word_that_changes_the_tokens_before_it_is_named() -> None:
    tokenizer = word_pieces(["sĠ", "sĠg"], [("s", "Ġ"), ("sĠ", "g")])
    with pytest.raises(CallerError, match=r"'bad' does not begin a token of its own"):
        level_token_ids(tokenizer, BEFORE, LEVELS)
