"""A typed node of a condition -> why its parts cannot be compared with each other, and the way out.

The engine would rather cast than refuse: text to the whole number that stands next to it (4.6 = 5), a number to yes or
no (2 = true), JSON likewise. Here nothing is compared but like with like; the caller casts, and sees what is cast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NUMBER, TEXT, YES_OR_NO, NOTHING, JSON = "a number", "text", "yes or no", "NULL", "JSON"

DATE, ZONED, TIME, BYTES, UUID = "a date", "a date with a zone", "a time of day", "bytes", "a UUID"

LIST, STRUCT, MAP = "a list", "a struct", "a map"

_FAMILIES = {
    "FLOAT": NUMBER,
    "DOUBLE": NUMBER,
    "VARCHAR": TEXT,
    "BOOLEAN": YES_OR_NO,
    '"NULL"': NOTHING,
    "JSON": JSON,
    "DATE": DATE,
    "TIMESTAMP WITH TIME ZONE": ZONED,
    "BLOB": BYTES,
    "UUID": UUID,
}

WRITTEN_AS_TEXT = (DATE, ZONED, TIME, BYTES, UUID)
"""Families without literals of their own; text that stands in the condition may be compared with them."""

_ARITHMETIC = frozenset("+ - * / // % ** ^ abs ceil ceiling exp floor ln log10 pow power round sign sqrt".split())

_ALIKE = frozenset("greatest least nullif list_value".split())
"""Functions whose arguments are compared with each other, or have to be of one kind."""

_OF_TEXT = frozenset(
    """~~ !~~ ~~* !~~* ~~~ ends_with ilike_escape instr like_escape lower not_ilike_escape not_like_escape prefix
    regexp_full_match regexp_matches replace starts_with strip_accents suffix trim upper""".split()
)

EQUAL = frozenset("COMPARE_EQUAL COMPARE_NOTEQUAL COMPARE_DISTINCT_FROM COMPARE_NOT_DISTINCT_FROM COMPARE_IN".split())
"""Comparisons that ask for no order."""

_DISTINCT = frozenset({"COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM"})


def family(kind: str) -> str:
    """The family of a type of the engine: types of one family can be compared, as all numbers can."""
    if kind.endswith("]"):
        return LIST
    if kind.startswith("STRUCT"):
        return STRUCT
    if kind.startswith("MAP"):
        return MAP
    if kind.startswith("TIMESTAMP") and kind != "TIMESTAMP WITH TIME ZONE":
        return DATE
    if kind in {"TIME", "TIME_NS"}:
        return TIME
    if "INT" in kind or kind.startswith("DECIMAL"):
        return NUMBER
    return _FAMILIES.get(kind, kind)


@dataclass(frozen=True, slots=True)
class Typed:
    """One expression of a condition."""

    text: str
    """As SQL, for messages."""
    kind: str
    """The engine's type."""
    literal: str | None = None
    """The text of a text literal."""
    node: Mapping[str, Any] = field(default_factory=dict)
    """Its node of the parse tree; empty for an expression that has none, such as the elements of a list."""

    @property
    def family(self) -> str:
        """The family of its type."""
        return family(self.kind)


@dataclass(frozen=True, slots=True)
class Cast:
    """A text literal that has to be readable as a type."""

    literal: str
    kind: str


def faults(node: Mapping[str, Any], parts: Sequence[Typed]) -> Iterator[str | Cast]:
    """Why the parts of a node cannot be compared, and the casts that have to succeed.

    node: one of the parse tree. parts: its expressions in order; of a CASE its conditions, then its results.
    """
    what, which = node["class"], node["type"]
    name = str(node.get("function_name", "")).lower()
    if what in {"COMPARISON", "BETWEEN"} or which == "COMPARE_IN":
        yield from _comparison(which, parts)
    elif what == "CONJUNCTION" or which == "OPERATOR_NOT":
        yield from _yes_or_no(parts)
    elif what == "CASE":
        count = len(node["case_checks"])
        yield from _yes_or_no(parts[:count])
        yield from _alike(parts[count:])
    elif which == "OPERATOR_COALESCE" or name in _ALIKE:
        yield from _alike(parts)
    elif which == "ARRAY_EXTRACT":
        yield from _inside("array_extract", parts)
    elif name in {"list_contains", "array_extract"} or (name == "contains" and parts[0].family == LIST):
        yield from _inside(name, parts)
    elif name in _ARITHMETIC:
        yield from _numbers(name, parts)
    elif name in _OF_TEXT:
        yield from (f"{name} is for text, {_told(part)}" for part in parts if part.family not in {TEXT, NOTHING})


