"""The evaluation as a user runs it: figures of the demo assessor, failures beside them, and what is refused.

Tests jobs/evaluation/figures.py, jobs/evaluation/flow.py, jobs/evaluation/job.py, jobs/evaluation/judged.py,
jobs/evaluation/plots.py, jobs/evaluation/report.py and jobs/evaluation/settings.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from iqa_core.assessor.config import AssessorConfig
from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.assessor.load import describe, fingerprint
from iqa_core.corpus.chunks import chunk_name
from iqa_core.corpus.slot_columns import NO_SLOTS, SlotColumns
from iqa_core.demo.corpus import write_scenes
from iqa_core.errors import CallerError
from iqa_core.opinions.load import load_opinions
from iqa_core.questions import own_scales
from iqa_core.records import ImageLimits, Rejection
from iqa_core.storage.storage import Storage
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.columns import table_schema
from jobs.command import parse
from jobs.evaluation.flow import evaluate
from jobs.evaluation.plots import DOTS_PER_INCH, INCHES
from jobs.evaluation.settings import EvaluateSettings
from tests.jobs.running import ROOT, over
from tests.selection.score_tables import write_score_table
from tests.unlike import NAMES, RUBRIC, TOML

pytestmark = pytest.mark.slow


DIMENSIONS = ("distortion", "harmony", "layout", "lighting")


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """24 scenes, 6 per dimension, 2 of them test images."""
    folder = tmp_path / "SA-BENCH"
    write_scenes(folder, 24, seed=501, format="sa-bench", image_format="jpeg")
    return folder


def evaluated(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """The JSON of a run in this process."""
    output = tmp_path / "figures.json"
    assert evaluate(parse(EvaluateSettings, over(["--output", output, "--resamples", 5], *arguments))) == 0
    content: dict[str, Any] = json.loads(output.read_text())
    return content


def refused(*arguments: object) -> str:
    with pytest.raises(CallerError) as caught:
        evaluate(parse(EvaluateSettings, list(map(str, arguments))))
    return str(caught.value)


def table_of(rows: Mapping[str, Path], output: Path, keep: int | None = None) -> Path:
    """The score table that a job would have made of these images with the fake assessor, without Ray."""
    results = assess_images(load_assessor("fake:"), list(rows.values()))
    names = load_assessor("fake:").rubric.names
    lines: list[dict[str, Any]] = []
    for (key, path), result in zip(rows.items(), results, strict=True):
        row: dict[str, Any] = {"key": key, "source": str(path)}
        if isinstance(result, Rejection):
            row |= {"status": "rejected", "reason": str(result.reason)}
        else:
            row |= {"status": "scored", **dict(zip(names, map(float, result.scores_K), strict=True))}
            row |= {f"{name}_std": float(std) for name, std in zip(names, result.stds_K, strict=True)}
            row["reward"] = row["layout"]  # the mean of the fake assessor's dimensions is the same for all
        lines.append(row)
    schema = table_schema(names, probs=False, carried=pa.schema([]))
    table = pa.Table.from_pylist(lines[:keep], schema=schema)
    Ledger(Storage(), str(output)).commit(chunk_name(0, 0), table, {"rubric": "interior-v1", "fingerprint": "f0"})
    return output


def perfect_table(bench: Path, output: Path) -> Path:
    """Its scores are the opinions themselves; spreads are the fake assessor's."""
    images = images_of(bench)
    table_of(images, output)
    ledger = Ledger(Storage(), str(output))
    rows = ledger.read(chunk_name(0, 0))
    truths = {(row.path, row.dimension): row.mos for row in load_opinions([f"sa-bench:{bench}?split=full"]).rows}
    for name in DIMENSIONS:
        values = [truths.get((images[key], name), 1.0) for key in rows["key"].to_pylist()]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.float32()))
    ledger.commit(chunk_name(0, 0), rows, {"rubric": "oracle", "fingerprint": "f1"})
    return output


def images_of(bench: Path) -> dict[str, Path]:
    return {str(path.relative_to(bench)): path for path in sorted(bench.rglob("*.jpg"))}


