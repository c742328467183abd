"""Scores and what is said of parts of images, out of one pass: both are those of two runs, whatever happens to it.

Tests iqa_core/tables/regions/beside_scores.py, jobs/assessing/parts.py and jobs/assessing/grounding.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqa_core.__main__ import main
from iqa_core.errors import CallerError
from jobs.command import parse
from jobs.scoring.settings import ScoreSettings
from tests.assessor import tiny
from tests.corpora import tiny_png, write_folder, write_mixed
from tests.jobs import operations, running
from tests.jobs.by_hand import ground_by_hand, scoring_by_hand
from tests.jobs.operations import a_minute_later, compact, killed_at
from tests.jobs.test_ground_corpus import DIMENSIONS, FAKE, box, rows_of, verified, write_boxes


def score(output: Path, *flags: object, checkpoint: str = FAKE[1]) -> int:
    given = ["--output", output, "--chunk-images", 4, "--assessor.checkpoint", checkpoint, *flags]
    return sum(scoring_by_hand(parse(ScoreSettings, [*map(str, given)])))


def all_rows(output: Path) -> dict[str, Any]:
    """Of the three tables."""
    return {"scores": operations.rows_of(output), **rows_of(output)}


@pytest.mark.slow
def test_one_pass_makes_the_tables_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that cannot be read, one with too few tokens for parts, and boxes among them."""
    corpus = write_mixed(tmp_path, 12)
    loose = tmp_path / "corpus" / "loose"
    (loose / "broken.png").write_bytes(b"no image")
    (loose / "flat.png").write_bytes(tiny_png(3, size=12))
    boxes = write_boxes(tmp_path / "boxes.jsonl", box(loose / "flat.png", "loose/flat.png"), box(loose, "nobody"))
    inputs = [part for given in corpus.inputs for part in ("--input", given)]
    assert score(tmp_path / "scores", *inputs) == 0
    assert ground_by_hand("--output", tmp_path / "parts", "--chunk-images", 4, *FAKE, *inputs, "--boxes", boxes) == 0
    capsys.readouterr()
    assert score(tmp_path / "both", *inputs, "--ground", "--boxes", boxes) == 0
    shown = capsys.readouterr().out
    assert "asked      " in shown
    assert "located" in shown
    assert "grounding  " in shown
    found = all_rows(tmp_path / "both")
    assert found["scores"] == operations.rows_of(tmp_path / "scores")
    assert {name: found[name] for name in ("grounding", "regions")} == rows_of(tmp_path / "parts")
    [flat] = [row for row in found["scores"] if row["key"].endswith("flat.png")]
    assert flat["status"] == "scored", "too few tokens for parts are enough for scores"
    assert {row["status"] for row in found["grounding"] if row["key"] == flat["key"]} == {"failed"}
    assert verified(tmp_path / "both", capsys)[0]
    record, alone = (running.read_run(tmp_path / name) for name in ("both", "scores"))
    assert record["fingerprint"] == alone["fingerprint"], "scores are the same"
    assert record["statuses"] == running.read_run(tmp_path / "parts")["statuses"]
    assert (record["boxes_given"], record["boxes"], record["boxes_without_scores"]) == (2, 1, 1)
    assert {"statuses", "grid", "boxes"}.isdisjoint(alone)
    assert (tmp_path / "both" / "report.html").exists()
    assert (tmp_path / "both" / "grounding.html").exists()
    assert str(tmp_path / "both" / "grounding.html") in (tmp_path / "both" / "report.html").read_text()
    assert "grounding.html" not in (tmp_path / "scores" / "report.html").read_text()
    plain, grounded = (
        json.loads((tmp_path / name / "plan" / "000000.json").read_bytes()) for name in ("scores", "both")
    )
    assert grounded.pop("grounding")["dimensions"] == [*DIMENSIONS]
    assert plain == grounded, "outputs without it are as they were"
    for file in (tmp_path / "scores" / "scores").iterdir():
        assert file.read_bytes() == (tmp_path / "both" / "scores" / file.name).read_bytes()


