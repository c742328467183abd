"""A seed and a count -> the same images, names and annotations in every format; bad requests are refused first.

Tests iqa_core/demo/places.py.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from iqa_core.__main__ import main
from iqa_core.corpus.sources import Listing, list_sources
from iqa_core.demo.corpus import FORMATS, Extras, write_scenes
from iqa_core.demo.flaws import KINDS, make_flawed_scene
from iqa_core.demo.places import FLAWS, make_placed_scene
from iqa_core.demo.scenes import DIMENSIONS, make_scene
from iqa_core.errors import CallerError
from iqa_core.storage.storage import Storage

pytestmark = pytest.mark.slow

COUNT = 300  # two tars, three row groups


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("corpora")
    for name in FORMATS:
        write_scenes(root / name, COUNT, seed=7, format=name, size=64)
    return {name: root / name for name in FORMATS}


def images_in(corpus: Path) -> dict[str, bytes]:
    """Name -> encoded bytes, whatever the format."""
    images = {path.name: path.read_bytes() for path in corpus.glob("*.png")}
    for path in sorted(corpus.glob("*.tar")):
        with tarfile.open(path) as tar:
            images |= {m.name: tar.extractfile(m).read() for m in tar if m.name.endswith(".png")}  # type: ignore[union-attr]
    for path in sorted(corpus.glob("*.parquet")):
        images |= {row["id"]: row["image"]["bytes"] for row in pq.read_table(path).to_pylist()}
    return images


def digests_of(corpus: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in corpus.iterdir()}


def test_every_format_holds_the_same_images(corpora: dict[str, Path]) -> None:
    folder = images_in(corpora["folder"])
    assert sorted(folder) == [f"scene-{index:06d}.png" for index in range(COUNT)]
    assert images_in(corpora["webdataset"]) == folder
    assert images_in(corpora["parquet"]) == folder


def test_an_image_on_disk_is_the_scene(corpora: dict[str, Path]) -> None:
    with Image.open(corpora["folder"] / "scene-000012.png") as image:
        assert np.array_equal(np.asarray(image), make_scene(7, 12, 64).pixels_HWC)


def test_annotations_hold_the_truths(corpora: dict[str, Path]) -> None:
    texts = {(corpus / "annotations.csv").read_text() for corpus in corpora.values()}
    assert len(texts) == 1
    rows = list(csv.DictReader(io.StringIO(texts.pop())))
    assert len(rows) == COUNT * len(DIMENSIONS)
    truths = make_scene(7, 12, 64).truths
    found = {row["dimension"]: row["mos"] for row in rows if row["image"] == "scene-000012.png"}
    assert found == {name: f"{truths[name]:.4f}" for name in DIMENSIONS}


def test_flawed_scenes_lie_there_with_the_truths_of_what_is_wrong(tmp_path: Path) -> None:
    write_scenes(tmp_path / "flawed", 3, seed=7, size=64, extras=Extras(flaw=True))
    lines = (tmp_path / "flawed/annotations.csv").read_text().splitlines()[1:]
    found = {(name, dimension): truth for name, dimension, truth in (line.split(",") for line in lines)}
    for index in range(3):
        name, made = f"scene-{index:06d}.png", make_flawed_scene(7, index, 64)
        with Image.open(tmp_path / "flawed" / name) as image:
            assert np.array_equal(np.asarray(image), made.scene.pixels_HWC)
        assert not np.array_equal(made.scene.pixels_HWC, make_scene(7, index, 64).pixels_HWC)
        truths = [f"{made.scene.truths[dimension]:.4f}" for dimension in DIMENSIONS]
        assert [found[name, dimension] for dimension in DIMENSIONS] == truths


def test_local_flaws_lie_where_the_table_says(tmp_path: Path) -> None:
    """The box and the mask are the same pixels, of every kind and in many places."""
    assert main(["scenes", "--local", "--count", "40", "--seed", "7", "--size", "64", "--output", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / FLAWS).read_text().splitlines()]
    assert [row["key"] for row in rows] == [f"scene-{index:06d}.png" for index in range(40)]
    assert {row["label"] for row in rows} == set(KINDS)
    assert len({(row["x"], row["y"], row["width"]) for row in rows}) >= 12
    for index, row in enumerate(rows):
        made = make_placed_scene(7, index, 64)
        box = (slice(row["y"], row["y"] + row["height"]), slice(row["x"], row["x"] + row["width"]))
        mask = np.zeros((64, 64), np.bool_)
        mask[box] = True
        assert np.array_equal(mask, made.mask_HW)
        assert row["source"] == str(tmp_path / row["key"])
        assert (row["label"], row["strength"]) == (made.flaw.kind, round(made.flaw.strength, 4))
        with Image.open(tmp_path / row["key"]) as image:
            assert np.array_equal(np.asarray(image), made.scene.pixels_HWC)


@pytest.mark.parametrize(
    ("format", "holder"), [("webdataset", "scenes-00000.tar"), ("parquet", "scenes-00000.parquet")]
)
def test_a_flaw_is_a_box_of_an_image_in_a_corpus(format: str, holder: str, tmp_path: Path) -> None:
    """By what tables of scores call the image, whatever file holds it."""
    write_scenes(tmp_path / "in", 2, seed=7, size=64, format=format, extras=Extras(place=True))
    rows = [json.loads(line) for line in (tmp_path / "in" / FLAWS).read_text().splitlines()]
    [source] = list_sources(Storage(), [str(tmp_path / "in")], Listing(Counter()))
    assert [(row["source"], row["key"], row["box_id"]) for row in rows] == [
        (source.uri, f"scene-{index:06d}.png", "flaw") for index in range(2)
    ]
    assert source.uri == str(tmp_path / "in" / holder)


def test_tars_hold_256_images_with_a_sidecar_each(corpora: dict[str, Path]) -> None:
    counts = []
    for path in sorted(corpora["webdataset"].glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            sidecar = json.load(tar.extractfile(names[1]))  # type: ignore[arg-type]
        counts.append(len(names) // 2)
        assert [Path(name).stem for name in names[::2]] == [Path(name).stem for name in names[1::2]]
        assert sidecar["seed"] == 7
        assert sidecar["index"] == int(names[1][6:12])
        assert sidecar["prompt"].startswith("a ")
    assert counts == [256, 44]


def test_parquet_is_in_row_groups_of_128(corpora: dict[str, Path]) -> None:
    file = pq.ParquetFile(corpora["parquet"] / "scenes-00000.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [128, 128, 44]
    assert file.schema_arrow.names == ["id", "image", "prompt", "seed", "index"]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_seed_gives_the_same_files(name: str, corpora: dict[str, Path], tmp_path: Path) -> None:
    write_scenes(tmp_path, COUNT, seed=7, format=name, size=64)
    assert digests_of(tmp_path) == digests_of(corpora[name])


def test_jpeg_is_smaller_and_still_an_image(tmp_path: Path) -> None:
    written = write_scenes(tmp_path / "jpeg", 3, seed=1, image_format="jpeg")
    assert written.num_bytes < write_scenes(tmp_path / "png", 3, seed=1).num_bytes
    with Image.open(tmp_path / "jpeg" / "scene-000002.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (112, 112))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"count": 0}, "--count 1 or more"),
        ({"format": "zip"}, "folder, webdataset, parquet"),
        ({"image_format": "gif"}, "png, jpeg"),
        ({"size": 63}, "--size 64 or more"),
        ({"seed": -1}, "seed -1"),
        ({"extras": Extras(texts=True), "format": "parquet"}, "--format folder"),
    ],
)
def test_a_bad_request_is_refused_before_anything_is_made(
    settings: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CallerError, match=said):
        write_scenes(**{"output": tmp_path / "new", "count": 1, "seed": 1, **settings})  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(CallerError, match="not an empty folder"):
        write_scenes(tmp_path, 1, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_says_in_one_line_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    code = main(["scenes", "--count", "5", "--seed", "7", "--format", "webdataset", "--output", str(output)])
    printed = capsys.readouterr()
    assert code == 0
    assert printed.err == ""
    assert printed.out.startswith("5 scenes of 112 x 112 (")
    assert printed.out.count("\n") == 1
    assert len(images_in(output)) == 5


def test_the_command_turns_a_mistake_into_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scenes", "--count", "-3", "--output", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: a corpus of -3 scenes holds nothing; give --count 1 or more\n"


@pytest.mark.parametrize("flags", [["scenes", "--coun", "5", "--output", "x"], ["scene"], [], ["scenes"]])
def test_a_misspelt_command_is_exit_2(flags: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(flags)
