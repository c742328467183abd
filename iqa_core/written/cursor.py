"""A place in a written answer -> the next one, once what must stand there was found; or the code of what is wrong.

Every step moves the place on, so an answer takes time in proportion to its length.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from iqa_core.written.form import Attribute

SPACE = " \t\r\n"
"""White space; others, such as no-break spaces, are text."""

TAGS = ("think", "thinking", "answer", "caption", "reasoning", "rating")
RESERVED = tuple(bracket + tag + ">" for tag in TAGS for bracket in ("<", "</"))
"""Tags of all grammars: none of them may stand in a text, whichever grammar it is."""


class Refused(Exception):
    """The answer is none of its grammar; the only argument is the code."""


@dataclass(slots=True)
class Cursor:
    """A place in a text."""

    text: str
    place: int = 0
    over: set[str] = field(default_factory=set)
    """Tags with their brackets, and keys of JSON with their quotes, that may not come again."""

    @property
    def is_at_end(self) -> bool:
        """Whether nothing follows."""
        return self.place >= len(self.text)

    def skip_space(self) -> None:
        """Go on behind white space."""
        while not self.is_at_end and self.text[self.place] in SPACE:
            self.place += 1

    def takes(self, expected: str) -> bool:
        """Go on behind what is expected, if it stands here."""
        is_here = self.text.startswith(expected, self.place)
        self.place += len(expected) if is_here else 0
        return is_here

    def fault(self, code: str) -> Refused:
        """What is wrong here: a tag or key again that is over, else this code."""
        return Refused("duplicate_tag" if self.text.startswith(tuple(self.over), self.place) else code)

    def open(self, tag: str) -> None:
        """Go on behind an opening tag."""
        self.skip_space()
        if not self.takes(f"<{tag}>"):
            raise self.fault("no_open")

    def close(self, tag: str) -> str:
        """Go on behind the closing tag of a block that is open; the text in between."""
        begin, end = self.place, self.text.find("<", self.place)
        while end >= 0 and not self.text.startswith(RESERVED, end):
            end = self.text.find("<", end + 1)
        if end < 0:
            raise Refused("no_close")
        self.place = end
        if not self.takes(f"</{tag}>"):
            raise Refused("nested_tag")
        self.over |= {f"<{tag}>", f"</{tag}>"}
        return self.text[begin:end]

    def block(self, tag: str) -> tuple[str, int]:
        """Go on behind a block; its text without white space around it, and where that begins."""
        self.open(tag)
        self.skip_space()
        begin = self.place
        return self.close(tag).rstrip(SPACE), begin

    def key(self, name: str, code: str) -> None:
        """Go on behind a key of JSON and its colon."""
        self.skip_space()
        if not self.takes(quoted := json.dumps(name, ensure_ascii=False)):
            raise Refused("no_close") if self.is_at_end else self.fault(code)
        self.over.add(quoted)
        self.skip_space()
        if not self.takes(":"):
            raise Refused("no_close" if self.is_at_end else code)
        self.skip_space()

    def token(self, ends: str) -> tuple[str, int]:
        """Go on to the first of these characters, or the end; what stands before it, and where that begins."""
        begin = self.place
        while not self.is_at_end and self.text[self.place] not in ends:
            self.place += 1
        return self.text[begin : self.place], begin

    def json_string(self) -> str | None:
        """Go on behind a string of JSON; None where none stands here."""
        begin = self.place
        if not self.takes('"'):
            return None
        while not self.is_at_end and self.text[self.place] != '"':
            self.place += 2 if self.text[self.place] == "\\" else 1
        if self.is_at_end:
            raise Refused("no_close")
        self.place += 1
        try:
            found = json.loads(self.text[begin : self.place])
        except ValueError:
            return None
        return str(found).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def end(self) -> None:
        """Nothing but white space may follow."""
        self.skip_space()
        if not self.is_at_end:
            raise self.fault("trailing_text")


def number(token: str, attribute: Attribute) -> float:
    """The number that a token says: digits as many as the range's ends have, and a point and digits behind it.

    Nothing else is a number: no sign, exponent, comma, fraction, or digit that is not ASCII. Raises Refused.
    """
    whole, point, part = token.partition(".")
    is_whole = _is_digits(whole, len(str(int(attribute.range.high)))) and (whole == "0" or whole[0] != "0")
    if not is_whole or (point and not _is_digits(part, attribute.decimals)):
        raise Refused(f"not_a_number:{attribute.name}")
    value = float(token)
    if not attribute.range.low <= value <= attribute.range.high:
        raise Refused(f"out_of_range:{attribute.name}")
    return value


def _is_digits(text: str, most: int) -> bool:
    return 0 < len(text) <= most and text.isascii() and text.isdigit()