def test_figures_of_a_data_set_of_sa_benchs_layout_stand_beside_the_published_ones(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, rubric = f"sa-bench:{bench}?split=train", f"sa-bench:{bench}/annotations?prompt=4"
    flags = ("--annotations", annotations, "--rubric", rubric, "--assessor.checkpoint", "fake:")
    found = evaluated(tmp_path, *flags)
    assert list(found["agreement"]) == [*DIMENSIONS, "overall"]
    assert [found["agreement"][name]["scored"] for name in (*DIMENSIONS, "overall")] == [4, 4, 4, 4, 16]
    assert found["agreement"]["overall"]["failed"] == 0
    assert found["ceiling"]["overall"]["images"] == 16
    assert found["published"]["SA-IQA, prompt 4"]["layout"] == {"plcc": 0.843, "srcc": 0.848}
    assert (found["about"]["rubric"], found["config"]["rubric"]) == ("sa-bench-prompt4", rubric)
    printed = capsys.readouterr()
    srcc = found["agreement"]["overall"]["srcc"]["value"]
    assert printed.out.startswith("# Agreement with people\n")
    assert f"{srcc:.3f} [" in printed.out
    assert "| SA-IQA, prompt 4 | 0.657 / 0.596 | 0.896 / 0.894 | 0.843 / 0.848 | 0.817 / 0.818 | 0.864" in printed.out
    assert "16 of 16 images" in printed.err
    assert "system      none given" in printed.err


@pytest.mark.slow
def test_the_demos_held_out_figures_come_out_again(tmp_path: Path) -> None:
    """Its card has SRCC of 500 scenes per dimension: .934 .990 .987 .981; of 100 in JPEG each is within .04 of that."""
    bench = tmp_path / "SA-BENCH"
    write_scenes(bench, 400, seed=99, format="sa-bench", image_format="jpeg")
    found = evaluated(
        tmp_path,
        *("--annotations", f"sa-bench:{bench}?split=full", "--rubric", f"sa-bench:{bench}?prompt=4"),
        *("--assessor.threads", 1),
    )["agreement"]
    card = {"layout": 0.934, "harmony": 0.990, "lighting": 0.987, "distortion": 0.981}
    for name, srcc in card.items():
        assert found[name]["scored"] == 100
        assert found[name]["srcc"]["value"] == pytest.approx(srcc, abs=0.04), name


def test_images_that_cannot_be_scored_are_counted_beside_the_figures(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((bench / "images" / "layout" / "images").iterdir())
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:900])
    flags = ("--annotations", f"sa-bench:{bench}?split=full", "--assessor.checkpoint", "fake:")
    found = evaluated(tmp_path, *flags)
    layout, overall = found["agreement"]["layout"], found["agreement"]["overall"]
    assert (layout["scored"], layout["failed"], overall["scored"], overall["failed"]) == (4, 2, 22, 2)
    assert found["failures"] == {"missing": 1, "truncated": 1}
    printed = capsys.readouterr().out
    assert "1 opinions without a score: missing" in printed
    assert "| layout | 4 | 2 |" in printed


def test_a_limit_draws_the_same_images_for_the_same_seed(bench: Path, tmp_path: Path) -> None:
    flags = ("--annotations", f"sa-bench:{bench}?split=full", "--assessor.checkpoint", "fake:", "--limit", 9)
    first, again, other = (evaluated(tmp_path, *flags, "--seed", seed) for seed in (1, 1, 2))
    assert first["images"] == other["images"] == 9
    assert first["agreement"] == again["agreement"] != other["agreement"]
    assert evaluated(tmp_path, *flags[:-1], 99)["images"] == 24


def test_one_dimension_can_be_looked_at_alone(bench: Path, tmp_path: Path) -> None:
    flags = ("--annotations", f"sa-bench:{bench}?split=full", "--assessor.checkpoint", "fake:")
    found = evaluated(tmp_path, *flags, "--dimension", "layout", "--dimension", "harmony")
    assert list(found["agreement"]) == ["harmony", "layout", "overall"]
    assert list(evaluated(tmp_path, *flags, "--dimension", "layout")["agreement"]) == ["layout"]
    assert "--dimension colour: the annotations are about distortion" in refused(*flags, "--dimension", "colour")


