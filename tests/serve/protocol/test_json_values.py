"""A body taken apart: the same values as any parser's, and little work for whatever is no question."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from serve.errors import Refusal
from serve.protocol.json_values import LONG_BYTES, MAX_SHORT, SMALL_BODY_BYTES, Room, values_of
from tests.clock import least_cpu_s

ROOM = Room.of(64)
BODY_BYTES = 2**21


def filled(unit: bytes, before: bytes = b"[", after: bytes = b"0]") -> bytes:
    return before + unit * (BODY_BYTES // len(unit)) + after


def long_text(seed: int) -> str:
    alphabet = ["a", '"', "\\", "/", "\n", "é", "€", "😀", "\0", "%"]
    return "".join(random.Random(seed).choices(alphabet, k=LONG_BYTES))


@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("piece_bytes", [7, 2**16])
def test_long_strings_are_read_by_pieces_as_a_parser_reads_them(is_ascii: bool, piece_bytes: int) -> None:
    given = {"a": [long_text(1), "short \\", long_text(2)], "long key" * 1000: 1, "n": [1, -2.5, None, True]}
    body = json.dumps(given, ensure_ascii=is_ascii).encode() + b" " * SMALL_BODY_BYTES
    values, strings = values_of(body, ROOM)
    assert values["n"] == given["n"]
    assert ["".join(strings.pieces(text, piece_bytes)) for text in values["a"]] == given["a"]
    assert ["".join(strings.pieces(key)) for key in values] == list(given)


def test_what_stands_for_a_long_string_is_no_name_and_may_begin_a_data_uri() -> None:
    body = json.dumps(["x" * SMALL_BODY_BYTES, "Data:" + "x" * SMALL_BODY_BYTES]).encode()
    values, strings = values_of(body, ROOM)
    assert all(len(text) > MAX_SHORT for text in values)
    assert [text.startswith("data:") for text in values] == [False, True]
    with pytest.raises(ValueError, match="more than 100 characters"):
        strings.text(values[0], 100)
    assert strings.text(values[0], SMALL_BODY_BYTES) == "x" * SMALL_BODY_BYTES
    assert strings.text("short", 5) == "short"


@pytest.mark.parametrize("string", [b"\n", b"\\x", b"\xff", b"\\ud800", b"\\u00"])
def test_a_long_string_that_is_no_json_is_told_when_it_is_read(string: bytes) -> None:
    values, strings = values_of(b'["%b%b"]' % (b"x" * SMALL_BODY_BYTES, string), ROOM)
    with pytest.raises(ValueError, match="invalid JSON"):
        "".join(strings.pieces(values[0]))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (filled(b"0,"), "room for 20480 values in 1310720 bytes"),
        (filled(b"{},"), "room for"),
        (filled(b"["), "room for"),
        (filled(b'"",', after=b'""]'), "room for"),
        (filled(b'"a":0,', b"{", b'"b":0}'), "room for"),
        (filled(b'"%b",' % (b"x" * 60)), "room for"),
        (filled(b'"%b",' % (b"x" * LONG_BYTES)), None),
        (filled(b"1"), "room for"),
        (filled(b"1", b"[1e"), "room for"),
        (filled(b" "), "room for"),
        (filled(b'\\"', b'["', b'"]'), "a string has more than 20480 quotes"),
        (filled(b"\\\\", b'["', b'"]'), None),
        (filled(b"\\", b'["', b'\\"]'), "a string has no end"),
        (filled(b"\\u0000", b'["', b'"]'), None),
        (filled(b"a", b'{"', b'":0}'), None),
        (filled(b"a", b'["', b""), "a string has no end"),
        (b"[" * 1000, "recursion limit"),
        (b"1" * 5000, "number out of range"),
        (b"[" + b"0," * 30_000 + b"0]", "room for"),
        (b'["\xff"]', "invalid JSON"),
        (b"", "invalid JSON"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_a_body_of_any_kind_costs_little(body: bytes, said: str | None) -> None:
    def outcome() -> Any:
        try:
            return values_of(body, ROOM)[0]
        except Refusal as refusal:
            return refusal.message

    assert said is None or said in outcome()
    assert least_cpu_s(outcome, 0.2) <= 0.2, "as many bytes of empty lists take a parser seconds"


def test_there_is_room_for_what_trainers_send() -> None:
    turn = {"text": "A long answer, with commas, " * 20, "image_b64": "A" * 20_000}
    asked = {"history": [turn] * 8, "required_rewards": ["iqa"], "metadata": {str(k): k for k in range(64)}}
    body = json.dumps({"requests": [asked] * 64}).encode()
    assert len(body) > 2**23
    values, _ = values_of(body, ROOM)
    assert len(values["requests"]) == 64


def test_no_text_of_a_caller_stands_for_another() -> None:
    """What stands in the place of a long string is drawn anew for each body."""
    long = "private " * 700
    guess = "<string 0>".ljust(257, ".")
    values, strings = values_of(json.dumps({"prompts": [long, guess], "room": "x" * 2**18}).encode(), Room.of(64))
    assert "".join(strings.pieces(values["prompts"][0])) == long
    assert "".join(strings.pieces(values["prompts"][1])) == guess
