"""Rubrics of released models that write: a checkpoint's own settings are noted and never used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.visualquality_r1 import read_visualquality_r1
from iqa_core.rubrics.released.writers import GENERATION
from tests.rubrics.released.copies import write_copy
from tests.rubrics.released.writer_copies import VISUALQUALITY_R1

LEAKING = {"do_sample": True, "temperature": 1e-06, "repetition_penalty": 1.05, "eos_token_id": [1, 2], "top_k": None}


def test_what_would_leak_is_noted_and_changes_nothing(tmp_path: Path) -> None:
    without = read_visualquality_r1(write_copy(tmp_path, VISUALQUALITY_R1))
    write_copy(tmp_path, {GENERATION: json.dumps(LEAKING)})
    beside = read_visualquality_r1(tmp_path)
    assert beside.content == without.content
    assert beside.notes == (
        *without.notes,
        f"{GENERATION} says do_sample true, temperature 1e-06, repetition_penalty 1.05: noted here, and never used",
    )


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[1]"])
def test_a_settings_file_that_is_none(text: str, tmp_path: Path) -> None:
    write_copy(tmp_path, {**VISUALQUALITY_R1, GENERATION: text})
    with pytest.raises(CallerError, match=r"generation_config.json is no"):
        read_visualquality_r1(tmp_path)