def test_a_table_of_opinions_on_every_dimension_has_no_published_row(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 12, seed=4, size=64)
    flags = ("--annotations", tmp_path / "scenes" / "annotations.csv", "--assessor.checkpoint", "fake:")
    found = evaluated(tmp_path, *flags)
    assert (found["images"], found["agreement"]["overall"]["scored"]) == (12, 48)
    assert "published" not in found
    assert found["ceiling"] == {}


@pytest.mark.parametrize("key", ["{}", "elsewhere/{}", "{name}"])
def test_a_score_table_gives_the_figures_that_its_images_give(key: str, bench: Path, tmp_path: Path) -> None:
    flags = ("--annotations", f"sa-bench:{bench}?split=full")
    images = {key.format(name, name=path.name): path for name, path in images_of(bench).items()}
    scores = table_of(images, tmp_path / "scores")
    direct = evaluated(tmp_path, *flags, "--assessor.checkpoint", "fake:", "--rubric", "interior-v1")
    looked_up = evaluated(tmp_path, *flags, "--scores", scores)
    for name in (*DIMENSIONS, "overall"):
        assert looked_up["agreement"][name]["srcc"] == direct["agreement"][name]["srcc"]
        assert looked_up["uncertainty"][name]["slope"] == pytest.approx(direct["uncertainty"][name]["slope"], rel=1e-5)
    assert looked_up["about"] == {"scores": str(scores), "rubric": "interior-v1", "fingerprint": "f0"}


