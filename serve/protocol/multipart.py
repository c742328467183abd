"""A multipart body -> its parts, found by searches for the boundary; nothing walks over bytes one by one.

RFC 7578, as every sender of forms keeps it: `--boundary`, headers, an empty line, content. Raises `Refusal` (422).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from string import ascii_letters, digits

from python_multipart.multipart import parse_options_header

from serve.errors import Refusal

MAX_BOUNDARY_BYTES = 256
"""RFC 2046 allows 70."""
MAX_HEAD_BYTES = 4096
"""Headers of one part, a mail library's included."""
MAX_HEADERS = 16
MAX_OPTIONS = 64
"""Such as the name and the file name: splitting takes 2 µs an option."""
WINDOW_BYTES = 2**20
"""Searched at once: one search through 64 MiB would hold the interpreter for up to 0.1 s."""
PIECE_BYTES = 2**16
TOKEN = f"{ascii_letters}{digits}!#$%&'*+-.^_`|~".encode()
"""Characters of a header's name."""


@dataclass(frozen=True, slots=True)
class Part:
    """Headers by their names in lower case, and where in the body the content lies."""

    headers: dict[bytes, bytes]
    begin: int
    end: int
    _body: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the form's field. Raises Refusal (422) where there is none in ASCII."""
        kind, options = options_of(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"")
        if kind != b"form-data" or not name.isascii():
            raise Refusal(422, "multipart: a part has no name")
        return name.decode()

    @property
    def num_bytes(self) -> int:
        """Size of the content."""
        return self.end - self.begin

    @property
    def content(self) -> bytes:
        """A copy of the content, made window by window: all at once, 64 MiB take 50 ms."""
        content = io.BytesIO()
        for at in range(self.begin, self.end, WINDOW_BYTES):
            content.write(self._body[at : min(at + WINDOW_BYTES, self.end)])
        return content.getvalue()

    def latin_pieces(self) -> Iterator[str]:
        """The content as text, a character a byte."""
        for at in range(self.begin, self.end, PIECE_BYTES):
            yield self._body[at : min(at + PIECE_BYTES, self.end)].decode("latin-1")


def options_of(header: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The value of a header in lower case, and its options: `form-data; name="images"`.

    Raises Refusal (422) for more than MAX_OPTIONS.
    """
    if header.count(b";") > MAX_OPTIONS:
        raise Refusal(422, f"a header has more than {MAX_OPTIONS} options")
    return parse_options_header(header)


def parts_of(body: bytes, boundary: bytes, max_parts: int) -> Iterator[Part]:
    """The parts in order; those before a fault are given out before it is found.

    Raises Refusal (422) for what is cut, malformed, or more than `max_parts`.
    """
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise Refusal(422, f"multipart: the boundary must have 1 to {MAX_BOUNDARY_BYTES} bytes")
    delimiter = b"\r\n--" + boundary
    at = _first(body, delimiter)
    for _ in range(max_parts):
        after = body[at : at + 2]
        if after == b"--":
            return
        if after != b"\r\n":
            raise _malformed()
        headers, begin = _headers(body, at)
        end = _find(body, delimiter, begin)
        if end < 0:
            raise Refusal(422, "the multipart body is cut")
        yield Part(headers, begin, end, body)
        at = end + len(delimiter)
    if body[at : at + 2] != b"--":
        raise Refusal(422, f"multipart: more than {max_parts} parts")


def _first(body: bytes, delimiter: bytes) -> int:
    """The place where the first delimiter ends; line breaks may stand before it."""
    start = body[: 2 * len(delimiter)].lstrip(b"\r\n")
    if not start.startswith(delimiter[2:]):
        raise _malformed()
    return min(len(body), 2 * len(delimiter)) - len(start) + len(delimiter) - 2


def _headers(body: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    """The headers of the part whose head begins at a place, and the place where its content begins."""
    end = body.find(b"\r\n\r\n", at, at + MAX_HEAD_BYTES)
    if end < 0:
        is_cut = len(body) - at < MAX_HEAD_BYTES
        said = "body is cut" if is_cut else f"body has a part with more than {MAX_HEAD_BYTES} bytes of headers"
        raise Refusal(422, f"the multipart {said}")
    lines = body[at + 2 : end].split(b"\r\n") if end > at else []
    if len(lines) > MAX_HEADERS:
        raise Refusal(422, f"multipart: a part has more than {MAX_HEADERS} headers")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, TOKEN):
            raise _malformed()
        headers[name.lower()] = value.strip(b" \t")
    return headers, end + 4


def _find(body: bytes, wanted: bytes, at: int) -> int:
    """The first place of what is wanted, or -1."""
    while at < len(body):
        found = body.find(wanted, at, at + WINDOW_BYTES + len(wanted) - 1)
        if found >= 0:
            return found
        at += WINDOW_BYTES
    return -1


def _malformed() -> Refusal:
    return Refusal(422, "the multipart body is malformed")
