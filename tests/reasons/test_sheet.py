"""What models wrote -> a Label Studio sheet, and a filled one -> how people rate it.

Tests iqa_core/reasons/ratings.py and iqa_core/reasons/commands.py as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from iqa_core.__main__ import main
from iqa_core.errors import CallerError
from iqa_core.reasons.ratings import read_sheet, summaries
from iqa_core.reasons.sheet import QUESTIONS, Rated, files


def tasks() -> list[dict[str, Any]]:
    answers = [
        Rated(f"/rooms/{n}.png", "A hall & a <lamp>.", "Too dark.", {"quality": 2.5}, f"model {n % 2}")
        for n in range(8)
    ]
    found = json.loads(files(answers)["tasks.json"])
    assert isinstance(found, list)
    return found


def annotation(rater: int, stars: float | str, question: str = "true", **more: Any) -> dict[str, Any]:
    result = {"from_name": question, "to_name": "said", "type": "rating", "value": {"rating": stars}}
    return {"completed_by": rater, "result": [result], **more}


def export(folder: Path, content: object) -> Path:
    path = folder / "export.json"
    path.write_text(json.dumps(content))
    return path


def filled() -> list[dict[str, Any]]:
    """Of two assessors, four answers each: two raters see all of them but for the last."""
    found = tasks()
    for n, task in enumerate(found[:-1]):
        task["annotations"] = [annotation(1, 1 + n % 5), annotation({"id": 2}, min(5, 2 + n % 5))]  # type: ignore[arg-type]
    found[0]["annotations"].append(annotation(3, 5, was_cancelled=True))
    found[-1]["annotations"] = []
    return found


def test_the_sheet_shows_texts_and_numbers_and_not_whose_they_are() -> None:
    [first, *_] = tasks()
    assert first["data"] == {
        "image": "/rooms/0.png",
        "said": "A hall & a <lamp>.\n\nToo dark.",
        "numbers": "quality 2.50",
        "assessor": "model 0",
    }
    interface = ElementTree.fromstring(files([])["label_config.xml"])
    assert [rating.get("name") for rating in interface.iter("Rating")] == list(QUESTIONS)
    shown = {element.get("value", "") for element in interface.iter()}
    assert {"$image", "$said", "$numbers", *QUESTIONS.values()} <= shown
    assert "$assessor" not in shown


def test_ratings_are_read_back_by_assessor(tmp_path: Path) -> None:
    sheet = read_sheet(export(tmp_path, filled()))
    assert (len(sheet.ratings), sheet.unrated, sheet.cancelled) == (14, 1, 1)
    found = summaries(sheet.ratings, 200, 0)
    assert {name: list(questions) for name, questions in found.items()} == {"model 0": ["true"], "model 1": ["true"]}
    own = found["model 0"]["true"]
    assert (own.images, own.raters, own.ratings) == (4, 2, 8)
    assert own.mean.value is not None
    assert own.mean.value == pytest.approx((1.5 + 3.5 + 5 + 2.5) / 4)
    assert own.mean.low is not None
    assert own.mean.low < own.mean.value
    assert own.ceiling is not None
    assert own.ceiling.images == 4


def test_the_command_prints_and_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    assert main(["ratings", str(export(tmp_path, filled())), "--output", str(output), "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert f"| {QUESTIONS['true']} | 4 | 2 | 8 | 3.12 [" in printed
    assert "left out   1 tasks without a rating" in printed
    figures = json.loads(output.read_text())
    assert figures["assessors"]["model 1"]["true"]["images"] == 3
    assert (figures["unrated"], figures["cancelled"]) == (1, 1)
    assert main(["ratings", str(tmp_path / "gone.json")]) == 2
    assert main(["ratings", str(tmp_path / "export.json"), "--resamples", "-1"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no list of tasks"),
        ([{"data": {"text": "x"}}], "task 1 is none of a sheet of reasons"),
        ([{**tasks()[0], "annotations": [annotation(1, 6)]}], "true is 6; a rating is a number from 1 to 5"),
        ([{**tasks()[0], "annotations": [annotation(1, "high")]}], "a rating is a number"),
        ([{**tasks()[0], "annotations": [annotation(1, 4, "mood")]}], "holds no rating"),
        ([{**tasks()[0], "annotations": [3]}], "annotations are no objects"),
    ],
)
def test_exports_that_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CallerError, match=message):
        read_sheet(export(tmp_path, content))


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text("image,rating\n")
    with pytest.raises(CallerError, match="cannot be read as JSON"):
        read_sheet(tmp_path / "export.csv")
