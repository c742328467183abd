"""The grounding job: every image has its rows in both tables, as it is alone, whatever happens to the run.

Tests jobs/grounding/flow.py, jobs/grounding/job.py, jobs/grounding/outcome.py, jobs/grounding/settings.py,
jobs/assessing/driving.py, jobs/assessing/proposing.py, iqa_core/tables/regions/ledger.py,
iqa_core/tables/regions/audit.py, iqa_core/tables/regions/calibrating.py and iqa_core/tables/regions/summary.py.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from iqa_core.assessor.direct import load_assessor
from iqa_core.errors import CallerError
from iqa_core.grounding import calibration
from iqa_core.grounding.locating import Located, Region, assess_regions, locate
from iqa_core.rubrics import load_rubric
from iqa_core.status import status
from iqa_core.storage.storage import Storage
from iqa_core.tables.regions import calibrating
from jobs.command import parse
from jobs.grounding.flow import ground as ground_corpus
from jobs.grounding.settings import GroundSettings
from tests.clock import wait_for
from tests.corpora import tiny_png, write_asking, write_captions, write_folder, write_mixed
from tests.jobs import running
from tests.jobs.by_hand import ground_by_hand, score_by_hand
from tests.jobs.operations import a_minute_later, compact, killed_at

VIEWS = "fake:?view_px=8"
FAKE = ("--assessor.checkpoint", VIEWS)
DIMENSIONS = load_rubric("interior-v1").local_names


def ground(output: Path, *flags: object) -> int:
    return ground_by_hand("--output", output, "--chunk-images", 4, *FAKE, *flags)


def rows_of(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of both tables, sorted by image; those of one image as they lie there."""
    return {
        name: sorted(
            pq.read_table(output / name, partitioning=None).to_pylist(), key=lambda row: (row["source"], row["key"])
        )
        for name in ("grounding", "regions")
    }


