"""Scenes laid out like SA-BENCH: an image in one dimension, raters around the truth, the same words in every line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from iqa_core.demo.corpus import write_scenes
from iqa_core.demo.scenes import DIMENSIONS, make_scene
from iqa_core.errors import CallerError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "SA-BENCH"
    written = write_scenes(folder, 82, seed=3, format="sa-bench", size=64, image_format="jpeg")
    assert (written.images, written.files) == (82, 82)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_lies_under_one_dimension_and_in_one_part(made: Path) -> None:
    images = [path.relative_to(made) for path in sorted(made.rglob("*.jpg"))]
    assert len(images) == len({path.stem for path in images}) == 82
    for dimension, count in zip(DIMENSIONS, (21, 21, 20, 20), strict=True):
        stem = made / "annotations" / f"{dimension}_{count}"
        train, test, full = (rows(Path(f"{stem}_{part}.csv")) for part in ("train", "test", "full"))
        assert len(test) == -(-count // 5)
        assert sorted(row["id"] for row in train + test) == [row["id"] for row in full]
        for row in full:
            assert (made / "images" / dimension / "images" / f"{row['id']}.jpg").is_file()


def test_the_mean_opinion_is_the_truth_and_the_raters_lie_around_it(made: Path) -> None:
    counts = []
    for row in rows(made / "annotations" / "harmony_21_full.csv"):
        truth = make_scene(3, int(row["id"].removeprefix("scene-")), 64).truths["harmony"]
        assert float(row["harmony_score_mos"]) == pytest.approx(truth, abs=1e-4)
        ratings = [float(row[f"harmony_score_{k}"]) for k in (1, 2, 3) if row[f"harmony_score_{k}"]]
        assert np.mean(ratings) == pytest.approx(truth, abs=1e-4)
        assert 1 <= min(ratings) < max(ratings) <= 5
        counts.append(len(ratings))
    assert set(counts) == {2, 3}


def test_a_prompt_line_has_the_rounded_opinion_and_an_image_that_is_there(made: Path) -> None:
    table = {row["id"]: row for row in rows(made / "annotations" / "layout_21_test.csv")}
    lines = (made / "annotations" / "layout_21_test_prompt4.jsonl").read_text("utf-8").splitlines()
    for line in map(json.loads, lines):
        row = table[Path(line["images"][0]).stem]
        word = ("bad", "poor", "fair", "good", "excellent")[int(row["layout_score_mos_int"]) - 1]
        assert abs(float(row["layout_score_mos"]) - int(row["layout_score_mos_int"])) <= 0.5
        assert line["response"] == f"The spatial aesthetic layout quality level of this image is {word}."
        assert line["query"].startswith("<image><layout>")
        assert (made / line["images"][0]).is_file()


def test_the_same_seed_gives_the_same_files(made: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "again", 82, seed=3, format="sa-bench", size=64, image_format="jpeg")
    for path in (path for path in made.rglob("*") if path.is_file()):
        assert (tmp_path / "again" / path.relative_to(made)).read_bytes() == path.read_bytes()


def test_its_images_are_jpeg_or_nothing(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="add --image-format jpeg"):
        write_scenes(tmp_path / "new", 4, seed=1, format="sa-bench")
    assert not (tmp_path / "new").exists()
