"""VisualQuality-R1's words from a copy of its page: of examples with a thought or without, which must agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released import ReleasedWords
from iqa_core.rubrics.released.visualquality_r1 import read_visualquality_r1
from tests.rubrics.released.copies import line_of, write_copy
from tests.rubrics.released.writer_copies import ANSWER, PAGE, THINK, VISUALQUALITY_R1, WORDS

SETTINGS = "max_new_tokens=900, do_sample=True"


def reading(folder: Path, old: str = "", new: str = "", form: str = "thinking") -> ReleasedWords:
    """What is read of a page in which another text stands once."""
    assert old in PAGE
    return read_visualquality_r1(write_copy(folder, {"README.md": PAGE.replace(old, new, 1) if old else PAGE}), form)


def test_a_thought_and_a_number(tmp_path: Path) -> None:
    words = reading(tmp_path)
    assert words.content["question"] == f"{WORDS} {THINK}{ANSWER}"
    assert words.content["parts"] == ["image", "text"]
    assert words.content["template"] == {"add_vision_id": True}
    assert words.content["output"] == {"grammar": "tagged-number", "thought": "think", "last_answer": True}
    assert "system" not in words.content
    places = dict(words.sources)
    assert places["question"] == line_of(tmp_path, "README.md", f'"{WORDS} {THINK}{ANSWER}"')
    assert places["decoding, max_new_tokens"] == line_of(tmp_path, "README.md", "max_new_tokens=900")
    assert "decoding, temperature" not in places


def test_the_number_alone(tmp_path: Path) -> None:
    words = reading(tmp_path, form="plain")
    assert words.content["question"] == f"{WORDS} {ANSWER}"
    assert words.content["output"]["thought"] == "none"
    assert words.content["decoding"]["max_new_tokens"] == 300


def test_no_setting_is_left_to_a_checkpoint(tmp_path: Path) -> None:
    words = reading(tmp_path)
    assert words.content["decoding"] == {
        "samples": 1,
        "temperature": 1,
        "top_k": 50,
        "top_p": 1,
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "max_new_tokens": 900,
        "stop": [],
        "seed": 0,
        "suppress_image": True,
        "readout": "parsed",
    }
    said = "\n".join(words.notes)
    assert "its examples have 900 (" + line_of(tmp_path, "README.md", "max_new_tokens=900") + ") and 300" in said
    assert "temperature is set nowhere: 1 is transformers' default" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (f"{WORDS} {THINK}", f"{WORDS} Now muse: {THINK}", "the question is not the same everywhere"),
        ("add_vision_id=True", "add_vision_id=flag", "line 10: a plain True or False is expected"),
        ("{Question}", "{Other}", r"has not just one \{Question\}"),
        ("TEMPLATE.format(Question=PROMPT)", "make(PROMPT)", "made in a way that is not known"),
        (SETTINGS, f"{SETTINGS}, num_beams=4", "num_beams is set for decoding"),
        (SETTINGS, SETTINGS.replace("True", "False"), "draws no samples any more"),
        (SETTINGS, f"{SETTINGS}, temperature=0.5", "not every example sets temperature"),
        ('{"role": "user"', '{"role": "system", "content": "x"}, {"role": "user"', "README.md has an example with"),
    ],
)
def test_words_that_have_moved(old: str, new: str, said: str, tmp_path: Path) -> None:
    form = "thinking" if THINK in old or old == SETTINGS else "plain"
    with pytest.raises(CallerError, match=said):
        reading(tmp_path, old, new, form)


@pytest.mark.parametrize(("form", "which"), [("thinking", "and"), ("plain", "without")])
def test_a_page_without_examples(form: str, which: str, tmp_path: Path) -> None:
    write_copy(tmp_path, {**VISUALQUALITY_R1, "README.md": "# Another page\n"})
    with pytest.raises(CallerError, match=rf"README.md has no example .* <answer> {which} <think>"):
        read_visualquality_r1(tmp_path, form)