def test_assessors_stand_side_by_side_and_differ_on_the_same_resamples(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = perfect_table(bench, tmp_path / "oracle")
    found = evaluated(
        tmp_path,
        *("--annotations", f"sa-bench:{bench}?split=full", "--assessor.checkpoint", "fake:"),
        *("--against", f"scores:{oracle}", "--against", "fake:?rubric=interior-v2"),
    )
    own = {name: found["agreement"][name]["srcc"]["value"] for name in (*DIMENSIONS, "overall")}
    best, same = found["against"]
    assert (best["about"]["rubric"], same["about"]["rubric"]) == ("oracle", "interior-v2")
    for name, srcc in own.items():
        difference = best["difference"][name]
        assert best["agreement"][name]["srcc"]["value"] == pytest.approx(1)
        assert difference["srcc"]["value"] == pytest.approx(srcc - 1)
        assert difference["srcc"]["low"] <= difference["srcc"]["high"] <= 0
        assert same["difference"][name]["srcc"] == {"value": 0, "low": 0, "high": 0}
        assert same["difference"][name]["first_ahead"] == 0.5
    overall = best["difference"]["overall"]
    assert (overall["pairs"], overall["first_ahead"]) == (24, 0)
    printed = capsys.readouterr().out
    pairs = [f"{found['agreement'][n]['plcc']['value']:.3f} / {srcc:.3f}" for n, srcc in own.items()]
    assert f"| fake:, interior-v1 | {' | '.join(pairs)} |" in printed
    assert f"| {oracle}, oracle | 1.000 / 1.000 |" in printed
    assert "| SA-IQA, prompt 1 | 0.575 / 0.552 |" in printed
    assert f"| {oracle}, oracle | overall | 24 | {overall['plcc']['value']:.3f} [" in printed
    assert "| fake:, interior-v2 | overall | 24 | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] | 0.500 |" in printed


def test_figures_of_each_group_and_how_they_spread(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"sa-bench:{bench}?split=full"
    flags = ("--assessor.checkpoint", "fake:", "--resamples", 0, "--hold-out-by")
    found = evaluated(tmp_path, "--annotations", source, *flags, "model")
    sizes = Counter(row.group for row in load_opinions([source]).rows)
    assert set(found["groups"]) == {"generator-a", "generator-b", "generator-c"} == set(sizes)
    assert {name: group["overall"]["scored"] for name, group in found["groups"].items()} == sizes
    values = [group["overall"]["srcc"]["value"] for group in found["groups"].values()]
    spread = {"groups": 3, "low": min(values), "high": max(values), "std": pytest.approx(np.std(values, ddof=1))}
    assert found["spread"]["overall"]["srcc"] == spread
    printed = capsys.readouterr().out
    assert "## By model: fake:, interior-v1" in printed
    assert f"| generator-a | {sizes['generator-a']} |" in printed
    assert "| *highest* |" in printed
    assert f" / {max(values):.3f} |\n| *standard deviation*" in printed
    message = refused("--annotations", source, *flags, "style")
    assert "no column style; there are id, distortion_score_1" in message


def test_any_column_can_hold_out_and_what_has_nothing_there_is_counted(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    images = [str(path) for path in images_of(bench).values()]
    rows = [f"{path},layout,{1 + n / 6},{'ab'[n % 2] if n < 8 else ''}" for n, path in enumerate(images)]
    table.write_text("\n".join(["image,dimension,mos,style", *rows]))
    flags = ("--assessor.checkpoint", "fake:", "--resamples", 0, "--hold-out-by", "style")
    found = evaluated(tmp_path, "--annotations", table, *flags)
    assert {name: group["layout"]["scored"] for name, group in found["groups"].items()} == {"a": 4, "b": 4}
    assert found["ungrouped"] == 16
    assert "16 opinions without style: in no group" in capsys.readouterr().out
    table.write_text("image,dimension,mos,style\n" + f"{images[0]},layout,3,")
    assert "--hold-out-by style: no opinion has anything" in refused("--annotations", table, *flags)


@pytest.mark.slow
def test_scatter_plots_are_one_picture(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--annotations", f"sa-bench:{bench}?split=full", "--assessor.checkpoint", "fake:", "--plots")
    evaluated(tmp_path, *flags, tmp_path / "p.png", "--against", "fake:?rubric=interior-v2")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (round(4 * INCHES * DOTS_PER_INCH), round(2 * INCHES * DOTS_PER_INCH))
        blue, red = np.asarray(picture.convert("RGB"), dtype=int)[..., [2, 0]].reshape(-1, 2).T
    assert (blue - red > 60).sum() > 24, "there are points"
    evaluated(tmp_path, *flags, tmp_path / "p.svg")
    assert b"</svg>" in (tmp_path / "p.svg").read_bytes()
    assert "ends in .png, .svg, .pdf" in refused(*flags, "p.jpg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "--plots needs matplotlib: pip install 'iqa-ray[plots]'" in refused(*flags, "p.png")


def test_a_checkpoints_own_limits_hold(bench: Path, tmp_path: Path) -> None:
    """The scenes have sides of 112."""
    folder = tmp_path / "strict"
    shutil.copytree(ROOT / "iqa_core" / "demo" / "checkpoint", folder)
    manifest = folder / "assessor.toml"
    manifest.write_text(manifest.read_text().replace("[fingerprint]", "[limits]\nmin_side = 113\n\n[fingerprint]"))
    flags = ("--annotations", f"sa-bench:{bench}?split=test", "--assessor.checkpoint", folder)
    found = evaluated(tmp_path, *flags, "--assessor.threads", 1)
    config = AssessorConfig(checkpoint=str(folder))
    parts = describe(config, None, ImageLimits(min_side=113)).fingerprint_parts
    assert found["failures"] == {"too_small": 8}
    assert found["about"]["fingerprint"] == fingerprint(parts)


def test_images_are_found_by_key_where_the_source_is_a_tar(bench: Path, tmp_path: Path) -> None:
    images = images_of(bench)
    table_of(images, tmp_path / "scores")
    ledger = Ledger(Storage(), str(tmp_path / "scores"))
    rows = ledger.read(chunk_name(0, 0))
    tar = rows.set_column(rows.column_names.index("offset"), "offset", pa.array(range(24), pa.int64()))
    tar = tar.set_column(tar.column_names.index("source"), "source", pa.array(["/data/a.tar"] * 24))
    ledger.commit(chunk_name(0, 0), tar, {})
    found = evaluated(tmp_path, "--annotations", f"sa-bench:{bench}?split=full", "--scores", tmp_path / "scores")
    assert found["agreement"]["overall"]["scored"] == 24


def test_the_reward_is_judged_like_a_dimension(bench: Path, tmp_path: Path) -> None:
    images = images_of(bench)
    scores = table_of(images, tmp_path / "scores")
    lines = [
        f"{path},{name},{1 + index % 5}" for index, path in enumerate(images.values()) for name in ("reward", "layout")
    ]
    annotations = tmp_path / "opinions.csv"
    annotations.write_text("\n".join(["image,dimension,mos", *lines]))
    looked_up = evaluated(tmp_path, "--annotations", annotations, "--scores", scores)
    assert looked_up["agreement"]["reward"] == looked_up["agreement"]["layout"]
    direct = evaluated(tmp_path, "--annotations", annotations, "--assessor.checkpoint", "fake:")
    assert direct["agreement"]["reward"]["scored"] == 24
    assert direct["agreement"]["layout"]["srcc"] == looked_up["agreement"]["layout"]["srcc"]
    assert looked_up["uncertainty"].keys() == {"layout", "overall"}
    # other columns of the table are no dimensions, be they numbers or not
    annotations.write_text(annotations.read_text().replace(",reward,", ",width,"))
    assert "the annotations are about width, but the score table" in refused(
        "--annotations", annotations, "--scores", scores
    )


def test_what_a_score_table_does_not_have_is_counted(bench: Path, tmp_path: Path) -> None:
    images = images_of(bench)
    first = next(iter(images.values()))
    first.write_bytes(b"")
    scores = table_of(images, tmp_path / "scores", keep=20)
    found = evaluated(tmp_path, "--annotations", f"sa-bench:{bench}?split=full", "--scores", scores)
    assert found["failures"] == {"not in the score table": 4, "empty": 1}
    assert found["agreement"]["overall"]["failed"] == 5


def test_what_cannot_be_evaluated_is_refused(bench: Path, tmp_path: Path) -> None:
    annotations = ("--annotations", f"sa-bench:{bench}?split=full")
    assert "has no scores/*.parquet" in refused(*annotations, "--scores", tmp_path / "none")
    assert "would be ignored" in refused(*annotations, "--scores", "x", "--rubric", "q-align")
    assert "would be ignored" in refused(*annotations, "--scores", "x", "--assessor.checkpoint", "fake:")
    assert "--storage-options belong to --scores" in refused(*annotations, "--storage-options", '{"anon": true}')
    message = refused(*annotations, "--assessor.checkpoint", "fake:", "--rubric", "q-align")
    assert "the annotations are about distortion, harmony, layout, lighting, but rubric q-align" in message
    assert "has quality, aesthetics, reward" in message
    assert "--annotations: is required" in refused()
    other = ("--against", "scores:x")
    assert "would be ignored" in refused(*annotations, "--scores", "x", *other, "--assessor.threads", 1)
    assert "has no scores/*.parquet" in refused(*annotations, "--assessor.checkpoint", "fake:", *other)
    other = ("--against", "fake:?rubric=q-align")
    assert "but rubric q-align has quality" in refused(*annotations, "--assessor.checkpoint", "fake:", *other)
    assert "--limit" in refused(*annotations, "--limit", 0)
    scores = table_of({"far/away.jpg": next(iter(images_of(bench).values()))}, tmp_path / "other")
    elsewhere = Path(str(bench) + "-moved")
    bench.rename(elsewhere)
    moved = ("--annotations", f"sa-bench:{elsewhere}?split=full")
    assert "none of 24 images of the annotations is in it; its keys are like far/away.jpg" in refused(
        *moved, "--scores", scores
    )
    (elsewhere / "images").rename(tmp_path / "images")
    message = refused(*moved, "--assessor.checkpoint", "fake:")
    assert "none of 24 images is where the annotations say" in message
    assert "?images=FOLDER" in message


def test_a_name_that_could_be_several_images_is_refused(bench: Path, tmp_path: Path) -> None:
    path = next(iter(images_of(bench).values()))
    copies = {f"copy/{path.name}": tmp_path / "a.jpg", f"sub/copy/{path.name}": tmp_path / "b.jpg"}
    for copy in copies.values():
        copy.write_bytes(path.read_bytes())
    table = tmp_path / "t.csv"
    table.write_text(f"image,dimension,mos\n{path.name},layout,3\n")
    message = refused("--annotations", table, "--scores", table_of(copies, tmp_path / "scores"))
    assert f"{path.name} of the annotations could be 2 images of the table: copy/{path.name} in" in message


@pytest.mark.parametrize("slots", [NO_SLOTS, SlotColumns({"prompt": "caption"})])
def test_a_file_that_was_scored_twice_is_its_last_row_unless_its_text_was_another(
    slots: SlotColumns, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    rows = [
        {"key": key, "source": str(path), "layout": score, "caption": key}
        for key, score in (("a.png", 1.0), ("b/a.png", 4.0))
    ]
    carried = pa.schema([("caption", pa.string())])
    table = write_score_table(tmp_path / "scores", rows, carried=carried, slots=slots)
    (tmp_path / "t.csv").write_text(f"image,dimension,mos\n{path},layout,4\n")
    flags = ("--annotations", tmp_path / "t.csv", "--scores", table)
    if slots.columns:
        assert "a.png of the annotations could be 2 images of the table" in refused(*flags)
    else:
        assert evaluated(tmp_path, *flags)["agreement"]["layout"]["mae"]["value"] == 0


@pytest.mark.slow
def test_as_a_process_it_prints_the_report_alone_and_needs_no_ray(bench: Path, tmp_path: Path) -> None:
    script = [sys.executable, "-X", "importtime", str(ROOT / "jobs" / "evaluate_assessor.py")]
    flags = ["--annotations", f"sa-bench:{bench}?split=test", "--assessor.checkpoint", "fake:", "--resamples", "0"]
    done = subprocess.run([*script, *flags], capture_output=True, text=True, cwd="/", timeout=60, check=True)
    assert done.stdout.startswith("# Agreement with people\n\n- assessor: fake:\n")
    assert " ray" not in done.stderr
    assert " torch" not in done.stderr
    wrong = subprocess.run([*script[:1], *script[3:], "--annotation"], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: unrecognized arguments: --annotation")


def test_scores_of_any_range_are_held_against_opinions_with_the_better_end_up(tmp_path: Path) -> None:
    """A table that agrees with all opinions, each dimension in its own units."""
    moses = [1 + index % 9 / 2 for index in range(18)]
    rows = []
    for index, mos in enumerate(moses):
        share = (mos - 1) / 4
        scores = {"shown": share, "noise": 10 - 9 * share, "layout": mos, "things": share, "reward": mos}
        stds = {"shown_std": 0.25, "noise_std": 2.25, "layout_std": 1.0, "things_std": 0.25}
        rows.append({"key": f"{index}.png", **scores, **stds})
    table = write_score_table(tmp_path / "scores", rows, dimensions=NAMES, scales=own_scales(RUBRIC.columns))
    lines = [f"{index}.png,{name},{mos}" for index, mos in enumerate(moses) for name in (*NAMES, "reward")]
    annotations = tmp_path / "opinions.csv"
    annotations.write_text("\n".join(["image,dimension,mos", *lines]))
    flags = ("--annotations", annotations, "--plots", tmp_path / "p.svg")
    found = evaluated(tmp_path, *flags, "--scores", table)
    for name, figures in found["agreement"].items():
        assert figures["plcc"]["value"] == pytest.approx(1), name
        assert figures["mae"]["value"] == pytest.approx(0, abs=0.05), name
    assert found["uncertainty"]["overall"]["within_one_spread"] == 1
    assert found["about"]["ranges"] == "shown from 0 to 1, noise from 10 to 1, things from 0 to 1"
    assert found["auc"] == {"shown": {"value": 1, "low": 1, "high": 1}}
    assert "<!-- 7.75 -->" in (tmp_path / "p.svg").read_text(), "a tick between 1 and 10"


def test_the_images_of_a_rubric_of_unlike_ranges_are_scored_here(bench: Path, tmp_path: Path) -> None:
    (tmp_path / "unlike.toml").write_text(TOML)
    flags = ("--rubric", tmp_path / "unlike.toml", "--assessor.checkpoint", "fake:")
    assessor = load_assessor("fake:", rubric=str(tmp_path / "unlike.toml"))
    images = list(images_of(bench).values())
    scored = [result for result in assess_images(assessor, images) if not isinstance(result, Rejection)]
    lines = [
        f"{path},noise,{1 + (10 - scores.scores_K[1]) * 4 / 9}" for path, scores in zip(images, scored, strict=True)
    ]
    (tmp_path / "opinions.csv").write_text("\n".join(["image,dimension,mos", *lines]))
    found = evaluated(tmp_path, "--annotations", tmp_path / "opinions.csv", *flags)
    assert found["agreement"]["noise"]["plcc"]["value"] == pytest.approx(1)
