"""Images without labels -> which dimension answers to which distortion.

Tests iqa_core/inspection/ladder_picture.py.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_core.__main__ import main
from iqa_core.assessor.direct import load_assessor
from iqa_core.assessor.fake import FakeOptions, FakePreparer
from iqa_core.demo.corpus import write_scenes
from iqa_core.errors import RunError
from iqa_core.images.distortions import KINDS, STRENGTHS
from iqa_core.inspection.ladder import Ladder, climb, finest, ladder_lines, write_scores
from iqa_core.inspection.ladder_picture import draw
from iqa_core.inspection.own_images import read_bounded
from iqa_core.records import Assessment, ImageLimits, Reason, Rejection
from iqa_core.rubrics import Rubric, load_rubric
from tests.unlike import RUBRIC


class Meter:
    """An assessor by rule: `quality` is brightness, `aesthetics` is always 3. A black corner gets no score."""

    def __init__(self) -> None:
        self.rubric: Rubric = load_rubric("q-align")
        self.preparer = FakePreparer(ImageLimits(), FakeOptions())
        self.versions: Mapping[str, str] = {"device": "none"}

    def assess(
        self, images: Sequence[np.ndarray], texts: Sequence[Mapping[str, str]] | None = None
    ) -> list[Assessment | Rejection]:
        assert texts is None, "the rubric has no slots"
        return [self._assess(pixels) for pixels in images]

    def _assess(self, pixels: np.ndarray) -> Assessment | Rejection:
        if not pixels[0, 0].any():
            return Rejection(Reason.ASSESSOR_FAILED, "black")
        scores = np.array([1 + 4 * pixels.mean() / 255, 3], dtype=np.float32)
        return Assessment(scores, np.zeros(2, np.float32), (np.full(5, 0.2, np.float32),) * 2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "in"
    write_scenes(folder, 3, seed=5)
    return folder


@pytest.fixture(scope="module")
def ladder(scenes: Path) -> Ladder:
    return climb(Meter(), [*scenes.glob("*.png")])


def test_what_follows_brightness_answers_to_darkening_and_nothing_else(ladder: Ladder) -> None:
    assert ladder.scores_NDSK.shape == (3, len(KINDS), STRENGTHS + 1, 2)
    d = KINDS.index("darkening")
    assert np.array_equal(ladder.falls_NDK()[:, d, 0], np.ones(3))
    assert np.array_equal(ladder.falls_NDK()[:, KINDS.index("over-exposure"), 0], -np.ones(3))
    assert (ladder.changes_NDK()[:, d, 0] < -0.5).all()
    assert {kind: ladder.answers(kind) for kind in KINDS if ladder.answers(kind)} == {"darkening": ["quality"]}


def test_a_score_that_never_moves_answers_to_nothing(ladder: Ladder) -> None:
    assert not ladder.falls_NDK()[:, :, 1].any()
    assert not ladder.changes_NDK()[:, :, 1].any()


def test_tau_is_kendalls(ladder: Ladder) -> None:
    from scipy.stats import kendalltau

    steps = np.arange(STRENGTHS + 1)
    for n, d in np.ndindex(3, len(KINDS)):
        scores = ladder.scores_NDSK[n, d, :, 0]
        if len(np.unique(scores)) == len(scores):  # without ties tau-a is what SciPy's tau-b is
            assert ladder.falls_NDK()[n, d, 0] == pytest.approx(kendalltau(steps, -scores).statistic)


def test_images_that_get_no_score_are_named_and_left_out(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes((scenes / "scene-000000.png").read_bytes()[:2000])
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    (tmp_path / "fine.png").write_bytes((scenes / "scene-000000.png").read_bytes())
    found = climb(Meter(), sorted(tmp_path.glob("*.png")))
    assert [Path(name).name for name in found.images] == ["fine.png"]
    assert [Path(name).name for name in found.rejected] == ["black.png", "cut.png"]
    with pytest.raises(RunError, match="none of 1 images"):
        climb(Meter(), [tmp_path / "cut.png"])


def test_files_and_table_say_the_same(ladder: Ladder, tmp_path: Path) -> None:
    write_scores(ladder, tmp_path)
    rows = list(csv.DictReader((tmp_path / "ladder.csv").read_text().splitlines()))
    assert len(rows) == 3 * len(KINDS) * (STRENGTHS + 1)
    last = rows[-1]
    assert float(last["quality"]) == pytest.approx(ladder.scores_NDSK[-1, -1, -1, 0], abs=1e-5)
    content = json.loads((tmp_path / "ladder.json").read_text())
    assert content["distortions"]["darkening"]["answers"] == ["quality"]
    [line] = [line for line in ladder_lines(ladder) if line.startswith("darkening")]
    assert f"+1.00 {content['distortions']['darkening']['change']['quality']:+.2f}" in line
    assert line.endswith("quality")


@pytest.mark.slow
def test_the_picture_has_a_row_per_distortion(ladder: Ladder, scenes: Path, tmp_path: Path) -> None:
    example = read_bounded(scenes / "scene-000000.png", ImageLimits())
    assert not isinstance(example, Rejection)
    draw(ladder, example, "title", tmp_path / "ladder.png")
    with Image.open(tmp_path / "ladder.png") as picture:
        width, height = picture.size
        assert height > width > 1000
        rows = np.asarray(picture.convert("RGB").crop((0, 0, width // 9, height))).reshape(height, -1).std(axis=1) > 8
    runs = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(int)))
    assert sum(end - begin > 60 for begin, end in zip(runs[::2], runs[1::2], strict=True)) == len(KINDS)


@pytest.mark.slow
def test_the_demo_answers_to_what_its_dimensions_are_about(tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", 12, seed=5)
    ladder = climb(load_assessor("demo", threads=1), [*(tmp_path / "in").glob("*.png")])
    changes = {
        (kind, name): ladder.changes_NDK()[:, d, k].mean()
        for d, kind in enumerate(KINDS)
        for k, name in enumerate(ladder.dimensions)
    }
    assert ladder.answers("darkening")[0] == ladder.answers("over-exposure")[0] == "lighting"
    for kind in ("blur", "noise", "warp", "colour shift"):
        assert ladder.answers(kind)[0] == "distortion", kind
        assert changes[kind, "distortion"] < -1, kind
    assert changes["jpeg", "distortion"] < -0.3
    for kind in ("darkening", "over-exposure"):
        assert changes[kind, "lighting"] < -1, kind


@pytest.mark.slow
def test_as_a_command_it_prints_the_table_and_writes_three_files(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["check", "--ladder", str(scenes), "--output", str(tmp_path / "out"), "--limit", "1", "--threads", "1"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "images         1" in printed
    assert all(kind in printed for kind in KINDS)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ladder.csv", "ladder.json", "ladder.png"]


class UnlikeMeter(Meter):
    """All dimensions follow brightness, each over its own range: the darker, the worse."""

    def __init__(self) -> None:
        super().__init__()
        self.rubric = RUBRIC

    def _assess(self, pixels: np.ndarray) -> Assessment | Rejection:
        share = pixels.mean() / 255
        scores = np.array([share, 10 - 9 * share, 1 + 4 * share, share], dtype=np.float32)
        return Assessment(scores, np.zeros(4, np.float32), ())


@pytest.mark.slow
def test_of_many_dimensions_the_first_are_shown(ladder: Ladder, tmp_path: Path) -> None:
    names = tuple(f"d{index}" for index in range(256))
    many = replace(
        ladder, dimensions=names, scores_NDSK=ladder.scores_NDSK[..., [0] * 256], ranges=ladder.ranges[:1] * 256
    )
    lines = list(ladder_lines(many))
    assert lines[0].split() == [*names[:16], "answers"]
    assert lines[-1] == "and 240 further dimensions, in ladder.csv"
    assert max(map(len, lines)) < 400
    draw(many, np.zeros((32, 32, 3), np.uint8), "many", tmp_path / "ladder.png")


def test_a_range_where_less_is_better_rises_as_images_get_worse(scenes: Path, ladder: Ladder) -> None:
    found = climb(UnlikeMeter(), [*scenes.glob("*.png")])
    d, quality = KINDS.index("darkening"), ladder.falls_NDK()[:, :, 0]
    for k in range(4):
        assert np.array_equal(found.falls_NDK()[:, :, k], quality)
    shown, noise, layout, _ = found.changes_NDK()[:, d].mean(axis=0)
    assert noise > 0 > layout
    assert [noise / 9, layout / 4] == pytest.approx([-shown, shown], abs=1e-5)
    assert set(found.answers("darkening")) == {"shown", "noise", "layout", "things"}, "each by its part of its range"
    assert found.answers("over-exposure") == []
    assert finest(found) == finest(ladder)
