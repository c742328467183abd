"""A reading -> the text of its TOML file, which says in comments where each word stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from iqa_core.rubrics.released.reading import ReleasedWords

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
WIDE = 100
"""Columns beyond which an array has a line for each of its elements."""


def toml_text(reading: ReleasedWords) -> str:
    """The file's text, with a final newline."""
    return "\n".join([*_comments(reading), *_tables(reading.content), ""])


def _comments(reading: ReleasedWords) -> Iterator[str]:
    width = max(len(what) for what, _ in reading.sources)
    yield from (f"# {what:<{width}}  {place}" for what, place in reading.sources)
    yield from (f"# {note}" for note in reading.notes)


def _tables(content: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the file; dictionaries become tables behind the rest, and lists of them arrays of tables."""
    arrays = {
        key: value for key, value in content.items() if isinstance(value, list) and value and isinstance(value[0], dict)
    }
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    yield from _lines({key: value for key, value in content.items() if key not in arrays and key not in tables})
    for key, table in tables.items():
        yield from ("", f"[{key}]", *_lines(table))
    for key, array in arrays.items():
        for table in array:
            yield from ("", f"[[{key}]]", *_lines(table))


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{_key(key)} = {_value(value)}" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # the escapes of TOML's basic strings are JSON's
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_key(key)} = {_value(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        line = f"[{', '.join(map(_value, value))}]"
        return line if len(line) <= WIDE else "".join(["[\n", *(f"    {_value(one)},\n" for one in value), "]"])
    return repr(value)


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _value(key)