def verified(output: Path, capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    """Whether `status --verify` finds nothing, and what it says."""
    capsys.readouterr()
    code = status(str(output), Storage(), verify=True, as_json=False)
    return code == 0, capsys.readouterr().out


def write_boxes(path: Path, *boxes: Mapping[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(box)}\n" for box in boxes))
    return path


def box(source: Path, key: str, box_id: str = "a", x: float = 4, y: float = 4, **more: Any) -> dict[str, Any]:
    return {"source": str(source), "key": key, "box_id": box_id, "x": x, "y": y, "width": 14, "height": 12, **more}


@pytest.mark.slow
def test_each_image_is_grounded_as_it_is_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In loose files, tars, Parquet and lists; and its boxes, whichever format they come in."""
    corpus = write_mixed(tmp_path, 20)
    (tmp_path / "corpus" / "loose" / "broken.png").write_bytes(b"no image")
    tar, broken = tmp_path / "corpus" / "a.tar", tmp_path / "corpus" / "loose" / "broken.png"
    key = next(name for name in corpus.images if name.endswith("00008.png"))
    boxes = write_boxes(
        tmp_path / "boxes.jsonl",
        box(tar, key, "b", label="face"),
        box(tar, key, "a", x=900),
        box(broken, "loose/broken.png"),
        box(tar, "nobody.png"),
    )
    inputs = [part for given in corpus.inputs for part in ("--input", given)]
    assert ground(tmp_path / "out", *inputs, "--boxes", boxes) == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows["grounding"]) == 21 * len(DIMENSIONS)
    assessor = load_assessor(VIEWS)
    for row in rows["grounding"]:
        if row["key"] == "loose/broken.png":
            assert (row["status"], row["reason"]) == ("failed", "unsupported_format")
            assert row["score"] is row["x"] is row["cell_scores"] is row["width"] is None
            continue
        alone = locate(assessor, corpus.images[row["key"]])
        assert isinstance(alone, dict)
        found = alone[row["dimension"]]
        assert found.box is not None
        assert row["status"] == "located"
        np.testing.assert_allclose([row["score"], *row["cell_scores"]], [found.score, *found.cell_scores.ravel()])
        np.testing.assert_allclose([row["x"], row["y"]], found.box.centre)
        [region] = [
            one
            for one in rows["regions"]
            if (one["key"], one["dimension"], one["method"]) == (row["key"], row["dimension"], "views")
        ]
        np.testing.assert_allclose([region[f"box_{side}"] for side in "xywh"], [*found.box], rtol=1e-6)
        assert region["score"] == min(row["cell_scores"])
    given = [row for row in rows["regions"] if row["method"] == "box"]
    assert len(given) == 3 * len(DIMENSIONS), "each box has a row per dimension, but for one of no image"
    [alone_box, outside] = assess_regions(assessor, corpus.images[key], [(4, 4, 14, 12), (900, 4, 14, 12)])
    assert isinstance(alone_box, Region)
    for name in DIMENSIONS:
        inside, far = [row for row in given if (row["key"], row["dimension"]) == (key, name)]
        assert (inside["box_id"], inside["label"], inside["ordinal"]) == ("b", "face", 1), "in the order of the file"
        assert inside["score"] == pytest.approx(alone_box.scores[name])
        assert inside["num_tokens"] == alone_box.num_tokens
        assert (far["reason"], far["detail"], far["score"]) == ("too_small", outside.detail, None)  # type: ignore[union-attr]
    assert {row["reason"] for row in given if "broken" in row["key"]} == {"unsupported_format"}
    said = capsys.readouterr().out
    assert "  of no image            1" in said
    record = running.read_run(tmp_path / "out")
    assert (record["images"], record["grounded"], record["rejected"]) == (21, 20, 1)
    assert record["statuses"][DIMENSIONS[0]] == {"located": 20, "failed": 1}
    assert (record["boxes_given"], record["boxes"], record["boxes_without_scores"]) == (4, 3, 2)
    assert verified(tmp_path / "out", capsys)[0]


def test_an_image_that_a_list_names_twice_has_its_regions_once_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a retry too, which reads both tables and writes them anew."""
    write_folder(tmp_path / "in", {"a.png": tiny_png(1)})
    place = tmp_path / "list.jsonl"
    place.write_text("".join(f'{{"uri": "in/{name}"}}\n' for name in ("a.png", "a.png", "b.png")))
    boxes = write_boxes(tmp_path / "boxes.jsonl", box(tmp_path / "in" / "a.png", "in/a.png"))
    flags = ("--input", place, "--boxes", boxes)
    for more in ((), ("--retry-rejected",)):
        assert ground(tmp_path / "out", *flags, *more) == 0
        assert len(rows_of(tmp_path / "out")["regions"]) == 2 * 2 * len(DIMENSIONS)
        assert running.read_run(tmp_path / "out")["boxes"] == 1
        assert verified(tmp_path / "out", capsys)[0]


def test_a_dry_run_times_boxes_before_they_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(40)})
    boxes = write_boxes(tmp_path / "boxes.jsonl", box(tmp_path / "in" / "3.png", "3.png"))
    flags = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--boxes", str(boxes)]
    settings = parse(GroundSettings, [*flags, *FAKE, "--dry-run", "--estimate"])
    assert ground_corpus(settings) == 0
    said = capsys.readouterr().out
    assert "images/s here in one process" in said
    assert "in files that are not" not in said
    assert not (tmp_path / "out").exists()


def test_boxes_in_other_files_are_counted_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the input says which files there are: a list's rows are not read yet."""
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(8)})
    elsewhere = tmp_path / "out" / "3.png"
    given = [box(tmp_path / "in" / "3.png", "3.png"), box(elsewhere, "3.png", "b"), box(elsewhere, "3.png", "c")]
    boxes = write_boxes(tmp_path / "boxes.jsonl", *given)
    told = f"2 of them in files that are not in this run's input, such as {elsewhere}"
    flags = ("--input", str(tmp_path / "in"), "--boxes", str(boxes))
    settings = parse(GroundSettings, [*flags, *FAKE, "--output", str(tmp_path / "dry"), "--dry-run"])
    assert ground_corpus(settings) == 0
    assert told in capsys.readouterr().out
    assert ground(tmp_path / "parts", *flags) == 0
    opening, _, rest = capsys.readouterr().out.partition("pool ")
    assert told in opening
    assert "  of no image            2" in rest
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": str(tmp_path / "in" / "3.png")}))
    assert ground(tmp_path / "listed", "--input", tmp_path / "list.jsonl", "--boxes", boxes) == 0
    assert "in files that are not" not in capsys.readouterr().out


