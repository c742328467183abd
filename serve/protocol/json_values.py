"""A JSON body -> its values, without the long strings: these stay in the body, and are read by pieces when asked for.

So what is parsed and validated at once is small, however large the body: a string costs a search for its end, and
everything else is counted before the parser sees it. One call of a parser holds the interpreter, and so the event loop,
for as long as it runs: 0.3 s for a string of 64 MiB, 10 s for as many bytes of empty lists.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from serve.errors import Refusal

SMALL_BODY_BYTES = 2**17
"""Size below which a body is parsed at once: looking for its long strings would take longer."""
LONG_BYTES = 4096
"""Strings from this size stay in the body: more than MAX_SHORT characters in any spelling (12 bytes are the most)."""
MAX_SHORT = 256
"""Characters of a name; what stands in the place of a long string has more, so that no name is taken for one."""
PIECE_BYTES = 2**16
LONGEST_ESCAPE = 12
"""Bytes of one character: two halves of a pair, `\\ud83d\\ude00`."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a body may hold beside its images."""

    num_bytes: int
    num_values: int

    @classmethod
    def of(cls, max_images: int) -> Room:
        """1.25 MiB and 20,480 values at 64 images: 5 ms of a parser. A prompt of commas has room in any."""
        return cls(2**18 + 2**14 * max_images, 2**14 + 2**6 * max_images)


class LongStrings:
    """The long strings of one body, by what stands in their place."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._nonce = secrets.token_hex(16)  # no text of a caller can be what stands for another
        self._places: dict[str, tuple[int, int]] = {}

    def taken_out(self, begin: int, end: int) -> bytes:
        """What stands in the place of a string, given without its quotes; it begins as a data URI where that does."""
        scheme = "data:" if self._body[begin : begin + 5].lower() == b"data:" else ""
        stand_in = f"{scheme}<string {self._nonce} {len(self._places)}>".ljust(MAX_SHORT + 1, ".")
        self._places[stand_in] = (begin, end)
        return stand_in.encode()

    def pieces(self, text: str, piece_bytes: int = PIECE_BYTES) -> Iterator[str]:
        """The text, or the string for which it stands. Raises ValueError where that is no JSON."""
        if text not in self._places:
            yield text
            return
        at, end = self._places[text]
        while at < end:
            piece, at = self._piece(at, min(at + piece_bytes, end), end)
            yield piece

    def text(self, text: str, max_characters: int) -> str:
        """The text, or the string for which it stands. Raises ValueError where that is no JSON, or longer."""
        begin, end = self._places.get(text, (0, 0))
        whole = "".join(self.pieces(text)) if end - begin <= LONGEST_ESCAPE * max_characters else None
        if whole is None or len(whole) > max_characters:
            raise ValueError(f"it has more than {max_characters} characters")
        return whole

    def beginning(self, text: str, max_characters: int) -> str:
        """So many characters of the text, or of the string for which it stands. Raises ValueError as `pieces`."""
        return next(self.pieces(text, LONGEST_ESCAPE * max_characters))[:max_characters]

    def _piece(self, begin: int, first_stop: int, end: int) -> tuple[str, int]:
        """One that ends in no escape and in no character, and where."""
        for stop in range(first_stop, min(first_stop + LONGEST_ESCAPE, end) + 1):
            try:
                return from_json(b'"%b"' % self._body[begin:stop]), stop
            except ValueError as error:
                fault = error
        raise ValueError(f"invalid JSON: {fault}")


def values_of(body: bytes, room: Room) -> tuple[Any, LongStrings]:
    """The values of a JSON body, and its long strings. Raises Refusal (422) on no JSON, and on more than has room."""
    strings = LongStrings(body)
    parts = [body] if len(body) < SMALL_BODY_BYTES else list(_parts(body, strings, room))
    # in a small body those inside of strings are counted too
    num_values = sum(part.count(mark) for part in parts[::2] for mark in (b",", b"[", b"{"))
    if num_values > room.num_values:
        raise _too_many(room)
    try:
        return from_json(b"".join(parts)), strings
    except ValueError as error:
        raise Refusal(422, f"body: invalid JSON: {error}") from None


def _parts(body: bytes, strings: LongStrings, room: Room) -> Iterator[bytes]:
    """What stands outside of strings, and strings, in turn."""
    at = size = num_quotes = 0
    while (quote := body.find(b'"', at, at + room.num_bytes + 1)) >= 0:
        end, num_seen = _end(body, quote + 1, room.num_values)
        is_long = end - quote > LONG_BYTES
        string = b'"%b"' % strings.taken_out(quote + 1, end) if is_long else body[quote : end + 1]
        size += quote - at + len(string)
        num_quotes += num_seen
        if size > room.num_bytes or num_quotes > room.num_values:
            raise _too_many(room)
        yield body[at:quote]
        yield string
        at = end + 1
    if size + len(body) - at > room.num_bytes:
        raise _too_many(room)
    yield body[at:]


def _end(body: bytes, begin: int, max_quotes: int) -> tuple[int, int]:
    """The place of the quote that ends a string, and the number of quotes that were looked at."""
    at = begin
    for num_seen in range(1, max_quotes + 1):
        quote = body.find(b'"', at)
        if quote < 0:
            raise Refusal(422, "body: invalid JSON: a string has no end")
        if _num_backslashes(body, at, quote) % 2 == 0:
            return quote, num_seen
        at = quote + 1
    raise Refusal(422, f"body: a string has more than {max_quotes} quotes")


def _num_backslashes(body: bytes, begin: int, end: int) -> int:
    """The number of backslashes in a row before the end."""
    at = end
    while at > begin and body[at - 1] == ord("\\"):
        piece = body[max(begin, at - PIECE_BYTES) : at]
        at -= len(piece) - len(piece.rstrip(b"\\"))
    return end - at


def _too_many(room: Room) -> Refusal:
    return Refusal(
        422,
        f"body: beside images in base64 there is room for {room.num_values} values in {room.num_bytes} bytes; "
        "leave out what is not asked for, or send fewer images at once",
    )
