"""VQAScore's question and answer from a copy of its code: of one model, from constants or defaults that all agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.rubrics.released.vqascore import read_vqascore
from tests.rubrics.released.copies import MODELS, VQASCORE, line_of, write_copy

PAGE = """```python
default_question_template = 'Is "{}" to be seen? Say yes or no.'
default_answer_template = 'Yes'
```
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return write_copy(tmp_path, {**VQASCORE, "README.md": PAGE})


def test_the_recommended_model_and_the_page(copy: Path) -> None:
    reading = read_vqascore(copy)
    assert reading.content["slots"] == ["prompt"]
    assert reading.content["dimensions"] == [
        {
            "name": "vqascore",
            "query": 'Is "{prompt}" to be seen? Say yes or no.',
            "answer_prefix": "",
            "answers": {"No": 0, "Yes": 1},
        }
    ]
    code = f"{MODELS}/clip_t5_model.py"
    assert dict(reading.sources) == {
        "question": f"{line_of(copy, code, 'default_question_template = ')}; README.md, line 2",
        "answer Yes": f"{line_of(copy, code, 'default_answer_template = ')}; "
        f"{line_of(copy, code, 'def forward')}; README.md, line 3",
    }
    assert "between" not in reading.content
    assert [note[:20] for note in reading.notes] == ["the answer No is our", "the module joins pic"]


def test_another_model_has_words_of_its_own(copy: Path) -> None:
    reading = read_vqascore(copy, "other")
    [asked] = reading.content["dimensions"]
    assert (asked["query"], asked["answers"]) == ('Is it "{prompt}"?', {"no": 0, "yes": 1})
    code = f"{MODELS}/other_model.py"
    both = [line_of(copy, code, f"def {name}") for name in ("forward", "traced")]
    assert dict(reading.sources)["question"] == "; ".join(both)
    assert reading.content["id"] == "vqascore-other"


@pytest.mark.parametrize(
    ("old", "new", "is_apart"),
    [
        ("", "", True),
        ("[images, {", "images + [{", True),
        ('"text": question', '"text": "<image>" + question', False),
        ('"text": question', '"text": DEFAULT_IMAGE_TOKEN + "\\n" + question', False),
        ('[images, {"type": "text", "text": question}]', '[{"type": "text", "text": question}, images]', False),
    ],
)
def test_a_question_that_is_a_part_of_its_own_stands_right_behind_the_picture(
    old: str, new: str, is_apart: bool, copy: Path
) -> None:
    code = f"{MODELS}/other_model.py"
    text = (copy / code).read_text(encoding="utf-8")
    assert old in text
    (copy / code).write_text(text.replace(old, new), encoding="utf-8")
    reading = read_vqascore(copy, "other")
    assert reading.content.get("between") == ("" if is_apart else None)
    assert len(reading.notes) == (1 if is_apart else 2)
    wanted = line_of(copy, code, '"content"') if is_apart else None
    assert dict(reading.sources).get("picture and question") == wanted


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("README.md", "to be seen", "there", 'README.md, line 2 has \'Is "{}" there'),
        (f"{MODELS}/clip_t5_model.py", 'template="Yes"', 'template="yes"', "the answer is not the same everywhere"),
        (f"{MODELS}/clip_t5_model.py", '"{}"', "it", r"has not just one \{\} for the prompt"),
        (f"{MODELS}/clip_t5_model.py", '"{}"', "{} {0}", r"has not just one \{\} for the prompt"),
        (f"{MODELS}/clip_t5_model.py", '= "Yes"', "= answer()", "line 6: a plain text is expected here"),
        (f"{MODELS}/clip_t5_model.py", "Yes", "True", "line 6 counts the answer 'True'; the opposite of Yes alone"),
        (f"{MODELS}/clip_t5_model.py", "question_template", "question", "clip_t5_model.py has no question_template"),
    ],
)
def test_words_that_have_moved_or_that_two_places_have_otherwise(
    name: str, old: str, new: str, said: str, copy: Path
) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    assert old in text
    if name != "README.md":
        (copy / "README.md").unlink()
    (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(CallerError, match=said):
        read_vqascore(copy)


@pytest.mark.parametrize("model", ["none", "../clip_t5", "", "clip_t5_model"])
def test_a_model_that_is_not_there(model: str, copy: Path) -> None:
    (copy / MODELS / "not-a-model.py").touch()
    with pytest.raises(CallerError, match=r"_model.py; models there: clip_t5, other$"):
        read_vqascore(copy, model)


def test_another_folder(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="models there: none"):
        read_vqascore(tmp_path)