@pytest.mark.slow
def test_it_goes_on_where_it_ended_and_keeps_what_it_was_begun_with(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(10)})
    flags = ("--input", tmp_path / "in")
    assert ground(tmp_path / "whole", *flags) == 0
    assert ground(tmp_path / "out", *flags, "--limit", 4) == 0
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out" / "grounding").iterdir()}
    assert ground(tmp_path / "out", *flags) == 0
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")
    assert len(before) == 1
    assert all((tmp_path / "out" / "grounding" / name).stat().st_mtime_ns == at for name, at in before.items())
    assert running.read_run(tmp_path / "out")["this_run"]["images"] == 6
    for other in (("--grid", "3x3"), ("--dimensions", "distortion")):
        with pytest.raises(CallerError, match="made in another way"):
            ground(tmp_path / "out", *flags, *other)
    boxes = write_boxes(tmp_path / "boxes.jsonl", box(tmp_path / "in" / "1.png", "1.png"))
    with pytest.raises(CallerError, match="boxes"):
        ground(tmp_path / "out", *flags, "--boxes", boxes)


@pytest.mark.slow
def test_of_a_score_table_the_rows_that_pass_are_grounded(tmp_path: Path) -> None:
    corpus = write_mixed(tmp_path, 20)
    inputs = [part for given in corpus.inputs for part in ("--input", given)]
    assert score_by_hand(*inputs, "--output", tmp_path / "scores", "--chunk-images", 4) == 0
    scored = running.read_table(tmp_path / "scores").to_pylist()
    chosen = {row["key"]: row for row in scored if row["distortion"] < 2.5}
    assert 2 < len(chosen) < 18
    assert ground(tmp_path / "out", "--input", f"scores:{tmp_path}/scores?where=distortion < 2.5") == 0
    rows = [row for row in rows_of(tmp_path / "out")["grounding"] if row["dimension"] == "distortion"]
    assert {row["key"] for row in rows} == set(chosen)
    for row in rows:
        assert row["score"] == pytest.approx(chosen[row["key"]]["distortion"], abs=1e-5), "its ordinary score"
        for name in ("source", "sha256", "offset", "length", "row", "width", "height"):
            assert row[name] == chosen[row["key"]][name], "joins with the score table"


@pytest.mark.slow
def test_a_rubric_with_slots_is_asked_with_each_images_text(tmp_path: Path) -> None:
    corpus = write_mixed(tmp_path, 10)
    write_captions(tmp_path, corpus)
    rubric = write_asking(tmp_path / "asking.toml")
    inputs = [part for given in corpus.inputs for part in ("--input", given)]
    names = load_rubric(str(rubric)).names
    asked = [part for name in names for part in ("--dimensions", name)]
    assert ground(tmp_path / "out", *inputs, "--rubric", rubric, "--slot", "prompt=caption", *asked) == 0
    assessor = load_assessor(VIEWS, str(rubric))
    rows = rows_of(tmp_path / "out")["grounding"]
    assert len(rows) == 10 * len(names)
    for row in rows:
        alone = locate(assessor, corpus.images[row["key"]], names, text=corpus.texts[row["key"]])
        assert isinstance(alone, dict)
        np.testing.assert_allclose(row["cell_scores"], alone[row["dimension"]].cell_scores.ravel())


