"""A rubric's slots and ranges -> texts and numbers of our own tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_core.errors import CallerError
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.opinion import SECOND_OPINION
from iqa_core.opinions.rows import NO_OPINION
from iqa_core.opinions.terms import LEFT_OUT, Terms, terms_of
from iqa_core.records import Reason
from iqa_core.slots import TextLimits
from tests.unlike import ASKING, TRAINABLE

HEAD = "image,dimension,mos,caption,style\n"


def read(path: Path, lines: str, terms: Terms, options: str = "range=own") -> list[tuple[str, float, object]]:
    path.write_text(HEAD + lines)
    found = load_opinions([f"{path}?{options}"], terms=terms).rows
    return [(row.dimension, row.mos, row.texts) for row in found]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "opinions.csv"


def test_an_opinion_has_the_texts_of_its_question_and_the_range_of_its_own(path: Path) -> None:
    lines = "a.png,faithful,1,a cat,\na.png,layout,2,,\na.png,cat,0.25,,oil\na.png,things,0.5,,oil\n"
    assert read(path, lines, terms_of(ASKING, ["prompt=caption"])) == [
        ("faithful", 5, (("prompt", "a cat"),)),
        ("layout", 2, ()),
        ("cat", 2, (("style", "oil"),)),
        ("things", 3, ()),
    ]
    [(_, mos, texts)] = read(path, "a.png,noise,10,,\n", terms_of(TRAINABLE))
    assert (mos, texts) == (1, ()), "where less is better, its best end is 5"


def test_a_scored_image_has_the_texts_of_all_questions(path: Path) -> None:
    [(_, _, texts)] = read(path, "a.png,layout,2,a cat,oil\n", terms_of(ASKING, ["prompt=caption"], whole=True))
    assert texts == (("prompt", "a cat"), ("style", "oil"))


def test_another_text_is_another_opinion_and_one_without_is_counted(path: Path) -> None:
    path.write_text(
        f"{HEAD}a.png,faithful,1,a cat,\na.png,faithful,0,a dog,\na.png,faithful,0,a cat,\nb.png,faithful,1, ,\n"
        "c.png,faithful,,,\n"
    )
    found = load_opinions([f"{path}?range=own"], terms=terms_of(ASKING, ["prompt=caption"]))
    assert [row.mos for row in found.rows] == [5, 1]
    assert found.dropped == {SECOND_OPINION: 1, LEFT_OUT[Reason.MISSING_TEXT]: 1, NO_OPINION: 1}


def test_what_the_rubric_cannot_say_is_an_error(path: Path) -> None:
    line = "a.png,faithful,1,a cat,\n"
    with pytest.raises(CallerError, match=r"line 2: no column prompt with texts for \{prompt\}"):
        read(path, line, terms_of(ASKING))
    with pytest.raises(CallerError, match="takes the range of faithful from the rubric, and there is no rubric"):
        read(path, line, Terms())
    with pytest.raises(CallerError, match="range=own says what worst and best would"):
        read(path, line, terms_of(ASKING), "range=own&worst=0&best=1")
    (path.parent / "deqa.json").write_text('[{"image": "a.png", "gt_score_norm": 3}]')
    with pytest.raises(CallerError, match="only a table of our own has columns of texts"):
        load_opinions([f"deqa:{path.parent / 'deqa.json'}?dimension=faithful"], terms=terms_of(ASKING))
    assert load_opinions([f"deqa:{path.parent / 'deqa.json'}?dimension=layout"], terms=terms_of(ASKING)).rows


def test_a_cut_text_says_so(path: Path) -> None:
    path.write_text(HEAD + "a.png,faithful,1,a large cat,\na.png,faithful,1,a cat,\n")
    terms = terms_of(ASKING, ["prompt=caption"], TextLimits(5, TextLimits().too_long.CUT))
    found = load_opinions([f"{path}?range=own"], terms=terms).rows
    assert [(row.texts[0][1], row.is_cut) for row in found] == [("a lar", True), ("a cat", False)]
