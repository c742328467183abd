"""Selections that know of parts of images: conditions over them, and exports of regions that other tools read.

Tests iqa_core/selection/grounded.py, iqa_core/selection/exports/marked.py, iqa_core/selection/exports/coco.py and
iqa_core/selection/exports/label_studio.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools.coco import COCO

from iqa_core.errors import CallerError
from iqa_core.grounding.boxes import Box, UserBox
from iqa_core.grounding.rle import compressed, counts_of
from iqa_core.records import Reason, Rejection
from iqa_core.selection.exports import coco, label_studio
from iqa_core.selection.exports.marked import MarkedImage, MarkedRegion
from jobs.command import parse
from jobs.scoring.settings import ScoreSettings
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from tests.corpora import tiny_png, write_folder
from tests.jobs.by_hand import scoring_by_hand
from tests.selection.conftest import decisions, record
from tests.selection.grounding_tables import DIMENSION, HEIGHT, WIDTH, located, write_grounding
from tests.selection.score_tables import write_score_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools, of its own arrays
]

FACE = UserBox("face-1", "face", Box(10, 20, 30, 15))


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    return write_score_table(tmp_path / "scores", [{"key": f"{i}.png", "reward": 1 + i / 2} for i in range(6)])


@pytest.fixture
def grounding(tmp_path: Path) -> Path:
    """Of five of the six images, in another order than they were scored in."""
    return write_grounding(
        tmp_path / "grounding",
        {
            "3.png": located([[4, 3], [2, 4]]),
            "0.png": located([[1.5, 2], [3, 4]]),
            "1.png": located([[3, 3], [3, 3]]),
            "2.png": Rejection(Reason.CORRUPT, "it is broken"),
            "4.png": located([[4.5, 4], [4, 2.5]]),
        },
        {"0.png": [(FACE, 2.5), (UserBox("far", None, Box(900, 0, 5, 5)), None)]},
    )


def run(*flags: object) -> int:
    return select(parse(SelectSettings, ["--no-report", *map(str, flags)]))


def kept(output: Path) -> list[str]:
    return [row["key"] for row in decisions(output).to_pylist() if row["kept"]]


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("lighting_status = 'located'", ["0.png", "3.png", "4.png"]),
        ("lighting_cell_min < 2.2 AND reward > 1.2", ["3.png"]),
        ("lighting_cell_max - lighting_cell_min >= 2", ["0.png", "3.png", "4.png"]),
        ("lighting_status = 'failed'", ["2.png"]),
        ("lighting_status IS NULL", ["5.png"]),
        ("lighting_area_share = 0.25 AND lighting_cell_min >= 2", ["3.png", "4.png"]),
    ],
)
def test_conditions_look_at_parts_of_images(
    scores: Path, grounding: Path, tmp_path: Path, where: str, keys: list[str]
) -> None:
    assert run("--scores", scores, "--grounding", grounding, "--output", tmp_path / "out", "--where", where) == 0
    assert kept(tmp_path / "out") == keys
    assert [row["key"] for row in decisions(tmp_path / "out").to_pylist()] == [f"{i}.png" for i in range(6)], (
        "in their order"
    )
    about = record(tmp_path / "out")["grounding"]
    assert about == {"uri": str(grounding), "fingerprint": "fedcba9876543210", "chunks": 3}


def test_rules_rank_by_parts_and_a_selection_without_them_is_what_it_was(
    scores: Path, grounding: Path, tmp_path: Path
) -> None:
    out, plain = tmp_path / "out", tmp_path / "plain"
    assert (
        run("--scores", scores, "--grounding", grounding, "--output", out, "--quantile", "lighting_cell_min=0.5") == 0
    )
    assert kept(out) == ["1.png", "3.png", "4.png"]
    assert run("--scores", scores, "--output", plain, "--where", "reward > 2") == 0
    assert "grounding" not in record(plain)


def test_parts_beside_the_scores_are_found_where_a_flag_asks_for_them(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(8)})
    scoring = ("--input", tmp_path / "in", "--output", tmp_path / "scores", "--ground", "--no-report")
    fake = ("--assessor.checkpoint", "fake:?view_px=8")
    assert sum(scoring_by_hand(parse(ScoreSettings, [*map(str, scoring), *fake]))) == 0
    flags = ("--scores", tmp_path / "scores")
    where = ("--where", "distortion_cell_min < 2.5")
    assert run(*flags, "--output", tmp_path / "own", *where, "--export", "coco") == 0
    assert run(*flags, "--output", tmp_path / "named", *where, "--grounding", tmp_path / "scores") == 0
    assert 0 < len(kept(tmp_path / "own")) < 8
    assert kept(tmp_path / "own") == kept(tmp_path / "named")
    assert COCO(str(next((tmp_path / "own" / "coco").glob("*.json")))).getAnnIds()
    assert run(*flags, "--output", tmp_path / "all") == 0
    assert "grounding" in record(tmp_path / "own")
    assert "grounding" not in record(tmp_path / "all")


def test_coco_reads_regions_as_they_lie_and_images_without_any(scores: Path, grounding: Path, tmp_path: Path) -> None:
    flags = ["--scores", scores, "--grounding", grounding, "--output", tmp_path / "out"]
    assert run(*flags, "--where", "reward < 3", "--export", "coco", "--export", "list") == 0
    read = COCO(tmp_path / "out" / "coco" / "annotations.json")
    assert [one["file_name"] for one in read.loadImgs(read.getImgIds())] == ["0.png", "1.png", "2.png", "3.png"]
    assert [one["name"] for one in read.loadCats(read.getCatIds())] == [DIMENSION]
    worst, face = read.loadAnns(read.getAnnIds(imgIds=[1]))
    assert (worst["bbox"], worst["area"], worst["score"]) == ([0, 0, 32, 24], 768, 1.5)
    assert worst["attributes"] == {"method": "views", "label": None, "box_id": None}
    assert (face["bbox"], face["score"]) == ([10, 20, 30, 15], 2.5)
    assert face["attributes"] == {"method": "box", "label": "face", "box_id": "face-1"}
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[20:35, 10:40] = True
    assert (read.annToMask(face) == expected).all()
    assert read.getAnnIds(imgIds=[2]) == read.getAnnIds(imgIds=[3]) == []
    assert json.loads((tmp_path / "out" / "coco" / "annotations.json").read_text())["info"]["coordinates"] == "upright"
    card = (tmp_path / "out" / "coco" / "README.md").read_text()
    assert 'pycocotools.coco.COCO("annotations.json")' in card
    assert run(*flags, "--where", "reward < 3", "--export", "label-studio") == 0, "beside it, of the same decisions"


def test_label_studio_has_rectangles_in_percent_and_the_interface(
    scores: Path, grounding: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ["--scores", scores, "--grounding", grounding, "--output", out, "--export", "label-studio"]
    assert run(*flags, "--where", "reward < 1.2") == 0
    [task] = json.loads((out / "label-studio" / "tasks.json").read_text())
    assert task["data"]["image"] == "/pictures/0.png"
    [prediction] = task["predictions"]
    worst, face = prediction["result"]
    assert worst["value"] == {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": [DIMENSION]}
    assert (face["original_width"], face["original_height"], face["meta"]["label"]) == (WIDTH, HEIGHT, "face")
    interface = ElementTree.parse(out / "label-studio" / "label_config.xml").getroot()
    assert [label.get("value") for label in interface.iter("Label")] == [DIMENSION]
    names = {worst["from_name"], worst["to_name"]}
    assert names == {interface.find("RectangleLabels").get("name"), interface.find("Image").get("name")}  # type: ignore[union-attr]


def test_a_known_rectangle_and_a_mask_in_both_formats() -> None:
    mask = np.zeros((480, 640), bool)
    mask[100:200, 300:500] = True
    box = Box(300, 100, 200, 100)
    regions = tuple(
        MarkedRegion("distortion", 2.0, box, 20_000, counts, "views", None, None)
        for counts in (None, compressed(counts_of(mask)))
    )
    image = MarkedImage("a.png", "/a.png", True, 640, 480, {}, regions)
    found = json.loads(coco.files([image], ["distortion"], "f")["annotations.json"])
    assert [one["bbox"] for one in found["annotations"]] == [[300, 100, 200, 100]] * 2
    read = COCO()
    read.dataset = found
    read.createIndex()
    for annotation in found["annotations"]:
        assert (read.annToMask(annotation) == mask).all()
    [task] = json.loads(label_studio.files([image], ["distortion"], "f")["tasks.json"])
    value = task["predictions"][0]["result"][0]["value"]
    sides = [value[name] for name in ("x", "y", "width", "height")]
    assert sides == pytest.approx([46.875, 20.8333, 31.25, 20.8333], abs=1e-4)


def test_what_does_not_go_together_is_refused(scores: Path, grounding: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CallerError, match=r"--export coco: of which regions\? Give --grounding"):
        run("--scores", scores, "--output", out, "--export", "coco")
    with pytest.raises(CallerError, match="no table of parts of images is there"):
        run("--scores", scores, "--output", out, "--grounding", scores)
    with pytest.raises(CallerError, match="lighting_status"):
        run("--scores", scores, "--output", out, "--where", "lighting_status = 'located'")
    other = write_grounding(tmp_path / "other", {"99.png": located([[1, 2], [3, 4]])})
    with pytest.raises(CallerError, match=r"/other: it has none of the 6 images of the score table"):
        run("--scores", scores, "--output", out, "--grounding", other)
    assert not out.exists()
