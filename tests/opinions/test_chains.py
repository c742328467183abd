"""What people wrote about images -> chains and opinions, and lines that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iqa_core.errors import CallerError
from iqa_core.opinions.chains import load_chains
from iqa_core.opinions.load import load_opinions

EIGHT = ("sharpness", "exposure", "colour", "noise", "contrast", "composition", "content", "artifacts")


def chains_file(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "people.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def line(image: str = "a.png", **more: Any) -> dict[str, Any]:
    return {"image": image, **more}


def test_texts_and_ratings_of_several_raters(tmp_path: Path) -> None:
    rated = {name: 1 + k / 2 for k, name in enumerate(EIGHT)}
    path = chains_file(
        tmp_path,
        line(rater="r1", caption=" A dark hall. ", reasoning="Too dark.", rating=2, dimensions=rated),
        line("b.png", caption="A sharp lamp.", rating=5),
        line(rater="r2", reasoning="The walls are noisy.", rating=3, dimensions={"noise": 1}),
        line("c.png", caption="Nothing was rated here."),
    )
    found = load_chains([f"chains:{path}"])
    assert load_chains([str(path)]) == found
    first, second = found[tmp_path / "a.png"]
    assert (first.rater, first.caption, first.reasoning) == ("r1", "A dark hall.", "Too dark.")
    assert first.ratings == {"quality": 2.0, **rated}
    assert (second.text("caption"), second.text("reasoning")) == (None, "The walls are noisy.")
    assert [chain.rater for chain in found[tmp_path / "b.png"]] == [None]
    opinions = load_opinions([f"chains:{path}"])
    by_name = {(row.image, row.dimension): row for row in opinions.rows}
    assert by_name["a.png", "quality"].mos == 2.5
    assert by_name["a.png", "quality"].raters == (2.0, 3.0)
    assert by_name["a.png", "noise"].num_raters == 2
    assert by_name["a.png", "sharpness"].num_raters == 1
    assert {row.image for row in opinions.rows} == {"a.png", "b.png"}


def test_a_range_of_the_files_own(tmp_path: Path) -> None:
    path = chains_file(tmp_path, line(rating=75, dimensions={"noise": 0}))
    [row, noise] = load_opinions([f"chains:{path}?worst=0&best=100&dataset=q"]).rows
    assert (row.mos, noise.mos, row.dataset) == (4.0, 1.0, "q")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line()], "line 1: nothing is said of a.png"),
        ([line(caption=3)], "caption is 3; a text is wanted"),
        ([line(rating=7)], "7 is outside of 1"),
        ([line(dimensions=[1])], "an object of names and numbers is wanted"),
        ([line(dimensions={"noise": "loud"})], "noise is 'loud'; a number is wanted"),
        ([line(rating=1, dimensions={"quality": 2})], "are the same; leave one"),
        ([line(rater="r", rating=1), line(rater="r", rating=2)], "line 2: rater r has a line about a.png already"),
        ([], "holds no line"),
        ([{"rating": 3}], "image is None"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(CallerError, match=message):
        load_chains([str(chains_file(tmp_path, *lines))])


def test_other_files_and_options_are_refused(tmp_path: Path) -> None:
    for address, message in (
        ("people.csv", "chains are .jsonl files"),
        ("people.jsonl?worst=0", "worst and best"),
        ("gone.jsonl", "cannot be read"),
    ):
        with pytest.raises(CallerError, match=message):
            load_chains([str(tmp_path / address)])
