"""Base64 in every spelling that senders have -> the same bytes; what is no such text is refused by name."""

from __future__ import annotations

import base64
import tracemalloc
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from iqa_core.base64_text import PIECE_CHARACTERS, bytes_of, bytes_of_pieces

DATA = bytes(range(256)) * 8
TEXT = base64.b64encode(DATA).decode()
HEADS = ["", "data:image/png;base64,", "DATA:;charset=utf-8;BASE64,", " data:image/jpeg; base64 ,\n"]


def wrapped(text: str, width: int, line_break: str) -> str:
    return line_break.join(text[at : at + width] for at in range(0, len(text), width))


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\t", "\n\t  ", " "])
@pytest.mark.parametrize("width", [1, 4, 64, 76, 79, 80, 128, 5000])
@pytest.mark.parametrize("around", [("", ""), ("\n", "\n"), ("  ", "\r\n")])
def test_line_breaks_are_taken_out_wherever_they_stand(line_break: str, width: int, around: tuple[str, str]) -> None:
    assert bytes_of(wrapped(TEXT, width, line_break).join(around)) == DATA


@settings(max_examples=60)
@given(
    data=st.binary(max_size=200),
    breaks=st.sets(st.integers(0, 280), max_size=8),
    head=st.sampled_from(HEADS),
    is_url_safe=st.booleans(),
    is_padded=st.booleans(),
)
@example(b"", set(), "", False, True)
@example(b"\xfb\xff\xfe", {0, 1, 4}, "", True, True)
def test_every_spelling_has_the_same_bytes(
    data: bytes, breaks: set[int], head: str, is_url_safe: bool, is_padded: bool
) -> None:
    text = (base64.urlsafe_b64encode if is_url_safe else base64.b64encode)(data).decode()
    text = text if is_padded else text.rstrip("=")
    broken = "".join(("\r\n" if at in breaks else "") + character for at, character in enumerate(text))
    assert bytes_of(head + broken) == data
    if head:
        assert bytes_of(head + quote(broken, safe="")) == data


@settings(max_examples=60)
@given(data=st.binary(min_size=100, max_size=300))
@example(b"\xfb\xef\xbe" * 40)
def test_a_file_whose_plus_signs_became_spaces_is_no_other_file(data: bytes) -> None:
    text = base64.b64encode(b"\x89PNG" + data + b"IEND").decode()
    assume("+" in text)
    with pytest.raises(ValueError, match="not base64"):
        bytes_of(text.replace("+", " "))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT[:-3], "it was cut"),
        (f"{TEXT[:8]} {TEXT[9:]}", r"a \+ that was sent"),
        (f"{TEXT[:80]} {TEXT[81:]}", r"a \+ that was sent"),
        (f"{TEXT[:-8]} {TEXT[-7:]}", r"a \+ that was sent"),
        ("ab+/ab-_", "two alphabets"),
        ("AA=", "not base64"),
        ("AAAA=", "not base64"),
        ("AA==AAAA", "not base64"),
        ("A", "no whole number"),
        ("{AAA}", "not base64"),
        ("AAA%3D", "not base64"),
        ("ÄÖÜß", "ASCII"),
        ("AAAA\x00", "not base64"),
        ("AAAA\u2028AAAA", "ASCII"),
        ("data:image/png,AAAA", "must have ;base64,"),
        ("data:image/png;base64", "must have ;base64,"),
        ("data:image/png;base64;AAAA,AAAA", "must have ;base64,"),
        ("data:image/png;base64,A%ZZA", "not base64"),
    ],
)
def test_what_is_none_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        bytes_of(text)


def outcome(text: str, size: int) -> bytes | str:
    """What pieces of this size give; where it is an error, that it is one."""
    try:
        return bytes_of_pieces(text[at : at + size] for at in range(0, len(text), size))
    except ValueError:
        return "not base64"


ODD = "AAAA -_+/= \n\r\n \t%20%3D%4\x00"


@settings(max_examples=60)
@given(
    data=st.binary(max_size=60),
    width=st.sampled_from([1, 3, 4, 8, 200]),
    line_break=st.sampled_from(["\n", " ", "\r\n", "  ", " \n"]),
    head=st.sampled_from(HEADS),
    odd=st.lists(st.tuples(st.integers(0, 120), st.integers(0, len(ODD) - 3)), max_size=2),
    size=st.integers(1, 9),
)
@example(b"\xff" * 12, 4, " ", "", [], 4)
@example(b"\xff" * 12, 4, " ", "", [], 5)
def test_pieces_say_the_same_wherever_they_end(
    data: bytes, width: int, line_break: str, head: str, odd: list[tuple[int, int]], size: int
) -> None:
    text = head + wrapped(base64.b64encode(data).decode(), width, line_break)
    for at, place in odd:
        text = text[:at] + ODD[place : place + 3] + text[at:]
    assert outcome(text, size) == outcome(text, PIECE_CHARACTERS)
    if not odd:
        assert outcome(text, size) == data


@pytest.mark.parametrize(
    "unit", ["AAAA", "A ", "A\n", "%41%41%41%41", "AA-_"], ids=["plain", "spaces", "lines", "escapes", "url-safe"]
)
def test_a_long_text_is_never_held_twice(unit: str) -> None:
    text = "data:;base64," + unit * (2**21 // len(unit) // 4 * 4)
    tracemalloc.start()
    try:
        assert bytes_of(text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < len(text) + 24 * PIECE_CHARACTERS


def test_escapes_are_read_wherever_the_pieces_of_a_long_text_end() -> None:
    for shift in range(4):
        text = "A" * (shift + 4) + "%41" * 60_000 + "A" * (-(shift + 60_000) % 4)
        assert bytes_of(f"data:image/png;base64,{text}") == bytes(len(text.replace("%41", "A")) // 4 * 3)
