"""A base64 text or data URI -> the bytes it holds, or ValueError with the reason.

Read as browsers read data URLs (WHATWG, Infra, "forgiving-base64 decode"): whitespace does not count, and the padding
may be missing. The alphabet that is safe in URLs is read too. Nothing is guessed: bytes with a hole may be an image.

It is decoded in pieces, so that a long text is never held twice, and no call into C holds the GIL for long.
"""

from __future__ import annotations

import binascii
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

WHITESPACE = " \t\n\r\f\v"
"""ASCII's: `str.strip` would take more."""

BLANKS = WHITESPACE.encode()
EACH_BLANK = tuple(bytes([code]) for code in BLANKS)
IS_BLANK = np.isin(np.arange(256), list(BLANKS))
HEX = np.array([int(chr(code), 16) if chr(code) in "0123456789abcdefABCDEF" else -1 for code in range(256)], np.int16)
"""What a character is worth as a hexadecimal digit; -1 where it is none."""

URL_SAFE = bytes.maketrans(b"-_", b"+/")
PIECE_CHARACTERS = 2**16
MAX_HEAD = 4096
"""Characters of a data URI before its comma: a type, a name, a character set."""
HEAD = re.compile(r"data:[^,]*;\s*base64\s*,", re.IGNORECASE)


def is_base64(uri: str) -> bool:
    """Whether a data URI says that its content is base64."""
    return HEAD.match(uri, 0, MAX_HEAD) is not None


def bytes_of(text: str) -> bytes:
    """The bytes of a base64 text or data URI; may be none. Raises ValueError, with the reason, when it is neither."""
    return bytes_of_pieces(text[at : at + PIECE_CHARACTERS] for at in range(0, len(text), PIECE_CHARACTERS))


def bytes_of_pieces(pieces: Iterable[str]) -> bytes:
    """The same for a text in pieces, cut anywhere. Raises ValueError as `bytes_of` does."""
    lines, quartets = _Lines(), _Quartets()
    for piece in _content(map(_ascii, pieces)):
        quartets.add(lines.joined(piece))
    lines.check()
    return quartets.whole()


def _ascii(piece: str) -> str:
    if not piece.isascii():
        raise ValueError("not base64: there are other characters than ASCII's")
    return piece


def _content(pieces: Iterator[str]) -> Iterator[bytes]:
    """The base64 characters: the head of a data URI is taken off, and escapes in its content are decoded."""
    start = ""
    for piece in pieces:
        start = (start + piece).lstrip(WHITESPACE)
        if len(start) >= MAX_HEAD:
            break
    rest = (piece.encode() for piece in pieces)
    if start[:5].lower() != "data:":
        return chain([start.encode()], rest)
    head = HEAD.match(start, 0, MAX_HEAD)
    if head is None:
        raise ValueError("a data URI must have ;base64, before its content")
    return _unescaped(chain([start[head.end() :].encode()], rest))


def _unescaped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    cut = b""
    for piece in pieces:
        whole = cut + piece
        escape_at = whole.rfind(b"%", max(0, len(whole) - 2))
        cut = whole[escape_at:] if escape_at >= 0 else b""
        yield _without_escapes(whole.removesuffix(cut))
    yield cut


def _without_escapes(text: bytes) -> bytes:
    """The text with its escapes decoded. `urllib.parse.unquote_to_bytes` takes a microsecond and 200 bytes for each."""
    if b"%" not in text:
        return text
    codes = np.frombuffer(text, np.uint8).copy()
    places = np.flatnonzero(codes[:-2] == ord("%"))
    places = places[(HEX[codes[places + 1]] >= 0) & (HEX[codes[places + 2]] >= 0)]
    codes[places] = 16 * HEX[codes[places + 1]] + HEX[codes[places + 2]]
    is_kept = np.ones(len(codes), bool)
    is_kept[places + 1] = is_kept[places + 2] = False
    return codes[is_kept].tobytes()


