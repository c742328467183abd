"""`kind:place?option=value&option=value` -> its parts: how a command line names what is more than a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True)
class Address:
    """One such name, taken apart."""

    kind: str
    """What stands before the colon; empty where none of the known kinds does."""
    place: str
    """A path or a name, as it was written; may be empty."""
    options: Mapping[str, str]


def parse_address(text: str, kinds: frozenset[str]) -> Address:
    """The parts of `text`. A colon behind anything but one of `kinds` belongs to the place, as in `s3://bucket`.

    Options begin at the last question mark. Raises ValueError when one is given twice or has no value.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in kinds:
        kind, rest = "", text
    place, mark, query = rest.rpartition("?")
    if not mark:
        place, query = rest, ""
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    if len(dict(pairs)) != len(pairs):
        raise ValueError("an option is given twice")
    return Address(kind, place, dict(pairs))


SCORES = "scores:"
"""What the name of a score table begins with where its rows are an input."""


def parse_scores(text: str) -> tuple[str, str] | None:
    """Place and condition of `scores:OUTPUT?where=CONDITION`, empty where none is given; None for any other text.

    The condition is taken as it stands: SQL has `?`, `&`, `+` and `%` of its own. Raises ValueError for another option,
    and for a part that is empty.
    """
    if not text.startswith(SCORES):
        return None
    place, mark, condition = text.removeprefix(SCORES).partition("?where=")
    if "?" in place:
        raise ValueError("the only option is ?where=CONDITION")
    if not place or (mark and not condition.strip()):
        raise ValueError(f"{'the condition' if place else 'the place'} is empty")
    return place, condition.strip()
