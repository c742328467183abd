"""Scenes with captions in every format -> the same captions, read back by the job's readers and by training's."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import iqa_core.demo
from iqa_core.__main__ import main
from iqa_core.demo.caption_tables import DESCRIBE, DIMENSION
from iqa_core.demo.captions import make_captions
from iqa_core.demo.corpus import FOLDER, FORMATS, SA_BENCH, Extras, write_scenes
from iqa_core.demo.scenes import make_scene
from iqa_core.opinions.load import load_opinions
from iqa_core.opinions.terms import terms_of
from iqa_core.rubrics import load_rubric
from iqa_core.training.samples import level_samples, text_samples
from tests.jobs.operations import rows_of, score

pytestmark = pytest.mark.slow

COUNT, SEED, SIZE = 10, 7, 64
RUBRIC = str(Path(iqa_core.demo.__file__).parent / "faithful.toml")
SETTINGS: dict[str, dict[str, Any]] = {"webdataset": {"carry": ["caption:string", "caption_true:bool"]}}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("captioned")
    for name in (*FORMATS, SA_BENCH):
        write_scenes(root / name, COUNT, SEED, name, SIZE, "jpeg", Extras(captions=True))
    return {name: root / name for name in (*FORMATS, SA_BENCH)}


@pytest.mark.parametrize("name", [*FORMATS, SA_BENCH])
def test_a_job_asks_about_each_scene_with_its_own_caption(name: str, corpora: dict[str, Path], tmp_path: Path) -> None:
    settings = {"rubric": RUBRIC, "slot": ["prompt=caption"], **SETTINGS.get(name, {})}
    assert score(tmp_path / "out", corpora[name], **settings) == 0
    rows = {int(Path(row["key"]).stem.removeprefix("scene-")): row for row in rows_of(tmp_path / "out")}
    assert sorted(rows) == list(range(COUNT))
    for index, row in rows.items():
        made = make_captions(make_scene(SEED, index, SIZE).contents, SEED, index)
        assert row["caption"] == (made.true if made.is_true else made.false)
        assert int(row["caption_true"]) == made.is_true
        assert row["status"] == "scored"


def test_training_reads_both_captions_of_each_image_and_its_description(corpora: dict[str, Path]) -> None:
    rubric = load_rubric(RUBRIC)
    opinions = load_opinions(
        [f"{corpora[FOLDER] / 'captions.csv'}?range=own"], terms=terms_of(rubric, ["prompt=caption"])
    )
    assert not opinions.dropped
    assert opinions.dimensions == (DIMENSION,) == rubric.names
    samples = level_samples(opinions.rows, rubric, "hard", {})
    described = text_samples([corpora[FOLDER] / "descriptions.jsonl"], {})
    for index in range(COUNT):
        made = make_captions(make_scene(SEED, index, SIZE).contents, SEED, index)
        first, second = samples[2 * index : 2 * index + 2]
        assert [dict(first.texts), dict(second.texts)] == [{"prompt": made.true}, {"prompt": made.false}]
        assert (first.answer, second.answer) == ("Yes", "No")
        assert (described[index].query, described[index].answer) == (DESCRIBE, made.description)
        assert {first.image, second.image, described[index].image} == {corpora[FOLDER] / f"scene-{index:06d}.jpg"}


def test_images_and_annotations_are_those_of_scenes_without_captions(corpora: dict[str, Path], tmp_path: Path) -> None:
    write_scenes(tmp_path / "plain", COUNT, SEED, FOLDER, SIZE, "jpeg")
    plain = {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    captioned = {path.name: path.read_bytes() for path in corpora[FOLDER].iterdir()}
    assert plain.items() <= captioned.items()
    assert captioned.keys() - plain.keys() == {"captions.csv", "descriptions.jsonl", "metadata.csv"}


def test_truths_are_booleans_where_the_format_has_some(corpora: dict[str, Path]) -> None:
    assert pq.read_schema(next(corpora["parquet"].glob("*.parquet"))).field("caption_true").type == "bool"
    with tarfile.open(next(corpora["webdataset"].glob("*.tar"))) as tar:
        sidecar = json.load(tar.extractfile("scene-000000.json"))  # type: ignore[arg-type]
    assert sidecar["caption_true"] in (True, False)
    assert (sidecar["caption_false_in"] is None) == sidecar["caption_true"]
    with (corpora[FOLDER] / "metadata.csv").open(newline="") as file:
        assert {row["caption_true"] for row in csv.DictReader(file)} == {"0", "1"}


def test_the_command_says_that_there_are_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "--captions", "--count", "2", "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith(f"and their annotations and captions in {tmp_path / 'out'}\n")
    assert (tmp_path / "out" / "captions.csv").is_file()