@pytest.mark.slow
def test_cells_are_compared_with_those_of_another_run_which_is_not_needed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (calibration, calibrating):
        monkeypatch.setattr(module, "MIN_IMAGES", 40)
    good = {f"{i:03d}.png": tiny_png(i) for i in range(40)}
    write_folder(tmp_path / "good", good)
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(500 + i) for i in range(6)})
    with pytest.raises(CallerError, match=r"--calibration .*no table of parts"):
        ground(tmp_path / "out", "--input", tmp_path / "in", "--calibration", tmp_path / "base")
    assert ground(tmp_path / "base", "--input", tmp_path / "good", "--limit", 20) == 0
    flags = ("--input", tmp_path / "in", "--calibration", tmp_path / "base")
    with pytest.raises(CallerError, match="20 of its images have cells; a calibration takes 40"):
        ground(tmp_path / "out", *flags)
    assert ground(tmp_path / "base", "--input", tmp_path / "good") == 0
    with pytest.raises(CallerError, match="2x2 cells"):
        ground(tmp_path / "out", *flags, "--grid", "3x3")
    with pytest.raises(CallerError, match="not asked about layout"):
        ground(tmp_path / "out", *flags, "--dimensions", "layout")
    with pytest.raises(CallerError, match="made in another way"):
        ground(tmp_path / "out", *flags, "--rubric", "interior-v2")
    assert ground(tmp_path / "out", *flags, "--limit", 4) == 0
    shutil.rmtree(tmp_path / "base")
    assert ground(tmp_path / "out", *flags) == 0, "what is laid down holds"
    assessor = load_assessor(VIEWS)
    measured = calibration.Calibration.of(locate(assessor, image) for image in good.values())
    rows = rows_of(tmp_path / "out")["grounding"]
    assert len(rows) == 6 * len(DIMENSIONS)
    for row in rows:
        cells = np.array(row["cell_scores"], np.float32).reshape(2, 2)
        located = Located(row["score"], cells, None, None, cells)
        np.testing.assert_allclose(row["cell_z"], measured.z(row["dimension"], located).ravel(), atol=1e-3)


@pytest.mark.slow
def test_mistakes_are_said_before_anything_is_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"1.png": tiny_png(1)})
    flags = ("--input", tmp_path / "in", "--output", tmp_path / "out")
    nothing = write_boxes(tmp_path / "nothing.jsonl")
    flat = write_boxes(tmp_path / "flat.jsonl", {**box(tmp_path, "1.png"), "width": 0})
    lacking = write_boxes(
        tmp_path / "lacking.jsonl", {"source": "a", "key": "b", "x": 1, "y": 1, "width": 1, "height": 1}
    )
    twice = write_boxes(tmp_path / "twice.jsonl", box(tmp_path, "1.png"), box(tmp_path, "1.png"))
    for given, said in (
        (("--assessor.checkpoint", "fake:"), r"fake:\?view_px=8"),
        ((*FAKE, "--rubric", "interior-written-v1"), "is written, and what is written"),
        ((*FAKE, "--dimensions", "beauty"), "--dimensions is a list of dimensions.*beauty.*layout"),
        ((*FAKE, "--boxes", tmp_path / "none.jsonl"), "none.jsonl cannot be read"),
        ((*FAKE, "--boxes", nothing), "has no boxes"),
        ((*FAKE, "--boxes", flat), "flat.jsonl, line 1: a box is x, y, width and height"),
        ((*FAKE, "--boxes", lacking), "line 1: no column box_id"),
        ((*FAKE, "--boxes", twice), "two boxes with the id a"),
    ):
        with pytest.raises(CallerError, match=said):
            ground_by_hand(*flags, *given)
    assert not (tmp_path / "out").exists()
    assert ground_by_hand(*flags, *FAKE) == 0
    with pytest.raises(CallerError, match="made in another way"):
        score_by_hand(*flags)
    with pytest.raises(CallerError, match="tables are of parts of images"):
        score_by_hand("--input", f"scores:{tmp_path}/out", "--output", tmp_path / "more")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["ground", "retry", "compact"])