@pytest.mark.slow
def test_scores_of_a_model_are_those_without_it(tmp_path: Path) -> None:
    folder = tiny.save_qwen2_5_vl(tmp_path / "model")
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i, size=112) for i in range(6)})
    flags = ("--input", tmp_path / "in", "--rubric", "interior-v2", "--no-report")
    for name, more in (("plain", ()), ("both", ("--ground",))):
        assert score(tmp_path / name, *flags, *more, checkpoint=str(folder)) == 0
    plain, both = (operations.rows_of(tmp_path / name) for name in ("plain", "both"))
    columns = [name for name, value in plain[0].items() if isinstance(value, float)]
    assert {*DIMENSIONS, "reward"} <= {*columns}
    for here, there in zip(plain, both, strict=True):
        np.testing.assert_allclose([there[name] for name in columns], [here[name] for name in columns], atol=1e-5)
    score_of = {row["key"]: row for row in both}
    for row in rows_of(tmp_path / "both")["grounding"]:
        assert row["score"] == score_of[row["key"]][row["dimension"]], "to the last bit"


@pytest.mark.slow
def test_it_goes_on_where_it_ended_and_keeps_what_it_was_begun_with(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(10)})
    flags = ("--input", tmp_path / "in", "--no-report")
    for flag in (("--grid", "3x3"), ("--boxes", "b.jsonl"), ("--ground-dimensions", "layout"), ("--calibration", "c")):
        with pytest.raises(CallerError, match=f"{flag[0]} belongs to --ground"):
            score(tmp_path / "out", *flags, *flag)
    with pytest.raises(CallerError, match=r"--ground-dimensions is a list of dimensions.*beauty"):
        score(tmp_path / "out", *flags, "--ground", "--ground-dimensions", "beauty")
    with pytest.raises(CallerError, match=r"fake:\?view_px=8"):
        score(tmp_path / "out", *flags, "--ground", checkpoint="fake:")
    assert not (tmp_path / "out").exists()
    assert score(tmp_path / "whole", *flags, "--ground") == 0
    assert score(tmp_path / "out", *flags, "--ground", "--limit", 4) == 0
    assert score(tmp_path / "out", *flags, "--ground") == 0
    assert all_rows(tmp_path / "out") == all_rows(tmp_path / "whole")
    assert score(tmp_path / "plain", *flags) == 0
    for output, other in (
        ("out", ()),
        ("out", ("--ground", "--grid", "3x3")),
        ("out", ("--ground", "--ground-dimensions", "layout")),
        ("plain", ("--ground",)),
    ):
        with pytest.raises(CallerError, match=r"(?s)made in another way.*grounding"):
            score(tmp_path / output, *flags, *other)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["score", "retry", "compact"])
