"""Values of a parsed answer -> numbers and texts, or a ValueError that says where it is no such value.

where: of the value in the answer, such as `results.0.scores.layout`.
"""

from __future__ import annotations

from typing import Any


def number_of(found: Any, low: float, high: float, where: str, slack: float = 0) -> float:
    """The value as a number from low to high. slack: by which it may lie beyond."""
    # a bool is an int to Python; NaN is neither above nor below
    if isinstance(found, bool) or not isinstance(found, int | float) or not low - slack <= found <= high + slack:
        raise ValueError(f"{where} is {shown(found)}, no number from {low:g} to {high:g}")
    return float(found)


def text_of(found: Any, where: str) -> str:
    """The value as a text."""
    if not isinstance(found, str):
        raise ValueError(f"{where} is {shown(found)}, no text")
    return found


def text_or_none(found: Any, where: str) -> str | None:
    """The value as a text, or null."""
    return None if found is None else text_of(found, where)


def value_of(found: Any, name: str, where: str) -> Any:
    """What an object has by a name."""
    if not isinstance(found, dict) or name not in found:
        raise ValueError(f"it has no {where}{name}")
    return found[name]


def list_of(found: Any, length: int, where: str) -> list[Any]:
    """The value as a list of so many."""
    if not isinstance(found, list) or len(found) != length:
        raise ValueError(f"{where} is {shown(found)}, no list of {length}")
    return found


def shown(found: Any) -> str:
    """The beginning of a value, however large it is."""
    if isinstance(found, list | dict):
        return f"a {type(found).__name__} of {len(found)}"
    return repr(found if not isinstance(found, str) else found[:40])[:60]
