"""The text of a reading is TOML with its content, and comments that no word can leave."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_core.rubrics.released import ReleasedWords, toml_text

READABLE = st.text(st.characters(exclude_categories=["C"]) | st.sampled_from("\n\t\"'\\#{}[]="))
SCALARS = READABLE | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
TABLES = st.dictionaries(st.sampled_from(["name", "query", "list"]), SCALARS | st.lists(READABLE, max_size=5))


@pytest.mark.slow
@given(content=TABLES, tables=st.lists(TABLES, min_size=1, max_size=3), answers=st.dictionaries(READABLE, SCALARS))
def test_the_content_comes_back(content: dict[str, Any], tables: list[dict[str, Any]], answers: dict[str, Any]) -> None:
    whole = content | {"answers": answers, "dimensions": tables}
    text = toml_text(ReleasedWords(whole, (("question", "a.py, line 1"),), ("a note",)))
    assert tomllib.loads(text) == whole
    assert text.startswith("# question  a.py, line 1\n# a note\n")
