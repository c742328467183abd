"""Random and mutated answers -> a value or a code, never an exception, and a value exactly where the grammar has one.

Tests iqa_core/written/parsing.py and iqa_core/written/writing.py.
"""

from __future__ import annotations

import os
import random
import re
import time
from dataclasses import replace

import pytest

from iqa_core.written.cursor import RESERVED
from iqa_core.written.form import Form, Grammar
from iqa_core.written.parsing import CODES, Parsed, parsed
from iqa_core.written.writing import written_as
from tests.written.forms import ATTRIBUTES, FORMS, JSON, NUMBER, PERCEPTION, PLAIN_NUMBER

PIECES = (
    *RESERVED,
    *("<", ">", "/", "{", "}", '"', "\\", ":", ",", ", ", " ", "\n", "\t", "\u00a0", "\x00", "\ud800", "é", "😀"),
    *("0", "1", "3.5", "5", "5.01", "12", "3,5", "4/5", "４", "NaN", "1e1", "-", ".", "rating", "reasoning"),
    *("Sharpness: 4, ", "Color: 3.5, ", "Overall: 3.60", '"rating": 3.5', "soft edges", "\\u00", "\\ud83d"),
)
WORDS = ("soft", "edges", "and", "3.5", "of 5", "a < b", "<b>", "é", "😀", '"so"', "back\\slash", "{x}", ",", "0,5")
"""Of texts that are written: none is a tag."""

TEXT = f"(?:(?!{'|'.join(map(re.escape, RESERVED))}).)*"
SPACE = "[ \\t\\r\\n]*"
NUM = r"(?:[1-4](?:\.[0-9]{1,2})?|5(?:\.00?)?)"
LANGUAGES = {
    ATTRIBUTES: f"{SPACE}<think>{TEXT}</think>{SPACE}"
    + ", ".join(f"{one.label}: {NUM}" for one in ATTRIBUTES.attributes)
    + SPACE,
    PERCEPTION: f"{SPACE}<caption>{TEXT}</caption>{SPACE}<reasoning>{TEXT}</reasoning>{SPACE}"
    f"<rating>{SPACE}{NUM}{SPACE}</rating>{SPACE}",
    NUMBER: f"{SPACE}<think>{TEXT}</think>{SPACE}<answer>{SPACE}{NUM}{SPACE}</answer>{SPACE}",
    PLAIN_NUMBER: f"{SPACE}<answer>{SPACE}{NUM}{SPACE}</answer>{SPACE}",
}
"""The grammars once more, as expressions: slow for strangers' texts, and written in another way."""


def spoken(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))


def valid(form: Form, rng: random.Random) -> tuple[str, tuple[float, ...], str | None, str | None]:
    """An answer of the form, and what it says."""
    values = tuple(
        round(rng.uniform(one.range.low, one.range.high), rng.randint(0, one.decimals)) for one in form.attributes
    )
    caption = spoken(rng) if form.grammar is Grammar.PERCEPTION else None
    reasoning = spoken(rng) if form.thought or caption else "\n".join(spoken(rng) for _ in form.reasoning) or None
    return written_as(values, form, caption, reasoning), values, caption, reasoning


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to four places changed: dropped, doubled, swapped, or replaced by a piece of a grammar."""
    for _ in range(rng.randint(1, 4)):
        begin = rng.randint(0, len(text))
        end = min(len(text), begin + rng.choice((0, 1, 1, 2, 5, 30)))
        middle = rng.choice(("", text[begin:end] * 2, text[begin:end][::-1], rng.choice(PIECES)))
        text = text[:begin] + middle + text[end:]
    return text[: rng.randint(0, len(text))] if rng.random() < 0.1 else text


def attempt(seed: int) -> None:
    """A random or mutated answer is parsed by some form."""
    rng = random.Random(seed)
    form = FORMS[rng.choice(list(FORMS))]
    text = "".join(rng.choices(PIECES, k=rng.randint(0, 30))) if seed % 4 == 0 else mutated(valid(form, rng)[0], rng)
    if form in LANGUAGES:
        is_valid = re.fullmatch(LANGUAGES[form], text, re.DOTALL) is not None
        assert isinstance(parsed(text, form), Parsed) == is_valid, (seed, text)
    is_lenient = rng.random() < 0.3
    form = replace(form, last_answer=is_lenient, strip_prefix=is_lenient)
    found = parsed(text, form, is_cut=rng.random() < 0.3)
    if not isinstance(found, Parsed):
        code, _, name = found.code.partition(":")
        assert code in CODES, (seed, text)
        assert name in {"", *(one.name for one in form.attributes), "reasoning", *form.reasoning}, (seed, text)
        return
    for value, (begin, end), attribute in zip(found.values, found.spans, form.attributes, strict=True):
        assert attribute.range.low <= value <= attribute.range.high, (seed, text)
        assert value == float(text[begin:end]), (seed, text)


@pytest.mark.slow
def test_5_000_texts_have_a_value_or_a_code() -> None:
    for seed in range(5_000):
        attempt(seed)


@pytest.mark.chaos
def test_100_000_texts_have_a_value_or_a_code() -> None:
    """In a time box (IQA_CHAOS_SECONDS), as many as half of it holds."""
    end = time.monotonic() + float(os.environ.get("IQA_CHAOS_SECONDS", "600")) / 2
    for seed in range(5_000, 105_000):
        attempt(seed)
        if time.monotonic() > end:
            break


@pytest.mark.parametrize("name", FORMS)
def test_what_is_written_is_read_again(name: str) -> None:
    rng = random.Random(name)
    for _ in range(100):
        text, values, caption, reasoning = valid(FORMS[name], rng)
        found = parsed(text, FORMS[name])
        assert isinstance(found, Parsed)
        assert (found.values, found.caption, found.reasoning) == (values, caption, reasoning)


@pytest.mark.parametrize(
    ("form", "values", "caption", "reasoning"),
    [
        (NUMBER, (5.01,), None, "a"),
        (NUMBER, (float("nan"),), None, "a"),
        (NUMBER, (3.0, 4.0), None, "a"),
        (NUMBER, (3.0,), None, "a <rating>"),
        (NUMBER, (3.0,), None, " a"),
        (NUMBER, (3.0,), "a caption", "a"),
        (PLAIN_NUMBER, (3.0,), None, "a"),
        (JSON, (3.0,), None, "one line"),
        (PERCEPTION, (3.0,), "</caption>", "a"),
    ],
)
def test_what_a_form_cannot_say_is_not_written(
    form: Form, values: tuple[float, ...], caption: str | None, reasoning: str | None
) -> None:
    with pytest.raises(ValueError, match=r"parse|place|argument|short"):
        written_as(values, form, caption, reasoning)
