"""Settings of decoding -> one line for the fingerprint; those that would be ignored are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from iqa_core.rubrics.written import Decoding


def test_a_line_says_every_setting() -> None:
    assert Decoding().describe() == (
        "samples=1 temperature=0 top_k=0 top_p=1 min_p=0 repetition_penalty=1 presence_penalty=0 max_new_tokens=512 "
        "stop=[] seed=0 suppress_image=true readout=parsed"
    )
    drawn = Decoding(samples=5, temperature=0.7, top_k=50, top_p=0.95, stop=("</answer>",), seed=3, readout="expected")
    said = drawn.describe()
    assert said.startswith("samples=5 temperature=0.7 top_k=50 top_p=0.95 min_p=0 ")
    assert said.endswith('stop=["</answer>"] seed=3 suppress_image=true readout=expected')
    assert {part.partition("=")[0] for part in said.split()} == set(Decoding.model_fields)


@pytest.mark.parametrize("name", Decoding.model_fields)
def test_every_setting_changes_the_line(name: str) -> None:
    other: dict[str, Any] = {"samples": 2, "temperature": 0.5, "stop": ("x",), "suppress_image": False}
    value = {"top_p": 0.5, "min_p": 0.5, "readout": "expected", **other}.get(name, 7)
    drawn = Decoding(temperature=1)
    assert Decoding.model_validate({"temperature": 1, name: value}).describe() != drawn.describe()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"samples": 2}, "temperature 0 are all the same"),
        ({"top_k": 50}, "top_k would be ignored"),
        ({"top_p": 0.9}, "top_p would be ignored"),
        ({"min_p": 0.1}, "min_p would be ignored"),
        ({"seed": 1}, "seed would be ignored"),
        ({"top": 1}, "Extra inputs"),
        ({"readout": "first"}, "parsed"),
        ({"max_new_tokens": 0}, "greater"),
        ({"temperature": float("nan")}, "less than"),
    ],
)
def test_what_would_be_ignored_or_is_no_setting_is_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Decoding.model_validate(settings)