def _comparison(which: str, parts: Sequence[Typed]) -> Iterator[str | Cast]:
    for part in parts:
        if part.family == NOTHING and which not in _DISTINCT:
            yield f"nothing equals NULL, or is more or less; write {parts[0].text} IS NULL, or IS NOT NULL"
        if part.family in {STRUCT, MAP, JSON}:
            instead = "take the text of a field with ->>" if part.family == JSON else "compare its fields"
            yield f"{_told(part)}, which cannot be compared as a whole; {instead}"
        if part.family == LIST and (which not in EQUAL or part.kind.count("[") > 1 or "STRUCT" in part.kind):
            yield f"{_told(part)}, which cannot be compared so; compare one of its elements, as {part.text}[1]"
    yield from _alike(parts)


def _alike(parts: Sequence[Typed]) -> Iterator[str | Cast]:
    """All of one family; a text literal beside something that has no literals of its own is read as that."""
    known = [part for part in parts if part.family != NOTHING]
    first = next((part for part in known if part.literal is None), known[0] if known else None)
    for part in known:
        assert first is not None
        if part.literal is not None and first.family in WRITTEN_AS_TEXT:
            yield Cast(part.literal, first.kind)
        elif part.family != first.family:
            yield f"{_told(first)}, and {_told(part)}: they cannot be compared; {_way_out(first, part)}"
        elif part.family == LIST and len({_of_elements(part), _of_elements(first)} - {NOTHING}) > 1:
            yield f"{_told(first)}, and {_told(part)}: their elements cannot be compared"


def _of_elements(part: Typed) -> str:
    """Family of a list's elements; NOTHING for an empty list."""
    return family(part.kind[: part.kind.rindex("[")])


def _inside(name: str, parts: Sequence[Typed]) -> Iterator[str | Cast]:
    """A value that is looked for in a list, or the place of one."""
    where, what = parts[:2]
    if where.family == NOTHING or what.family == NOTHING:
        return
    if name == "array_extract":
        wanted = TEXT if where.family == STRUCT else NUMBER
        if what.family != wanted:
            yield f"{where.text}[…] takes {wanted}, {_told(what)}"
    elif where.family != LIST:
        yield f"{name} is for lists, {_told(where)}"
    else:
        yield from _comparison("COMPARE_EQUAL", [Typed(f"an element of {where.text}", where.kind[:-2]), what])


def _numbers(name: str, parts: Sequence[Typed]) -> Iterator[str]:
    """Arithmetic is for numbers; days may be added to a date, and dates taken from each other."""
    families = {part.family for part in parts} - {NOTHING}
    if name in {"+", "-"} and DATE in families and not any(part.literal for part in parts):
        families -= {DATE, NUMBER}
    for part in parts:
        if part.family in families - {NUMBER}:
            yield f"{name} is for numbers, {_told(part)}; {_cast(part)}"


def _yes_or_no(parts: Sequence[Typed]) -> Iterator[str]:
    for part in parts:
        if part.family not in {YES_OR_NO, NOTHING}:
            yield f"{_told(part)}, not a condition; compare it with something"


def _told(part: Typed) -> str:
    return f"{part.text} is {part.family}" + (f" ({part.kind})" if part.family in {LIST, STRUCT, MAP} else "")


def _cast(part: Typed) -> str:
    """How text becomes a number."""
    if part.literal is not None:
        return f"write {part.literal} without quotes" if _is_number(part.literal) else "that is none"
    if part.family != TEXT:
        return "cast it"
    cast = f"write TRY_CAST({part.text} AS DOUBLE)"
    is_column = part.node.get("class") == "COLUMN_REF" and len(part.node["column_names"]) == 1
    return f"{cast}, or carry it as one: --carry {part.text}:float64" if is_column else cast


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _way_out(first: Typed, other: Typed) -> str:
    families = {first.family, other.family}
    if families == {TEXT, NUMBER}:
        return _cast(first if first.family == TEXT else other)
    if YES_OR_NO in families:
        part = first if first.family == YES_OR_NO else other
        return f"write {part.text} or NOT {part.text} alone, or compare it with true"
    return "cast one of them"
