"""MR-IQA-2's words from a copy of its code: of the form with evidence and solution, of several that stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.mr_iqa_2 import FIELDS, SCHEMA, USE, WORDS, read_mr_iqa_2
from tests.rubrics.released.copies import line_of, write_copy
from tests.rubrics.released.writer_copies import MR_IQA_2


def test_the_form_with_evidence_and_solution(tmp_path: Path) -> None:
    words = read_mr_iqa_2(write_copy(tmp_path, MR_IQA_2))
    assert words.content["question"].startswith('Write {"reasoning": {"seen": text')
    assert words.content["system"] == "You write JSON."
    assert words.content["parts"] == ["image", "text"]
    assert words.content["template"] == {"enable_thinking": False}
    assert words.content["output"] == {
        "grammar": "json",
        "reasoning": ["seen", "mended"],
        "quoted": True,
        "strip_prefix": True,
    }
    assert words.content["attributes"][0]["label"] == "mark"
    assert dict(words.sources)["template, enable_thinking"] == line_of(tmp_path, WORDS, "ENABLE_THINKING")


def test_what_greedy_decoding_ignores_is_noted_and_left_out(tmp_path: Path) -> None:
    words = read_mr_iqa_2(write_copy(tmp_path, MR_IQA_2))
    decoding = words.content["decoding"]
    assert [decoding[name] for name in ("temperature", "top_k", "presence_penalty", "max_new_tokens")] == [
        0,
        0,
        1.5,
        250,
    ]
    place = line_of(tmp_path, USE, "--top_k")
    assert f"top_k 20 ({place}) has no effect at temperature 0 and is left out" in words.notes


def test_the_size_of_images_is_told(tmp_path: Path) -> None:
    words = read_mr_iqa_2(write_copy(tmp_path, MR_IQA_2))
    place = line_of(tmp_path, USE, "--max_pixels")
    assert words.notes[0] == f"images have at most 196608 pixels ({place}): --assessor.max-pixels"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (WORDS, SCHEMA, "ANOTHER_SCHEMA", "no USER_PROMPT_TEXT under REASONING_EVIDENCE"),
        (WORDS, '"mark"', '"rating"', 'names "mark"'),
        (WORDS, "ENABLE_THINKING = False", "ENABLE_THINKING = flag()", "a plain True or False is expected"),
        (FIELDS, '("reasoning", "mark")', '("reasons", "mark")', "it had reasoning and a number"),
        (FIELDS, "REASONING_FIELDS", "FIELDS", "assigns to REASONING_FIELDS nowhere"),
        (USE, '"--presence_penalty"', '"--penalty"', "no flag --presence_penalty with a default"),
    ],
)
def test_words_that_have_moved(name: str, old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in MR_IQA_2[name]
    write_copy(tmp_path, {**MR_IQA_2, name: MR_IQA_2[name].replace(old, new)})
    with pytest.raises(CallerError, match=said):
        read_mr_iqa_2(tmp_path)
