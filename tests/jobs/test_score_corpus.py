"""The whole job on a real Ray: every image gets exactly the row that it deserves, whatever happens.

Tests jobs/on_ray/read_tasks.py, jobs/scoring/flow.py and jobs/assessing/isolation.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqa_core.corpus.sources import is_image_name
from iqa_core.records import Assessment, Reason
from iqa_core.rubrics import load_rubric
from tests.bad_images import bad_images
from tests.corpora import assessed_alone, tiny_png, write_asking, write_folder, write_mixed, write_tar
from tests.jobs import running
from tests.selection.scored_corpora import write_scored_corpus

pytestmark = pytest.mark.ray

DIMENSIONS = load_rubric("interior-v1").names
NO_MODEL = ("--assessor.checkpoint", "fake:")
FAKE = (*NO_MODEL, "--num-actors", "1")
"""One actor: each costs two seconds of CPU to start, on machines that have two cores. Several are in test_faults."""


def test_mixed_inputs_score_as_each_image_does_alone(tmp_path: Path, ray_address: str) -> None:
    corpus = write_mixed(tmp_path, 120)
    inputs = [argument for given in corpus.inputs for argument in ("--input", given)]
    out = tmp_path / "out"
    code, output = running.run(
        *inputs,
        "--output",
        out,
        *FAKE,
        "--chunk-images",
        25,
        "--probs",
        "--carry",
        "index:int64",
        address=ray_address,
        uploads=True,
    )
    assert code == 0, output
    table = running.read_table(out)
    running.assert_scores(table, assessed_alone(corpus.images), DIMENSIONS)
    rows = {row["key"]: row for row in table.to_pylist()}
    expected = assessed_alone({"one": corpus.images["picture-00050.png"]})["one"]
    assert isinstance(expected, Assessment)
    assert rows["picture-00050.png"]["layout_probs"] == pytest.approx(expected.probs_K[0].tolist())
    assert rows["picture-00050.png"]["index"] == 2, "carried from the sidecar"
    assert rows["picture-00100.png"]["caption"] == "picture picture-00100.png", "carried from Parquet"
    assert rows["elsewhere/picture-00110.png"]["seed"] == 2, "carried from the list"
    assert rows["elsewhere/picture-00110.png"]["caption"] is None
    for row in rows.values():
        assert _located(row) == corpus.images[row["key"]], "the locator columns lead back to the bytes"
    record = running.read_run(out)
    assert (record["complete"], record["images"], record["scored"], record["rejected"]) == (True, 120, 120, 0)
    assert record["fusion"]["source"] == "equal (unfitted)"

    code, output = running.run(
        *inputs, "--output", out, *FAKE, "--chunk-images", 25, "--probs", "--carry", "index:int64"
    )
    assert code == 0, output
    assert running.read_run(out)["this_run"]["images"] == 0, "nothing is scored twice"
    running.assert_same_tables(running.read_table(out), table, tolerance=0)


def test_rows_of_a_score_table_score_as_their_images_do(tmp_path: Path, ray_address: str) -> None:
    corpus = write_scored_corpus(tmp_path)
    flags = ("--input", f"scores:{corpus.scores}?where=reward < 3", "--output", tmp_path / "out", *FAKE)
    code, output = running.run(*flags, address=ray_address)
    assert code == 0, output
    assert re.search(rf"^rows of +{corpus.scores} where reward < 3$", output, re.MULTILINE), output
    chosen = {row["key"] for row in running.read_table(corpus.scores).to_pylist() if (row["reward"] or 3) < 3}
    assert 10 < len(chosen) < 20
    table = running.read_table(tmp_path / "out")
    running.assert_scores(table, assessed_alone({key: corpus.images[key] for key in chosen}), DIMENSIONS)
    assert set(table.column("input_reward").to_pylist()) == {1.0, 2.0}


def _located(row: dict[str, object]) -> bytes:
    """Bytes of an image by its locator columns alone."""
    source = Path(str(row["source"]))
    if row["row"] is not None:
        cell = pq.read_table(source, columns=["image"]).column(0)[row["row"]]
        return bytes(cell["bytes"].as_py())
    data = source.read_bytes()
    if row["offset"] is None:
        return data
    begin, length = int(str(row["offset"])), int(str(row["length"]))
    return data[begin : begin + length]


def test_the_same_images_in_every_kind_of_source_have_the_same_scores(tmp_path: Path, ray_address: str) -> None:
    import datasets

    images = {f"{index:03d}.png": tiny_png(index) for index in range(100)}
    write_folder(tmp_path / "folder", images)
    write_tar(tmp_path / "tars" / "x.tar", images)
    rows = [{"id": name, "bytes": data} for name, data in images.items()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bytes.parquet", row_group_size=30)
    structs = [{"id": name, "image": {"bytes": data, "path": None}} for name, data in images.items()]
    pq.write_table(pa.Table.from_pylist(structs), tmp_path / "structs.parquet")
    uris = [{"id": name, "uri": f"folder/{name}"} for name in images]
    pq.write_table(pa.Table.from_pylist(uris), tmp_path / "uris.parquet")
    (tmp_path / "list.csv").write_text("id,uri\n" + "".join(f"{name},folder/{name}\n" for name in images))
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in uris))
    saved = datasets.Dataset.from_list(structs).cast_column("image", datasets.Image(decode=False))
    saved.save_to_disk(tmp_path / "saved")
    wanted = assessed_alone(images)

    named = ["bytes.parquet", "structs.parquet", "uris.parquet", "list.csv", "list.jsonl", "saved"]
    inputs = [argument for name in named for argument in ("--input", str(tmp_path / name))]
    code, output = running.run(
        *inputs, "--output", tmp_path / "with-ids", *FAKE, "--id-column", "id", address=ray_address
    )
    assert code == 0, output
    inputs = ["--input", str(tmp_path / "folder"), "--input", str(tmp_path / "tars")]
    code, output = running.run(*inputs, "--output", tmp_path / "files", *FAKE, address=ray_address)
    assert code == 0, output
    found = 0
    for out in ("with-ids", "files"):
        table = running.read_table(tmp_path / out)
        kinds = table.group_by("key").aggregate([("layout", "count")])
        found += table.num_rows
        for repeat in range(kinds.column("layout_count")[0].as_py()):
            one_each = [rows[repeat] for rows in _by_key(table).values()]
            running.assert_scores(pa.Table.from_pylist(one_each), wanted, DIMENSIONS)
    assert found == 8 * len(images)


def _by_key(table: pa.Table) -> dict[str, list[dict[str, object]]]:
    grouped: dict[str, list[dict[str, object]]] = {}
    for row in table.to_pylist():
        grouped.setdefault(row["key"], []).append(row)
    return grouped


def test_bad_images_get_one_row_each_with_the_right_reason(tmp_path: Path, ray_address: str) -> None:
    bad = [image for image in bad_images() if is_image_name(image.name)]
    assert len(bad) >= 40
    folder = tmp_path / "bad"
    write_folder(folder, {image.name: image.data for image in bad})
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "notes.txt").write_text("not an image")
    wanted: dict[str, Reason | None] = {image.name: image.reason for image in bad} | {"dangling.jpg": Reason.MISSING}
    code, output = running.run(
        "--input", folder, "--output", tmp_path / "out", *FAKE, "--max-reject-rate", 1, address=ray_address
    )
    assert code == 0, output
    rows = running.read_table(tmp_path / "out").to_pylist()
    assert {row["key"]: row["reason"] for row in rows} == wanted
    assert len(rows) == len(wanted)
    for row in rows:
        assert (row["status"] == "scored") == (row["reason"] is None) == (row["layout"] is not None)
        assert str(tmp_path) not in (row["detail"] or ""), "details say nothing of this machine"
    assert running.read_run(tmp_path / "out")["ignored_files"] == {"txt": 1}


def test_poison_costs_exactly_its_own_rows(tmp_path: Path, ray_address: str) -> None:
    poison = {
        "exit": (0xFF, 0, 0xFF),
        "raise": (0, 0xFF, 0xFF),
        "hang": (0xFF, 0xFF, 0),
        "nan": (9, 9, 9),
        "decoder-exit": (0xFF, 0, 0),
        "decoder-hang": (0, 0, 0xFF),
    }
    images = {f"{index:02d}.png": tiny_png(index) for index in range(40)}
    texts, rubric = {name: f"the picture {name}" for name in images}, write_asking(tmp_path / "asking.toml")
    wanted = assessed_alone(images, texts, rubric)
    images |= {f"{9 + 4 * i}-{name}.png": tiny_png(900 + i, corner) for i, (name, corner) in enumerate(poison.items())}
    write_folder(tmp_path / "in", images)
    rows = [f"{name},the picture {name}\n" for name in images]
    (tmp_path / "in" / "metadata.csv").write_text("".join(["file_name,prompt\n", *rows]))
    options = (
        "exit_on=ff00ff&raise_on=00ffff&hang_on=ffff00&nan_on=090909&prepare_exit_on=ff0000&prepare_hang_on=0000ff"
    )
    code, output = running.run(
        *("--input", tmp_path / "in", "--output", tmp_path / "out", "--assessor.checkpoint", f"fake:?{options}"),
        *("--assessor.timeout-s", 2, "--decode-timeout-s", 2, "--chunk-images", 24, "--rubric", rubric),
        address=ray_address,
    )
    assert code == 0, output
    table = running.read_table(tmp_path / "out")
    assert table.num_rows == len(images)
    rejected = {row["key"]: row["reason"] for row in table.to_pylist() if row["status"] == "rejected"}
    assert {key.split("-", 1)[1].removesuffix(".png"): reason for key, reason in rejected.items()} == {
        "exit": Reason.ASSESSOR_FAILED,
        "raise": Reason.ASSESSOR_FAILED,
        "hang": Reason.ASSESSOR_FAILED,
        "nan": Reason.ASSESSOR_FAILED,
        "decoder-exit": Reason.CORRUPT,
        "decoder-hang": Reason.CORRUPT,
    }
    others = table.filter(pa.array([row["status"] == "scored" for row in table.to_pylist()]))
    running.assert_scores(others, wanted, ("likeness", "quality"))


def test_retry_rejected_tries_only_what_can_change(tmp_path: Path, ray_address: str) -> None:
    images = {f"{index:02d}.png": tiny_png(index) for index in range(20)}
    write_folder(tmp_path / "in", images)
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    absent = tmp_path / "aside.png"
    absent.write_bytes(tiny_png(77))
    listed = [f"in/{name}" for name in images] + ["in/empty.png", "aside.png"]
    (tmp_path / "list.csv").write_text("uri\n" + "\n".join(listed) + "\n")
    absent.rename(tmp_path / "hidden")
    arguments = ("--input", tmp_path / "list.csv", "--output", tmp_path / "out", *FAKE)
    code, output = running.run(*arguments, address=ray_address)
    assert code == 0, output
    before = running.read_table(tmp_path / "out")
    assert running.read_run(tmp_path / "out")["rejected_by_reason"] == {"empty": 1, "missing": 1}

    (tmp_path / "hidden").rename(absent)
    for name in list(images)[:5]:
        (tmp_path / "in" / name).unlink()  # were they read again, they would be missing now
    code, output = running.run(*arguments, "--retry-rejected", address=ray_address)
    assert code == 0, output
    after = {row["key"]: row for row in running.read_table(tmp_path / "out").to_pylist()}
    assert after["aside.png"]["status"] == "scored"
    for row in before.to_pylist():
        if row["key"] != "aside.png":
            assert after[row["key"]] == row, "merged by ordinal: every other row is as it was"
    assert running.read_run(tmp_path / "out")["rejected_by_reason"] == {"empty": 1}


def test_too_many_rejections_stop_the_run_and_a_higher_bound_goes_on(tmp_path: Path, ray_address: str) -> None:
    write_folder(tmp_path / "in", {f"{index}.png": tiny_png(index) for index in range(10)})
    write_folder(tmp_path / "in", {f"broken{index}.jpg": b"\xff\xd8\xff" for index in range(20)})
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", *FAKE)
    code, output = running.run(*arguments, address=ray_address)
    assert code == 1
    assert "20 of 30 images are rejected" in output
    assert not (tmp_path / "out" / "run.json").exists()
    code, output = running.run(*arguments, "--max-reject-rate", 0.7)
    assert code == 0, output
    assert running.read_run(tmp_path / "out")["this_run"]["images"] == 0


def test_limit_new_input_and_changed_sources(tmp_path: Path, ray_address: str) -> None:
    images = {f"{index:02d}.png": tiny_png(index) for index in range(30)}
    write_folder(tmp_path / "in", images)
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", *FAKE, "--chunk-images", 8)
    code, output = running.run(*arguments, "--limit", 10, address=ray_address)
    assert code == 0, output
    assert running.read_table(tmp_path / "out").num_rows == 16, "whole chunks"
    write_folder(tmp_path / "in", {"new.png": tiny_png(500)})
    code, output = running.run(*arguments, address=ray_address)
    assert code == 0, output
    assert running.read_run(tmp_path / "out")["this_run"]["images"] == 15

    (tmp_path / "in" / "03.png").write_bytes(tiny_png(3000))
    (tmp_path / "in" / "20.png").unlink()
    before = running.read_table(tmp_path / "out")
    code, output = running.run(*arguments)
    assert code == 2
    assert "03.png" in output
    assert "20.png" in output
    running.assert_same_tables(running.read_table(tmp_path / "out"), before)
    code, output = running.run(*arguments, "--on-changed", "rescore", address=ray_address)
    assert code == 0, output
    left = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    running.assert_scores(running.read_table(tmp_path / "out"), assessed_alone(left), DIMENSIONS)


def test_a_damaged_tail_costs_one_row_and_an_unreadable_source_its_chunk(tmp_path: Path, ray_address: str) -> None:
    images = {f"{index:02d}.png": tiny_png(index) for index in range(12)}
    write_tar(tmp_path / "in" / "cut.tar", images)
    whole = (tmp_path / "in" / "cut.tar").read_bytes()
    cut_at = whole.index(images["07.png"]) + 100
    (tmp_path / "in" / "cut.tar").write_bytes(whole[:cut_at])
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", *FAKE)
    code, output = running.run(*arguments, address=ray_address)
    assert code == 0, output
    rows = {row["key"]: row["reason"] for row in running.read_table(tmp_path / "out").to_pylist()}
    assert rows == {f"{index:02d}.png": None for index in range(7)} | {"07.png": Reason.TRUNCATED}
    (damage,) = running.read_run(tmp_path / "out")["damaged_sources"]
    assert "cut.tar" in damage
    assert "07.png" in damage

    (tmp_path / "in" / "garbage.tar").write_bytes(b"not a tar" * 500)
    code, output = running.run(*arguments, address=ray_address)
    assert code == 1
    assert "garbage.tar" in output
    record = running.read_run(tmp_path / "out")
    assert record["complete"] is False
    assert len(record["unfinished"]) == 1


def test_the_demo_assessor_scores_and_a_ray_is_started_for_the_job(tmp_path: Path) -> None:
    from iqa_core.demo.corpus import write_scenes

    write_scenes(tmp_path / "in", 12, seed=3, format="webdataset", size=112, image_format="png")
    given = ("--input", tmp_path / "in", "--output", tmp_path / "out", "--num-actors", 1, "--strict-check")
    code, output = running.run(*given)
    assert code == 0, output
    assert "warning" not in output
    table = running.read_table(tmp_path / "out")
    assert table.num_rows == 12
    scores = table.column("layout").to_numpy()
    assert ((scores >= 1) & (scores <= 5)).all()
    assert scores.std() > 1e-3
    assert running.read_run(tmp_path / "out")["rubric"] == "interior-v4"


def test_the_cluster_must_hold_pool_and_readers(tmp_path: Path, ray_address: str) -> None:
    write_folder(tmp_path / "in", {"one.png": tiny_png(1)})
    arguments = ("--input", tmp_path / "in", "--output", tmp_path / "out", *NO_MODEL)
    code, output = running.run(*arguments, "--num-actors", 9, address=ray_address)
    assert code == 2
    assert "room for 2 of them" in output
    code, output = running.run(*arguments, "--num-actors", 2, "--actor-cpus", 1, address=ray_address)
    assert code == 2
    assert "0 CPU for reading" in output
    assert not (tmp_path / "out").exists()


def test_help_is_quick() -> None:
    text, took_s = running.help_of("score_corpus")
    assert "--assessor.checkpoint" in text
    assert took_s < running.QUICK_S


def test_the_job_runs_as_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.score_corpus", "--help"],
        capture_output=True,
        text=True,
        cwd=running.ROOT,
        check=True,
    )
    assert "--output" in done.stdout
