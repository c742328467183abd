"""A base64 text or data URI -> the bytes it holds, or ValueError with the reason.

Read as browsers read data URLs (WHATWG, Infra, "forgiving-base64 decode"): whitespace does not count, and the padding
may be missing. The alphabet that is safe in URLs is read too. Nothing is guessed: bytes with a hole may be an image.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

WHITESPACE = " \t\n\r\f\v"
"""ASCII's: `str.strip` would take more."""

URL_SAFE = bytes.maketrans(b"-_", b"+/")
PIECE_CHARACTERS = 2**16
HEAD = re.compile(r"data:[^,]*;\s*base64\s*,", re.IGNORECASE)


def is_base64(uri: str) -> bool:
    """Whether a data URI says that its content is base64."""
    return HEAD.match(uri) is not None


def bytes_of(text: str) -> bytes:
    """What a base64 text or data URI holds; may be nothing."""
    if not text.isascii():
        raise ValueError("not base64: there are other characters than ASCII's")
    content = _content(text.strip(WHITESPACE))
    if b" " in content and not _are_lines(content.split()):
        raise ValueError("not base64: there are spaces that no line break left (a + that was sent in a form or URL?)")
    whole = _padded(_in_one_alphabet(b"".join(content.split())))
    try:
        return binascii.a2b_base64(whole, strict_mode=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def _content(text: str) -> bytes:
    """Without the head of a data URI, and the escapes that its content may have."""
    if text[:5].lower() != "data:":
        return text.encode()
    if not is_base64(text):
        raise ValueError("a data URI must have ;base64, before its content")
    content = text.partition(",")[2].encode()
    return b"".join(_unescaped(content)).strip() if b"%" in content else content.strip()


def _unescaped(text: bytes) -> Iterator[bytes]:
    """By pieces, between which no escape lies: for a text of escapes alone, urllib holds 75 bytes a character."""
    at = 0
    while at < len(text):
        end = at + PIECE_CHARACTERS
        escape_at = text.rfind(b"%", end - 2, end)
        end = escape_at if escape_at > at else end
        yield unquote_to_bytes(text[at:end])
        at = end


def _are_lines(pieces: Sequence[bytes]) -> bool:
    """Whether a text with spaces is one whose line breaks became spaces (`echo` of a shell, YAML), and whole.

    Where each + became a space instead, pieces have all lengths; a single one lost leaves no whole number of quartets.
    """
    lengths = [len(piece) for piece in pieces]
    return len(set(lengths[:-1])) == 1 and lengths[-1] <= lengths[0] and sum(lengths) % 4 == 0


def _in_one_alphabet(text: bytes) -> bytes:
    if b"-" not in text and b"_" not in text:
        return text
    if b"+" in text or b"/" in text:
        raise ValueError("not base64: + or / stand beside - or _, which are of two alphabets")
    return text.translate(URL_SAFE)


def _padded(text: bytes) -> bytes:
    missing = -len(text) % 4
    if missing == 3:
        raise ValueError(f"not base64: {len(text)} characters are no whole number of bytes; it was cut")
    return text if text.endswith(b"=") else text + b"=" * missing
