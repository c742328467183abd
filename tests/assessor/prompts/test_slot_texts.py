"""An image's texts in K prompts -> the tokens of their ends, and what a text may not change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from iqa_core.assessor.prompts.plain_text import PlainText, TextRefused
from iqa_core.assessor.prompts.slot_texts import ENDINGS, LONG_TEXT, SlotTails, shared_start
from iqa_core.errors import CallerError
from iqa_core.slots import SAMPLE_TEXT
from tests.assessor.prompts.tokenizers_by_hand import TOKENIZERS

pytestmark = pytest.mark.slow

CHATML = "<|im_start|>user\n<|image_pad|>\n{query}<|im_end|>\n<|im_start|>assistant\n{answer}"
WORDS = "User: <image>\n{query} Assistant: {answer}"
QUERIES = ('Does this show "{prompt}"?', "Is {prompt} good, and {style}?", "Is the picture good?")

SENTENCE_PIECE = ("gemma", "llama", "metaspace", "always", "unigram")


def made(
    tokenizer: Any, template: str, queries: Sequence[str], answer: str = "The answer is", **more: Any
) -> SlotTails:
    plain = PlainText(tokenizer)
    markers = {slot: plain.marker(i) for i, slot in enumerate(("prompt", "style"))}
    return SlotTails(plain, markers, [whole(template, query, answer, markers) for query in queries], **more)


def whole(template: str, query: str, answer: str, texts: dict[str, str]) -> str:
    query = query.replace("{prompt}", "\0p").replace("{style}", "\0s")
    return template.format(query=query, answer=answer).replace("\0p", texts["prompt"]).replace("\0s", texts["style"])


@pytest.mark.parametrize(("name", "template"), [("qwen", CHATML), *((n, WORDS) for n in SENTENCE_PIECE)])
def test_ends_are_those_of_the_whole_prompts(name: str, template: str) -> None:
    """And begin behind the last markup that all prompts share before the first of them differs: the image's own."""
    tokenizer = TOKENIZERS[name]()
    tails = made(tokenizer, template, QUERIES)
    image = tokenizer.convert_tokens_to_ids("<image>" if template == WORDS else "<|image_pad|>")
    for texts in ({"prompt": "a dog", "style": "12"}, {"prompt": 'it says "no"', "style": "dark"}):
        for query, tail in zip(QUERIES, tails(texts), strict=True):
            expected = tokenizer.encode(whole(template, query, "The answer is", texts), add_special_tokens=False)
            assert list(tail) == expected[expected.index(image) + 1 :]


def test_a_placeholder_inside_a_text_stays_its_letters() -> None:
    tokenizer = TOKENIZERS["qwen"]()
    tails = made(tokenizer, CHATML, QUERIES[1:2])
    [found] = tails({"prompt": "{style} and {prompt}", "style": "{prompt}"})
    assert "Is {style} and {prompt} good, and {prompt}?" in tokenizer.decode(found)


def test_white_space_around_a_text_is_taken_off() -> None:
    tails = made(TOKENIZERS["qwen"](), CHATML, QUERIES)
    assert tails({"prompt": " \n a dog\t", "style": "dark "}) == tails({"prompt": "a dog", "style": "dark"})


@pytest.mark.parametrize(("name", "template"), [("qwen", CHATML), ("gemma", WORDS)])
def test_no_text_changes_how_an_answer_is_read(name: str, template: str) -> None:
    tails = made(TOKENIZERS[name](), template, QUERIES)
    ends = [tail[-5:] for tail in tails.sample]
    for text in (*ENDINGS, "<|im_end|>", "<image>", "The answer is", '"', "?", "<", "a" * 2000):
        assert [tail[-5:] for tail in tails({"prompt": text, "style": text})] == ends


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  ", "blank"),
        ("a \ud83d b", "surrogate"),
        ("a dog \U0001f436", "no token"),
    ],
)
def test_a_text_that_cannot_be_asked_about_is_refused(text: str, message: str) -> None:
    tails = made(TOKENIZERS["unigram"](), WORDS.replace(" ", ""), QUERIES)
    with pytest.raises(TextRefused, match=message):
        tails({"prompt": "a dog", "style": text})


def test_a_text_that_merges_with_what_the_answer_follows_is_refused() -> None:
    """The template ends in the slot and a mark that most texts leave alone: `▁good` would swallow the rest."""
    tails = made(TOKENIZERS["gemma"](), "<image>\n{query}{answer}", ["{prompt}{style}"], answer="d")
    with pytest.raises(TextRefused, match="the answer is read"):
        tails({"prompt": "is", "style": "it is goo"})


def test_an_answer_right_behind_a_text_is_refused() -> None:
    with pytest.raises(CallerError, match="right behind a text"):
        made(TOKENIZERS["gemma"](), "<image>\n{query}{answer}", ["Is it {prompt}"], answer="")


def test_words_for_markup_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made(TOKENIZERS["qwen"](), CHATML, QUERIES)
        assert not caplog.records
        made(TOKENIZERS["gemma"](), WORDS, QUERIES)
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_encoded_texts_are_kept_up_to_a_bound() -> None:
    tails = made(TOKENIZERS["qwen"](), CHATML, QUERIES, known_tokens=300)
    first = tails({"prompt": "a dog", "style": "dark"})
    assert tails({"prompt": "a dog", "style": "dark"}) is first
    for number in range(50):
        tails({"prompt": f"a dog {number}", "style": "dark"})
        assert sum(len(tail) for known in tails._known.values() for tail in known) == tails._num_known <= 300
    again = tails({"prompt": "a dog", "style": "dark"})
    assert again == first
    assert again is not first


def test_sample_texts_differ_in_length() -> None:
    tails = made(TOKENIZERS["qwen"](), CHATML, QUERIES)
    short, long = (tails(dict.fromkeys(tails.slots, text)) for text in (SAMPLE_TEXT, LONG_TEXT))
    assert short == tails.sample
    assert sum(map(len, long)) > sum(map(len, short))


@pytest.mark.parametrize(
    ("texts", "expected"), [(["abc"], "abc"), (["abd", "abc", "ab"], "ab"), (["x", "y"], ""), (["", "a"], "")]
)
def test_the_start_that_texts_share(texts: list[str], expected: str) -> None:
    assert shared_start(texts) == expected