class _Lines:
    """Takes whitespace out, and tells spaces that were line breaks (`echo` of a shell, YAML) from lost + signs.

    Where each + became a space, lines have all lengths; a single one lost leaves no whole number of quartets.
    """

    def __init__(self) -> None:
        self._first = 0  # characters of the first line that is complete
        self._open = 0  # characters of the last line, which the next piece may continue
        self._is_ended = False  # whether whitespace came behind that line, so that the next piece begins another
        self._num_characters = 0
        self._are_even = True
        self._has_spaces = False
        self._ends_in_spaces = False  # spaces at the end count only once characters follow

    def joined(self, piece: bytes) -> bytes:
        """The piece without its whitespace."""
        has_blanks = any(blank in piece for blank in EACH_BLANK)  # six searches take less time than one translation
        text = piece.translate(None, BLANKS) if has_blanks else piece
        self._num_characters += len(text)
        if not text:
            self._is_ended |= bool(piece)
            self._ends_in_spaces |= b" " in piece
            return text
        edges = _edges(piece) if has_blanks else np.array([0, len(piece)])
        begin, end = int(edges[0]), int(edges[-1])
        inner = piece[0 if self._open else begin : end]  # spaces before and behind the whole text do not count
        self._has_spaces |= b" " in inner or (self._open > 0 and self._ends_in_spaces)
        self._ends_in_spaces = b" " in piece[end:]
        self._add(edges[1::2] - edges[::2], is_new=self._is_ended or begin > 0)
        self._is_ended = end < len(piece)
        return text

    def _add(self, lengths: NDArray[np.int64], *, is_new: bool) -> None:
        if self._open and is_new:
            lengths = np.concatenate([[self._open], lengths])
        else:
            lengths[0] += self._open
        complete, self._open = lengths[:-1], int(lengths[-1])
        if len(complete):
            self._first = self._first or int(complete[0])
            self._are_even &= bool((complete == self._first).all())

    def check(self) -> None:
        """Raises ValueError where a space cannot have been a line break."""
        are_lines = self._are_even and self._open <= self._first and self._num_characters % 4 == 0
        if self._has_spaces and not are_lines:
            raise ValueError(
                "not base64: there are spaces that no line break left (a + that was sent in a form or URL?)"
            )


def _edges(piece: bytes) -> NDArray[np.int64]:
    """Where lines begin and end, in turn."""
    return np.flatnonzero(np.diff(IS_BLANK[np.frombuffer(piece, np.uint8)], prepend=True, append=True))


class _Quartets:
    """Decodes four characters into three bytes. The last two quartets wait for the end: only they may have padding."""

    def __init__(self) -> None:
        self._decoded = io.BytesIO()  # its getvalue makes no copy
        self._rest = b""
        self._num_characters = 0
        self._alphabets: set[bool] = set()

    def add(self, text: bytes) -> None:
        self._num_characters += len(text)
        text = self._rest + self._in_one_alphabet(text)
        end = max(0, len(text) - 5) // 4 * 4
        if b"=" in text[:end]:
            raise ValueError("not base64: more stands behind the padding")
        self._decode(text[:end])
        self._rest = text[end:]

    def whole(self) -> bytes:
        missing = -self._num_characters % 4
        if missing == 3:
            raise ValueError(f"not base64: {self._num_characters} characters are no whole number of bytes; it was cut")
        self._decode(self._rest if self._rest.endswith(b"=") else self._rest + b"=" * missing)
        return self._decoded.getvalue()

    def _decode(self, text: bytes) -> None:
        try:
            self._decoded.write(binascii.a2b_base64(text, strict_mode=True))
        except binascii.Error as error:
            raise ValueError(f"not base64: {error}") from None

    def _in_one_alphabet(self, text: bytes) -> bytes:
        is_url_safe = b"-" in text or b"_" in text
        if is_url_safe:
            self._alphabets.add(True)
        if b"+" in text or b"/" in text:
            self._alphabets.add(False)
        if len(self._alphabets) > 1:
            raise ValueError("not base64: + or / stand beside - or _, which are of two alphabets")
        return text.translate(URL_SAFE) if is_url_safe else text
