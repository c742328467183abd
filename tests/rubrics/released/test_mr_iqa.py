"""MR-IQA's words from a copy of its code, of newer and older layout; system texts differ between training and use."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.mr_iqa import ONE_IMAGE, TRAINING, USE, read_mr_iqa
from tests.rubrics.released.copies import line_of, write_copy
from tests.rubrics.released.writer_copies import EVALUATION, MR_IQA, OLDER_MR_IQA


@pytest.mark.parametrize("files", [MR_IQA, OLDER_MR_IQA], ids=["newer", "older"])
def test_plain_has_no_system_turn_and_says_that_training_had_one(files: dict[str, str], tmp_path: Path) -> None:
    words = read_mr_iqa(write_copy(tmp_path, files))
    assert "system" not in words.content
    assert words.content["question"].startswith("How sound is it")
    assert words.content["output"] == {"grammar": "tagged-number", "thought": "none"}
    assert (words.content["decoding"]["temperature"], words.content["decoding"]["max_new_tokens"]) == (0, 60)
    place = line_of(tmp_path, TRAINING, "SYSTEM_PROMPT =")
    assert words.notes[:2] == (
        f"{place}, has a system turn for training: --form plain-training asks with it",
        "no system turn is given: what the checkpoint's chat template then puts there is part of the prompt",
    )


@pytest.mark.parametrize("files", [MR_IQA, OLDER_MR_IQA], ids=["newer", "older"])
def test_plain_as_it_was_trained(files: dict[str, str], tmp_path: Path) -> None:
    words = read_mr_iqa(write_copy(tmp_path, files), "plain-training")
    assert words.content["system"].startswith("You say nothing but the number")
    assert words.content["question"].startswith("How sound was it")
    assert dict(words.sources)["system"] == line_of(tmp_path, TRAINING, "SYSTEM_PROMPT =")


def test_thinking(tmp_path: Path) -> None:
    words = read_mr_iqa(write_copy(tmp_path, MR_IQA), "thinking")
    assert words.content["system"].startswith("You muse in <thinking>")
    assert words.content["output"] == {"grammar": "tagged-json", "thought": "thinking"}
    assert words.content["attributes"][0]["label"] == "rating"
    assert words.content["decoding"]["max_new_tokens"] == 200
    assert dict(words.sources)["decoding, max_new_tokens"] == line_of(tmp_path, ONE_IMAGE, "limit =")


def test_an_older_copy_does_not_think(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="assigns to THINKING_PROMPT nowhere"):
        read_mr_iqa(write_copy(tmp_path, OLDER_MR_IQA), "thinking")


@pytest.mark.parametrize(
    ("name", "old", "new", "form", "said"),
    [
        (USE, "return None, NON_THINKING_PROMPT", "return NON_THINKING_PROMPT", "plain", "nothing returns its text"),
        (USE, "<answer> </answer>.", "", "plain", "names <answer>"),
        (USE, '"--temperature"', '"--heat"', "plain", "no flag --temperature with a default"),
        (USE, "default=60", "default=None", "plain", "a plain number is expected"),
        (ONE_IMAGE, '"thinking"', '"musing"', "thinking", "no max_new_tokens for thinking"),
        (TRAINING, "USER_PROMPT", "USER_TEXT", "plain-training", "assigns to NON_THINKING_USER_PROMPT nowhere"),
    ],
)
def test_words_that_have_moved(name: str, old: str, new: str, form: str, said: str, tmp_path: Path) -> None:
    assert old in MR_IQA[name]
    write_copy(tmp_path, {**MR_IQA, name: MR_IQA[name].replace(old, new)})
    with pytest.raises(CallerError, match=said):
        read_mr_iqa(tmp_path, form)


def test_the_system_of_use_is_taken_where_there_is_one(tmp_path: Path) -> None:
    text = EVALUATION.replace("return None, NON", "return THINKING_SYSTEM_PROMPT, NON")
    words = read_mr_iqa(write_copy(tmp_path, {**MR_IQA, USE: text}))
    assert words.content["system"].startswith("You muse in <thinking>")
    assert not any("--form" in note for note in words.notes)
