"""Texts of strangers inside a template's markup -> token ids, for every kind of tokenizer."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from iqa_core.assessor.prompts.plain_text import PlainText, TextRefused
from iqa_core.errors import CallerError
from tests.assessor.prompts.tokenizers_by_hand import LETTERS, TOKENIZERS

pytestmark = pytest.mark.slow

ORDINARY = (
    "a photo of a room",
    'it says "no"',
    "12 dogs, 3 cats",
    "does this show",
    "two\nlines",
    "a",
    "(b)",
    "is it?",
)
ODD = (
    "nul \0 here",
    "\u202eright to left\u202c and \u200bzero\u200dwidth\ufeff",
    "e\u0301 and \u1112\u1161\u11ab",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 " * 9,
    "\t\t tabs\r\n\r\n  ends in spaces   ",
    "{prompt} {other} {{x}} {%s}",
    "<0x0A> <0x00> ▁▁ Ġ Ċ",
    "x" * 2000,
    "犬" * 2000,
    "<|im_end|>" * 200,
)


@cache
def made(name: str) -> tuple[Any, PlainText]:
    tokenizer = TOKENIZERS[name]()
    return tokenizer, PlainText(tokenizer)


def markup_of(tokenizer: Any) -> list[str]:
    """Every added token that is more than white space."""
    return [text for text in map(str, tokenizer.added_tokens_decoder.values()) if not text.replace("▁", " ").isspace()]


def around(tokenizer: Any) -> list[str]:
    """Templates that put markup, letters, a quote, a line's end or nothing around a text, which stands at `@@`."""
    first, *_, last = markup_of(tokenizer)
    return [f"{first}user\nIs it @@?{last}\nIs", f"{first}@@{last}", f'{first}"@@"\n{last}no', f"Is\n@@\nIs {first}"]


def filled(plain: PlainText, template: str, text: str) -> list[int]:
    marked = plain.named(template.replace("@@", plain.marker(0)))
    return list(plain.encode(marked.replace(plain.marker(0), text)))


def known(name: str, text: str) -> bool:
    """Whether a tokenizer has tokens for all of a text's characters; those with bytes have."""
    return name != "unigram" or set(text.replace(" ", "▁")) <= set(LETTERS)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_text_is_tokenised_with_all_that_is_around_it(name: str, text: str) -> None:
    tokenizer, plain = made(name)
    for template in around(tokenizer):
        expected = tokenizer.encode(template.replace("@@", text), add_special_tokens=False)
        assert filled(plain, template, text) == expected


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_token_of_the_markup_comes_out_of_a_text(name: str) -> None:
    """Every added token's letters, alone, in words, cut in two, in full width, and all of them at once."""
    tokenizer, plain = made(name)
    markup = markup_of(tokenizer)
    assert len(markup) > 4
    texts = [form.format(one) for one in markup for form in ("{}", "a {} b", "{0}{0}", "\n{}\n")]
    texts += [f"{one[:-1]}\u200b{one[-1:]}" for one in markup] + ["".join(markup), " ".join(markup)]
    if name == "unigram":
        texts = [text.replace("\u200b", "") for text in texts] + ["＜image＞", "＜｜im_end｜＞"]
    for template in around(tokenizer):
        expected = plain.structure(filled(plain, template, "a room"))
        for text in (*texts, *(odd for odd in ODD if known(name, odd))):
            assert plain.structure(filled(plain, template, text)) == expected, text


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name not in {"llama", "always", "unigram"}])
def test_the_characters_stay_what_they_are(name: str) -> None:
    """Decoded, the prompt is the text in its place. (Left out: those that put a space behind any markup.)"""
    tokenizer, plain = made(name)
    template = around(tokenizer)[0]
    for text in (*ODD, *markup_of(tokenizer), *ORDINARY):
        found = tokenizer.decode(filled(plain, template, text), clean_up_tokenization_spaces=False)
        # SentencePiece has one sign for both
        assert found == template.replace("@@", text if name not in {"gemma", "metaspace"} else text.replace("▁", " "))


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40),
    st.sampled_from(["qwen", "gemma", "spaces"]),
)
def test_any_text_keeps_to_its_place(text: str, name: str) -> None:
    tokenizer, plain = made(name)
    template = around(tokenizer)[0]
    ids = filled(plain, template, text)
    assert plain.structure(ids) == plain.structure(filled(plain, template, "a"))
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == template.replace("@@", text)


def test_a_text_that_was_composed_otherwise_is_composed_as_the_tokenizer_composes() -> None:
    tokenizer, plain = made("unigram")
    ids = filled(plain, around(tokenizer)[0], "e\u0301")
    assert ids == filled(plain, around(tokenizer)[0], unicodedata.normalize("NFC", "e\u0301"))


def test_an_unknown_character_is_seen_in_the_structure() -> None:
    tokenizer, plain = made("unigram")
    template = around(tokenizer)[0]
    assert plain.structure(filled(plain, template, "\U0001f436")) != plain.structure(filled(plain, template, "a"))


def test_half_a_surrogate_pair_is_refused() -> None:
    tokenizer, plain = made("qwen")
    with pytest.raises(TextRefused, match="surrogate"):
        filled(plain, around(tokenizer)[0], "a \ud83d b")


def test_white_space_around_a_text_is_tokenised_as_anywhere() -> None:
    tokenizer, plain = made("spaces")
    template = around(tokenizer)[0]
    text = "   a   room\n\n"
    assert filled(plain, template, text) == tokenizer.encode(template.replace("@@", text), add_special_tokens=False)


def test_names_are_drawn_anew_for_each_copy() -> None:
    first, second = PlainText(TOKENIZERS["qwen"]()), PlainText(TOKENIZERS["qwen"]())
    assert first.named("<|im_end|>") != second.named("<|im_end|>")
    assert first.structure(second.encode(first.named("<|im_end|>"))) == []


def test_the_image_placeholder_is_structure_though_it_is_no_added_token() -> None:
    tokenizer = TOKENIZERS["gemma"]()
    word = tokenizer.convert_tokens_to_ids("▁room")
    plain = PlainText(tokenizer, [word])
    assert plain.structure(plain.encode("a room")) == [word]


class Slow:
    """A tokenizer without the library's own text, as those in plain Python are."""

    unk_token_id = None


def byte_pieces() -> Any:
    """A Unigram vocabulary with a piece for each byte, which the library finds in a text's letters too."""
    from transformers import PreTrainedTokenizerFast

    pieces = [
        ("<unk>", 0.0),
        *((f"<0x{byte:02X}>", 0.0) for byte in range(256)),
        *((letter, -5.0) for letter in LETTERS),
    ]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True)), unk_token="<unk>"
    )


def exclamation_mark() -> Any:
    """A tokenizer that fills up with `!`, as CLIP's does: in a text it would be no token at all."""
    tokenizer = TOKENIZERS["qwen"]()
    tokenizer.add_special_tokens({"pad_token": "!"})
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (Slow(), "fast tokenizer"),
        (byte_pieces(), "takes the letters '<0x00>' for a token"),
        (exclamation_mark(), "takes the letters '!' for a token"),
    ],
)
def test_a_tokenizer_that_cannot_be_made_safe_is_refused(tokenizer: Any, message: str) -> None:
    with pytest.raises(CallerError, match=message):
        PlainText(tokenizer)
