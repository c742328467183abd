"""Opposite words -> attributes on which one text says what another denies."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from iqa_core.reasons.opposites import contradictions, contradictions_of_people, side
from iqa_core.rubrics import load_any_rubric, written_names
from iqa_core.rubrics.written.rubric import Opposites, WrittenRubric

SHARP = Opposites(name="sharpness", one=("sharp", "crisp"), other=("blurry", "blur"))
LIGHT = Opposites(name="light", one=("bright",), other=("dark",))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A sharp hall.", 1),
        ("Blurry, at the left.", -1),
        ("No blur and no noise", 1),
        ("It isn't very sharp", -1),
        ("barely blurry", 1),
        ("not in any part of it blurry", -1),
        ("The front is sharp, the back is blurry.", 0),
        ("A hall.", 0),
        ("sharpness", 0),
    ],
)
def test_the_side_of_a_text(text: str, wanted: int) -> None:
    assert side(text, SHARP) == wanted


def test_pairs_that_take_sides_are_counted_and_contradictions_among_them() -> None:
    """The pair of the literature: opposite meanings with a ROUGE-1 of .36."""
    texts = [["Clear image, no blur, bright."], ["A dark, sharp hall."], ["Dark."], []]
    people = [["Blurry image with noise."], ["A dark hall.", "A bright and crisp hall."], ["Sharp."], ["Dark."]]
    found = contradictions(texts, people, [SHARP, LIGHT], 100, 0)
    assert {name: (one.pairs, one.contradicted) for name, one in found.items()} == {
        "sharpness": (2, 1),
        "light": (2, 1),
        "all": (4, 2),
    }
    assert found["all"].share.value == 0.5
    among = contradictions_of_people(people, [LIGHT], 100, 0)
    assert {name: (one.pairs, one.contradicted) for name, one in among.items()} == {"light": (1, 1)}
    assert contradictions([], [], [], 100, 0) == {}
    assert contradictions([["A hall."]], [["A hall."]], [LIGHT], 100, 0)["light"].share.value is None


def test_opposites_are_no_part_of_a_digest() -> None:
    for name in written_names():
        rubric = load_any_rubric(name)
        assert isinstance(rubric, WrittenRubric)
        assert rubric.opposites
        assert rubric.model_copy(update={"opposites": ()}).digest == rubric.digest


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (["sharp"], ["sharp"], "sharp cannot be on both sides"),
        (["very sharp"], ["blurry"], "no single word"),
        (["Sharp"], ["blurry"], "in lower case"),
        ([], ["blurry"], "at least 1"),
    ],
)
def test_lists_that_are_refused(one: list[str], other: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Opposites(name="sharpness", one=tuple(one), other=tuple(other))


def test_names_of_opposites_differ() -> None:
    content = load_any_rubric("perception-v1").model_dump()
    with pytest.raises(ValidationError, match="names of opposites must differ"):
        WrittenRubric.model_validate({**content, "opposites": [content["opposites"][0]] * 2})
