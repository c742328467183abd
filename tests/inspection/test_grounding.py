"""Flaws in good images -> how many are found, by an assessor that sees all of them and by one that sees none.

Tests iqa_core/inspection/grounding_results.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import iqa_core.assessor
from iqa_core.__main__ import main
from iqa_core.agreement.measures import wilson
from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.fake import FakeOptions, FakePreparer
from iqa_core.errors import CallerError, RunError
from iqa_core.inspection.grounding import best_quarter, self_test
from iqa_core.inspection.grounding_results import GridResult, KindResult, SelfTest, self_test_lines
from iqa_core.inspection.planting import KINDS
from iqa_core.records import Assessment, ImageLimits
from iqa_core.rubrics import Rubric, load_rubric
from tests.assessor import tiny

STRIPES = np.repeat(np.where(np.arange(96) // 2 % 2, 156, 100)[None, :, None], 96, axis=0).repeat(3, 2).astype(np.uint8)
NAMES = ("quality", "aesthetics")
SAMPLES = Path(iqa_core.assessor.__path__[0]) / "samples"


class Meter:
    """An assessor of stripes by rule: `quality` is 5 less what is no stripe, and `aesthetics` is 3."""

    def __init__(self) -> None:
        self.rubric: Rubric = load_rubric("q-align")
        self.preparer = FakePreparer(ImageLimits(), FakeOptions())
        self.versions: Mapping[str, str] = {"device": "none"}

    def assess(self, images: Sequence[np.ndarray], texts: Sequence[Mapping[str, str]] | None = None) -> list[Any]:
        return [self._assess(pixels.astype(int)) for pixels in images]

    def _assess(self, pixels: np.ndarray) -> Assessment:
        height, width = pixels.shape[:2]
        off = [np.abs(pixels - form).mean() for form in (STRIPES[:height, :width], STRIPES[:height, :width][:, ::-1])]
        scores = np.array([5 - 4 * min(1, min(off) / 64), 3], dtype=np.float32)
        return Assessment(scores, np.zeros(2, np.float32), (np.full(5, 0.2, np.float32),) * 2)


def of(test: SelfTest, name: str, side: int) -> GridResult:
    [result] = [result for result in test.results if (result.dimension, result.side) == (name, side)]
    return result


@pytest.fixture(scope="module")
def tested() -> SelfTest:
    return self_test(Meter(), [STRIPES] * 24, NAMES, method="tiles", min_fall=0.1)


def test_what_sees_flaws_finds_them_all_and_what_sees_none_finds_none(tested: SelfTest) -> None:
    assert (tested.images, dict(tested.rejected), tested.is_above_chance) == (24, {}, True)
    for side in (2, 3):
        found, lost = of(tested, "quality", side), of(tested, "aesthetics", side)
        assert [(kind.kind, kind.hits, kind.trials) for kind in found.kinds] == [(kind, 6, 6) for kind in KINDS]
        assert [kind.hits for kind in lost.kinds] == [0] * 4
        assert (found.verdict, lost.verdict) == ("above chance", "at chance")
        assert (found.mirrored, lost.mirrored) == (1, 0)
        assert (found.false_alarms, found.strict_fall, found.noticed) == (0, 0, 1)
        assert all(kind.fall > 0.01 for kind in found.kinds)
        assert all((kind.central is None) == (side == 2) for kind in found.kinds), "a middle cell is one of 3 x 3"
        assert [kind.fall for kind in lost.kinds] == [0] * 4


def test_a_seed_gives_the_same_flaws_again() -> None:
    def falls(seed: int) -> list[float]:
        test = self_test(Meter(), [STRIPES] * 4, ["quality"], method="tiles", seed=seed)
        return [kind.fall for result in test.results for kind in result.kinds]

    assert falls(1) == falls(1) != falls(2)


def test_a_verdict_takes_half_of_the_kinds() -> None:
    """The lower end of the interval decides: 20 of 50 are above a chance of .25, 18 are not."""

    def result(*hits: int) -> GridResult:
        kinds = (KindResult("noise", 2, 50, own, None, 0, 0.5) for own in hits)
        return GridResult("quality", 2, tuple(kinds), 1, 0, 0, 0, 0)

    assert wilson(20, 50)[0] > 0.25 > wilson(18, 50)[0]
    assert result(20, 20, 18, 18).verdict == "above chance"
    assert result(20, 18, 18, 18).verdict == "at chance"
    assert not KindResult("noise", 2, 0, 0, None, 0, math.nan).is_above_chance


def test_images_that_cannot_be_asked_about_are_counted(tmp_path: Path) -> None:
    Image.fromarray(STRIPES).save(tmp_path / "fine.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "fine.png").read_bytes()[:60])
    Image.fromarray(STRIPES[:20, :20]).save(tmp_path / "small.png")
    Image.new("RGB", (96, 96), "white").save(tmp_path / "white.png")
    paths = [tmp_path / name for name in ("none.png", "white.png", "cut.png", "small.png", "fine.png", "white.png")]
    told = list[int]()
    test = self_test(Meter(), paths, method="tiles", progress=told.append)
    assert test.images == 1
    assert dict(test.rejected) == {"missing": 1, "unchanged": 2, "truncated": 1, "too_small": 1}
    assert told == [1, 2, 3, 4, 5, 6]
    assert [kind.trials for kind in of(test, "quality", 2).kinds] == [1, 0, 0, 0]
    lines = [line.split() for line in self_test_lines(test)]
    assert [line[1] for line in lines if line[:1] == ["noise"]] == ["none", "none"]
    assert [line[5] for line in lines if line[:1] == ["jpeg"]] in (["-", "0.00"], ["-", "1.00"])
    with pytest.raises(RunError, match=r"none of 2 images .*missing 1, unchanged 1"):
        self_test(Meter(), paths[:2], method="tiles")


def test_what_cannot_be_asked_is_the_callers_mistake(tmp_path: Path) -> None:
    unread: Iterator[Any] = iter([STRIPES])
    with pytest.raises(CallerError, match="tiles"):
        self_test(Meter(), unread)
    assert len([*unread]) == 1, "nothing is read before"
    with pytest.raises(CallerError, match="quality, aesthetics"):
        self_test(Meter(), [STRIPES], ["taste"], method="tiles")
    (tmp_path / "shown.toml").write_text(tiny.SHOWN)
    with pytest.raises(CallerError, match="slots"):
        self_test(load_assessor("fake:", str(tmp_path / "shown.toml")), [STRIPES], method="tiles")


def test_the_best_quarter_is_the_one_with_the_best_scores() -> None:
    """In its order; what cannot be read is left out."""
    grey = [np.full((32, 32, 3), shade, np.uint8) for shade in range(0, 128, 4)]
    taken = best_quarter(Meter(), [b"", *grey, STRIPES, "none.png"])
    assert [image[0, 0, 0] for image in taken if isinstance(image, np.ndarray)] == [*range(100, 128, 4), 100]


def test_as_a_command_it_prints_verdicts_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for index in range(8):
        Image.fromarray(np.roll(STRIPES, index, axis=1)).save(tmp_path / f"in/{index}.png")
    (tmp_path / "in/cut.png").write_bytes(b"")
    flags = ["--checkpoint", "fake:", "--rubric", "q-align", "--grounding", str(tmp_path / "in"), "--method", "tiles"]
    code = main(["check", *flags, "--output", str(tmp_path / "out"), "--dimensions", "quality,aesthetics"])
    printed = capsys.readouterr().out
    assert "images         8, 1 left out (empty)" in printed
    assert "Nothing is said of flaws that no filter makes" in printed
    record = json.loads((tmp_path / "out/grounding.json").read_text())
    assert (record["method"], record["images"], record["rejected"]) == ("tiles", 8, {"empty": 1})
    assert [(one["dimension"], one["cells"]) for one in record["results"]] == [
        (name, [side, side]) for name in NAMES for side in (2, 3)
    ]
    assert all(f"verdict        {name}" in printed for name in NAMES)
    verdicts = {one["verdict"] for one in record["results"]}
    assert code == ("above chance" not in verdicts)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grounding", "no"], "--grounding no is no folder"),
        (["--grounding", ".", "--limit", "0"], "--limit 0"),
        (["--grounding", str(SAMPLES), "--dimensions", "nope"], "--dimensions is a list of dimensions of rubric"),
        (["--grounding", ".", "--ladder", "."], "two checks"),
        (["--grounding", ".", "--min-fall", "5"], "fall by 0 to 4"),
        (["--method", "tiles"], "belong to --grounding"),
        (["--ladder", ".", "--best-quarter"], "belong to --grounding"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--checkpoint", "fake:", *flags]) == 2
    assert message in capsys.readouterr().err