def test_killed_before_some_changes_the_same_command_makes_the_same_tables(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {f"{i}.png": tiny_png(i) for i in range(7)}
    write_folder(tmp_path / "in", images)
    place, before = tmp_path / "list.jsonl", tmp_path / "before"
    place.write_text("".join(f'{{"uri": "in/{name}"}}\n' for name in images))
    flags = ("--input", place, "--ground", "--no-report")

    def done(output: Path) -> int:
        return (
            compact(output) if what == "compact" else score(output, *flags, *["--retry-rejected"] * (what == "retry"))
        )

    if what != "score":
        if what == "retry":
            (tmp_path / "in" / "5.png").unlink()
        assert score(before, *flags) == 0
        write_folder(tmp_path / "in", images)
    whole = copied(before, tmp_path / "whole")
    with killed_at(whole, None) as watch:
        assert done(whole) == 0
    expected = all_rows(whole)
    assert {row["status"] for row in expected["grounding"]} == {"located"}
    for kill_at in range(1, watch.changes, 9):
        output = copied(before, tmp_path / f"{kill_at}")
        with killed_at(output, kill_at) as killed:
            done(output)
        assert killed.is_over
        a_minute_later(output)
        assert done(output) == 0
        assert all_rows(output) == expected, f"killed before change {kill_at}"
        is_true, said = verified(output, capsys)
        assert is_true, said


def copied(before: Path, output: Path) -> Path:
    """A copy of what was there before, if something was."""
    if before.exists():
        shutil.copytree(before, output)
    return output


@pytest.mark.slow
def test_what_is_not_true_in_any_of_the_three_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(i) for i in range(8)})
    whole, other = tmp_path / "whole", tmp_path / "other"
    flags = ("--input", tmp_path / "in", "--ground", "--no-report")
    assert score(whole, *flags) == 0
    assert verified(whole, capsys)[0]
    write_folder(tmp_path / "in", {f"{i}.png": tiny_png(50 + i) for i in range(8)})
    assert score(other, *flags) == 0
    [first, second] = sorted(file.name for file in (whole / "scores").iterdir())

    def after(change: Callable[[Path], object]) -> str:
        output = copied(whole, tmp_path / f"{len([*tmp_path.iterdir()])}")
        change(output)
        is_true, said = verified(output, capsys)
        assert not is_true
        return said

    assert "has no rows yet" in after(lambda output: (output / "scores" / first).unlink())
    for folder in ("grounding", "regions"):
        assert f"{folder}/ has no file of it" in after(lambda output: (output / folder / first).unlink())  # noqa: B023
    for folder in ("scores", "grounding", "regions"):
        after(lambda output: (output / folder / first).write_bytes(b"x" * 100))  # noqa: B023
        after(lambda output: shutil.copy(output / folder / second, output / folder / first))  # noqa: B023
    said = after(lambda output: shutil.copy(other / "grounding" / first, output / "grounding" / first))
    assert "in its score table" in said, "what was said of other pixels under these names"


@pytest.mark.slow
def test_no_place_is_claimed_in_a_dimension_that_a_self_test_found_at_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record of `check` itself, of a fake that locates nothing, and of one that is said to."""
    for name in ("in", "good"):
        write_folder(tmp_path / name, {f"{i}.png": tiny_png(i, size=48) for i in range(8)})
    checked = [
        "check",
        "--checkpoint",
        FAKE[1],
        "--grounding",
        str(tmp_path / "good"),
        "--output",
        str(tmp_path / "test"),
    ]
    assert main(checked) in (0, 1)
    record = json.loads((tmp_path / "test" / "grounding.json").read_text())
    for result in record["results"]:
        result["verdict"] = "above chance" if result["dimension"] == "lighting" else "at chance"
    (tmp_path / "test" / "grounding.json").write_text(json.dumps(record))
    flags = ("--input", tmp_path / "in", "--ground", "--self-test", tmp_path / "test")
    with pytest.raises(CallerError, match="--keep-at-chance belongs to --self-test"):
        score(tmp_path / "out", "--input", tmp_path / "in", "--ground", "--keep-at-chance")
    capsys.readouterr()
    assert score(tmp_path / "out", *flags) == 0
    assert "self-test  distortion at chance" in (shown := capsys.readouterr().out)
    assert "no place is claimed" in shown
    rows = rows_of(tmp_path / "out")
    statuses = {(row["dimension"], row["status"]) for row in rows["grounding"]}
    assert statuses == {("lighting", "located"), ("distortion", "unlocated")}
    assert all(len(row["cell_scores"]) == 4 for row in rows["grounding"])
    assert {row["dimension"] for row in rows["regions"]} == {"lighting"}
    assert verified(tmp_path / "out", capsys)[0]
    assert running.read_run(tmp_path / "out")["self_test"]["distortion"]["is_above_chance"] is False
    assert b"distortion at chance" in (tmp_path / "out" / "grounding.html").read_bytes()
    kept = ("--keep-at-chance", "--no-report")
    with pytest.raises(CallerError, match="at chance: distortion there, absent now"):
        score(tmp_path / "out", *flags, *kept)
    assert score(tmp_path / "kept", *flags, *kept) == 0
    assert {row["status"] for row in rows_of(tmp_path / "kept")["grounding"]} == {"located"}
