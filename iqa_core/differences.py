"""Two records of settings -> every setting in which they differ, each in a few words, digests cut short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 60
"""Characters of a value that are shown."""

SHOWN_OF_DIGEST = 12

ABSENT = "absent"


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], places: tuple[str, str] = ("there", "now")
) -> list[str]:
    """Differences as `name: value there, value now`, sorted by name; nested names are joined by dots.

    Neither record may hold secrets: values that differ are shown. A value that is None or missing is `absent`: a
    setting added since is no difference while it is not used.
    """
    left, right = dict(_flat(there)), dict(_flat(here))
    found = []
    for name in sorted({*left, *right}):
        one, other = left.get(name), right.get(name)
        if one != other:
            texts = _apart(one, other)
            found.append(f"{name}: {texts[0]} {places[0]}, {texts[1]} {places[1]}")
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def _apart(one: Any, other: Any) -> tuple[str, str]:
    """Both values, short enough to be read; of long ones the span that begins before they differ."""
    texts = [ABSENT if value is None else str(value) for value in (one, other)]
    same = next((i for i, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts)))
    begin = max(0, same - SHOWN // 4) if max(map(len, texts)) > SHOWN else 0
    return shortened(texts[0], begin), shortened(texts[1], begin)


def shortened(text: str, begin: int = 0) -> str:
    """At most SHOWN characters; of a digest, as many as tell it from others."""
    if len(text) in (40, 64) and set(text) <= set("0123456789abcdef"):
        return f"{text[:SHOWN_OF_DIGEST]}…"
    rest = text[begin:]
    return ("…" if begin else "") + (rest if len(rest) <= SHOWN else f"{rest[:SHOWN]}…")