def test_killed_before_some_changes_the_same_command_makes_the_same_tables(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {f"{i}.png": tiny_png(i) for i in range(7)}
    write_folder(tmp_path / "in", images)
    missing, place = tmp_path / "in" / "5.png", tmp_path / "list.jsonl"
    place.write_text("".join(f'{{"uri": "in/{name}"}}\n' for name in images))
    boxes = write_boxes(tmp_path / "boxes.jsonl", box(tmp_path / "in" / "5.png", "in/5.png", label="it"))
    before = tmp_path / "before"

    def done(output: Path) -> int:
        more = ("--retry-rejected",) if what == "retry" else ()
        return compact(output) if what == "compact" else ground(output, "--input", place, "--boxes", boxes, *more)

    if what == "retry":
        missing.unlink()
    if what != "ground":
        assert ground(before, "--input", place, "--boxes", boxes) == 0
        write_folder(tmp_path / "in", images)
    whole = tmp_path / "whole"
    if before.exists():
        shutil.copytree(before, whole)
    with killed_at(whole, None) as watch:
        assert done(whole) == 0
    expected = rows_of(whole)
    assert {row["status"] for row in expected["grounding"]} == {"located"}
    assert len([row for row in expected["regions"] if row["method"] == "box"]) == len(DIMENSIONS)
    for kill_at in range(1, watch.changes, 7):
        output = tmp_path / f"{kill_at}"
        if before.exists():
            shutil.copytree(before, output)
        with killed_at(output, kill_at) as killed:
            done(output)
        assert killed.is_over
        a_minute_later(output)
        assert done(output) == 0
        assert rows_of(output) == expected, f"killed before change {kill_at}"
        is_true, said = verified(output, capsys)
        assert is_true, said


@pytest.mark.slow
def test_what_is_not_true_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(8)})
    assert ground(tmp_path / "out", "--input", tmp_path / "in") == 0
    whole = tmp_path / "out"
    assert verified(whole, capsys)[0]
    names = [file.name for file in sorted((whole / "regions").iterdir())]

    def changed(folder: str, name: str) -> Path:
        other = tmp_path / f"changed{time.monotonic_ns()}"
        shutil.copytree(whole, other)
        (other / folder / name).unlink()
        return other

    is_true, said = verified(changed("grounding", names[0]), capsys)
    assert not is_true
    assert "has no rows yet" in said
    is_true, said = verified(changed("regions", names[0]), capsys)
    assert not is_true
    assert "regions/ has no file of it" in said
    other = changed("regions", names[0])
    shutil.copy(whole / "regions" / names[1], other / "regions" / names[0])
    assert not verified(other, capsys)[0], "a file under another chunk's name"
    other = changed("grounding", names[0])
    (other / "grounding" / names[0]).write_bytes(b"x" * 100)
    assert not verified(other, capsys)[0]


FLAGS_ON_RAY = ("--num-actors", "1", "--chunk-images", "10")


@pytest.mark.ray
def test_on_a_ray_an_image_that_ends_its_process_costs_only_itself(tmp_path: Path, ray_address: str) -> None:
    images = {f"{i:02d}.png": tiny_png(i) for i in range(30)}
    write_folder(tmp_path / "in", {**images, "99.png": tiny_png(99, corner=(255, 0, 255))})
    flags = ("--input", tmp_path / "in", "--output", tmp_path / "out", *FLAGS_ON_RAY)
    code, output = running.run(
        *flags, "--assessor.checkpoint", f"{VIEWS}&exit_on=ff00ff", address=ray_address, job="ground_corpus"
    )
    assert code == 0, output
    rows = rows_of(tmp_path / "out")["grounding"]
    failed = {row["key"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert failed == {"99.png": "assessor_failed"}
    assert len(rows) == 31 * len(DIMENSIONS)
    assert ground_by_hand("--input", tmp_path / "in", "--output", tmp_path / "alone", "--chunk-images", 10, *FAKE) == 0
    alone = [row for row in rows_of(tmp_path / "alone")["grounding"] if row["key"] != "99.png"]
    assert [row for row in rows if row["key"] != "99.png"] == alone, "as in this process"


@pytest.mark.ray
def test_a_driver_that_was_killed_leaves_what_the_same_command_completes(tmp_path: Path, ray_address: str) -> None:
    """Of scores with both tables beside them: all that a grounding run has, and a file more."""
    write_folder(tmp_path / "in", {f"{i:03d}.png": tiny_png(i) for i in range(80)})
    flags = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--chunk-images", "5", "--num-actors", "1")
    slow = ("--ground", "--assessor.checkpoint", f"{VIEWS}&sleep_s=0.2")
    process = running.start(*flags, *slow, address=ray_address)
    folder = tmp_path / "out" / "scores"
    wait_for(lambda: folder.exists() and len(list(folder.glob("*.parquet"))) >= 2)
    running.kill(process)
    assert len(list(folder.glob("*.parquet"))) < 16
    a_minute_later(tmp_path / "out")
    code, output = running.run(*flags, "--ground", *FAKE, address=ray_address)
    assert code == 0, output
    assert ground_by_hand("--input", tmp_path / "in", "--output", tmp_path / "alone", "--chunk-images", 5, *FAKE) == 0
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "alone")
    assert len(running.read_table(tmp_path / "out")) == 80
    record = running.read_run(tmp_path / "out")
    assert record["images"] == 80 > record["this_run"]["images"]
