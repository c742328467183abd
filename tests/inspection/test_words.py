"""`python -m iqa_core rubric`: what it prints and writes loads as a rubric; what it refuses leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.__main__ import main
from iqa_core.rubrics import Rubric, WrittenRubric, load_any_rubric, load_rubric
from iqa_core.written.parsing import Parsed, parsed
from tests.rubrics.released.copies import CARD, PROMPTS, Q_REALIGN, VQASCORE, write_copy
from tests.rubrics.released.writer_copies import MR_IQA, MR_IQA_2, Q_INSIGHT, VISUALQUALITY_R1


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_copy(tmp_path / "realign", {**Q_REALIGN, "README.md": CARD})
    write_copy(tmp_path / "t2v", VQASCORE)
    for name, files in {"r1": VISUALQUALITY_R1, "insight": Q_INSIGHT, "mr": MR_IQA, "mr2": MR_IQA_2}.items():
        write_copy(tmp_path / name, files)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], line: str) -> Rubric:
    """The rubric that a command prints."""
    assert main(line.split()) == 0
    Path("printed.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    return load_rubric("printed.toml")


def test_the_words_of_q_realign(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rubric = printed(capsys, "rubric q-realign realign")
    assert rubric.names == ("quality", "aesthetics")
    quality, aesthetics = rubric.questions
    assert (quality.query, quality.answer_start) == ("Is it sound?", " Its soundness is")
    assert (aesthetics.query, aesthetics.answer_start) == ("Is it beautiful?", " Its beauty is")
    for question in rubric.questions:
        assert (question.scale.answers, question.scale.worths) == (("awful", "fine", "superb"), (0.0, 0.5, 1.0))
    assert (rubric.slots, rubric.system) == ((), None)


@pytest.mark.parametrize(
    ("model", "query", "answers"),
    [
        ("", 'Is "{prompt}" to be seen? Say yes or no.', ("No", "Yes")),
        (" --model other", 'Is it "{prompt}"?', ("no", "yes")),
    ],
)
def test_the_words_of_vqascore(
    model: str, query: str, answers: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rubric = printed(capsys, f"rubric vqascore t2v{model}")
    [question] = rubric.questions
    assert (question.query, question.answer_start, question.slots) == (query, "", ("prompt",))
    assert (question.scale.answers, question.scale.worths) == (answers, (0.0, 1.0))
    assert rubric.slots == ("prompt",)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("visualquality-r1 r1", "<think>Sound.</think>\n<answer> 3.5 </answer>"),
        ("visualquality-r1 r1 --form plain", "<answer>3.50</answer>"),
        ("q-insight insight", '<think>Sound.</think>\n<answer>\n{"rating": 3.5}\n</answer>'),
        ("q-insight insight --form training", '<think>Sound.</think><answer>{"rating": 3.5}</answer>'),
        ("mr-iqa mr", "<answer>3.50</answer>"),
        ("mr-iqa mr --form thinking", '<thinking>Sound.</thinking><answer>{"rating": 3.50}</answer>'),
        ("mr-iqa mr --form plain-training", "<answer>3.50</answer>"),
        (
            "mr-iqa-2 mr2",
            '<think>\n\n</think>\n\n{"reasoning": {"seen": "Sound.", "mended": "Nothing."}, "mark": "3.50"}',
        ),
    ],
)
def test_the_words_of_a_model_that_writes_and_its_answer(
    line: str, answer: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"rubric {line} --output new.toml".split()) == 0
    assert capsys.readouterr().out.endswith("written in new.toml\n")
    rubric = load_any_rubric("new.toml")
    assert isinstance(rubric, WrittenRubric)
    found = parsed(answer, rubric.form)
    assert isinstance(found, Parsed)
    assert found.values == (3.5,)


def test_a_file_has_what_is_printed_without_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rubric = printed(capsys, "rubric q-realign realign")
    assert main("rubric q-realign realign --output new/realign.toml".split()) == 0
    told = capsys.readouterr().out
    assert load_rubric("new/realign.toml") == rubric
    assert Path("new/realign.toml").read_text() == Path("printed.toml").read_text()
    assert "quality, question                     qalign/prompts.py, line 12\n" in told
    assert told.endswith("written in new/realign.toml\n")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("q-realign nowhere", "nowhere is no folder"),
        ("q-realign realign/qalign/prompts.py", "prompts.py is no folder"),
        (f"q-realign {'n' * 300}", "is no folder"),
        ("q-realign t2v", "has neither Q-ReAlign's code"),
        ("q-realign realign --model mini", "--model mini: q-realign asks all its models in the same words"),
        ("vqascore realign", "models there: none"),
        ("mr-iqa-2 mr", "prompt_contract.py is not there"),
        ("mr-iqa mr --form loud", "--form loud: mr-iqa is asked as one of plain, thinking, plain-training"),
        ("mr-iqa mr --model 4b", "--model 4b: mr-iqa asks all its models in the same words"),
        ("mr-iqa-2 mr2 --form plain", "--form plain: mr-iqa-2 has one way of asking"),
        ("vqascore t2v --model ../../secret", "models there: clip_t5, other"),
        ("q-realign realign --output words.txt", "ends in .toml"),
        ("q-realign realign --output s3://bucket/words.toml", "to this machine alone"),
        ("q-realign realign --output realign", "it is a folder"),
        ("q-realign realign --output realign/README.md/words.toml", "README.md is a file; give a folder"),
    ],
)
def test_refusals(line: str, why: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(here.rglob("*"))
    assert main(["rubric", *line.split()]) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert said.out == ""
    assert sorted(here.rglob("*")) == before


def test_words_that_make_no_rubric(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_copy(here / "realign", {"qalign/prompts.py": PROMPTS.replace('"Is it beautiful?"', '" "')})
    assert main("rubric q-realign realign --output realign.toml".split()) == 2
    assert "rubric in the words of realign: dimensions.1.query: " in capsys.readouterr().err
    assert not Path("realign.toml").exists()
