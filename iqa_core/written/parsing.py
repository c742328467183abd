"""A written answer and its form -> the numbers and texts that it says, or the code of what is wrong with it.

Nothing is guessed: a number that is out of range, or of another form, is a code and not the nearest number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from iqa_core.written.cursor import RESERVED, SPACE, Cursor, Refused, number
from iqa_core.written.form import LAST_ANSWER, STRIP_PREFIX, Attribute, Form, Grammar

PARSER = 1
"""Part of the fingerprint; raised by hand when an answer would be read otherwise."""

CODES = (
    *("no_open", "no_close", "nested_tag", "duplicate_tag", "trailing_text"),
    *("missing_attribute", "not_a_number", "out_of_range"),
)
"""What can be wrong; the last three are followed by `:` and the attribute's name."""

Span = tuple[int, int]
"""Where a number stands in the answer: its first character, and the one behind it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an answer says."""

    values: tuple[float, ...]
    """One per attribute, in its own range."""
    spans: tuple[Span, ...]
    caption: str | None = None
    """None where the grammar has none."""
    reasoning: str | None = None
    """The thought, or the texts called so, one a line; None where the form has neither."""
    lenient: tuple[str, ...] = ()
    """Lenient switches without which it would not have been parsed."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """An answer that says nothing."""

    code: str
    """One of CODES, with the attribute's name where it is about one."""


def parsed(text: str, form: Form, *, is_cut: bool = False) -> Parsed | Unparsed:
    """What an answer says; any text at all gives one or the other, in time that is proportional to its length.

    is_cut: the model was stopped at its limit of tokens, so that a number at the very end may be half of one.
    """
    cursor, lenient = Cursor(text), []
    if form.strip_prefix and _is_past_empty_thought(cursor):
        lenient.append(STRIP_PREFIX)
    try:
        thought = cursor.block(form.thought)[0] if form.thought else None
        if form.last_answer and _is_at_later_answer(cursor):
            lenient.append(LAST_ANSWER)
        found = _GRAMMARS[form.grammar](cursor, form)
        cursor.end()
    except Refused as refused:
        return Unparsed(str(refused))
    if is_cut and found.spans[-1][1] == len(text):
        return Unparsed("no_close")
    return replace(found, reasoning=thought if form.thought else found.reasoning, lenient=tuple(lenient))


def _is_past_empty_thought(cursor: Cursor) -> bool:
    """Go on behind a `<think>` with nothing but white space in it, if the answer begins so."""
    begin = cursor.place
    cursor.skip_space()
    is_open = cursor.takes("<think>")
    cursor.skip_space()
    if is_open and cursor.takes("</think>"):
        return True
    cursor.place = begin
    return False


def _is_at_later_answer(cursor: Cursor) -> bool:
    """Go on to the last `<answer>`; whether anything but white space was left out."""
    cursor.skip_space()
    last = cursor.text.rfind("<answer>")
    is_later = last > cursor.place
    cursor.place = max(last, cursor.place)
    return is_later


def _attributes(cursor: Cursor, form: Form) -> Parsed:
    return _gathered(_labelled(cursor, form))


def _labelled(cursor: Cursor, form: Form) -> Iterator[tuple[float, Span]]:
    """Numbers of `Label: number, Label: number`: one space behind each colon and each comma."""
    cursor.skip_space()
    for place, attribute in enumerate(form.attributes):
        if not cursor.takes(f"{', ' if place else ''}{attribute.label}: "):
            raise cursor.fault(f"missing_attribute:{attribute.name}")
        token, begin = cursor.token(SPACE)
        if token.endswith(","):  # it is a separator, or one too many
            token = token[:-1]
            cursor.place -= 1
        yield number(token, attribute), (begin, cursor.place)


def _perception(cursor: Cursor, form: Form) -> Parsed:
    caption, _ = cursor.block("caption")
    reasoning, _ = cursor.block("reasoning")
    value, span = _in_block(cursor, "rating", form.attributes[0])
    return Parsed((value,), (span,), caption, reasoning)


def _tagged_number(cursor: Cursor, form: Form) -> Parsed:
    return _gathered([_in_block(cursor, "answer", form.attributes[0])])


def _tagged_json(cursor: Cursor, form: Form) -> Parsed:
    cursor.open("answer")
    found = _json(cursor, form)
    if cursor.close("answer").strip(SPACE):
        raise Refused("trailing_text")
    return found


def _json(cursor: Cursor, form: Form) -> Parsed:
    _open_object(cursor)
    texts = tuple(_texts(cursor, form.reasoning)) if form.reasoning else ()
    numbers = []
    for place, attribute in enumerate(form.attributes):
        code = f"missing_attribute:{attribute.name}"
        _separate(cursor, code, is_first=place == 0 and not texts)
        cursor.key(attribute.label, code)
        numbers.append(_json_number(cursor, form, attribute))
    _close_object(cursor)
    return _gathered(numbers, "\n".join(texts) if texts else None)


def _texts(cursor: Cursor, keys: tuple[str, ...]) -> Iterator[str]:
    """Texts of the object called `reasoning`."""
    cursor.key("reasoning", "missing_attribute:reasoning")
    _open_object(cursor)
    for place, key in enumerate(keys):
        code = f"missing_attribute:{key}"
        _separate(cursor, code, is_first=place == 0)
        cursor.key(key, code)
        text = cursor.json_string()
        if text is None:
            raise Refused(code)
        if any(tag in text for tag in RESERVED):  # escaped or not
            raise Refused("nested_tag")
        yield text
    _close_object(cursor)


def _json_number(cursor: Cursor, form: Form, attribute: Attribute) -> tuple[float, Span]:
    if form.is_quoted and not cursor.takes('"'):
        raise Refused(f"not_a_number:{attribute.name}")
    token, begin = cursor.token('"' if form.is_quoted else f"{SPACE},}}<")
    end = cursor.place
    if form.is_quoted and not cursor.takes('"'):
        raise Refused("no_close")
    return number(token, attribute), (begin, end)


def _open_object(cursor: Cursor) -> None:
    cursor.skip_space()
    if not cursor.takes("{"):
        raise cursor.fault("no_open")


def _separate(cursor: Cursor, code: str, is_first: bool) -> None:
    """Go on behind the comma before a key. code: of the key, where there is none."""
    cursor.skip_space()
    if not is_first and not cursor.takes(","):
        raise Refused("no_close" if cursor.is_at_end else code)


def _close_object(cursor: Cursor) -> None:
    cursor.skip_space()
    if cursor.takes(","):
        cursor.skip_space()
        raise cursor.fault("trailing_text")
    if not cursor.takes("}"):
        raise Refused("no_close")


def _in_block(cursor: Cursor, tag: str, attribute: Attribute) -> tuple[float, Span]:
    token, begin = cursor.block(tag)
    return number(token, attribute), (begin, begin + len(token))


def _gathered(numbers: Iterator[tuple[float, Span]] | list[tuple[float, Span]], reasoning: str | None = None) -> Parsed:
    values, spans = zip(*numbers, strict=True)
    return Parsed(values, spans, reasoning=reasoning)


_GRAMMARS: Mapping[Grammar, Callable[[Cursor, Form], Parsed]] = {
    Grammar.ATTRIBUTES: _attributes,
    Grammar.PERCEPTION: _perception,
    Grammar.TAGGED_NUMBER: _tagged_number,
    Grammar.TAGGED_JSON: _tagged_json,
    Grammar.JSON: _json,
}
