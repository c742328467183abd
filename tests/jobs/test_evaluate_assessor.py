"""The evaluation as a user runs it: figures of the demo assessor, failures beside them, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iqa_core.assessor.direct import assess_images, load_assessor
from iqa_core.corpus.ledger import Ledger, chunk_name
from iqa_core.corpus.storage import Storage
from iqa_core.corpus.table import table_schema
from iqa_core.demo.corpus import write_scenes
from iqa_core.errors import CallerError
from iqa_core.records import Rejection
from jobs.command import parse
from jobs.evaluate_settings import EvaluateSettings
from jobs.evaluation import evaluate
from tests.jobs.running import ROOT

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
    flags = ["--output", output, "--resamples", 5, *arguments]
    assert evaluate(parse(EvaluateSettings, list(map(str, flags)))) == 0
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
        lines.append(row)
    schema = table_schema(names, probs=False, carried=pa.schema([]))
    table = pa.Table.from_pylist(lines[:keep], schema=schema)
    Ledger(Storage(), str(output)).commit(chunk_name(0, 0), table, {"rubric": "interior-v1", "fingerprint": "f0"})
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
    """Its card has SRCC of 500 scenes per dimension: .934 .991 .981 .979; of 100 in JPEG each is within .04 of that."""
    bench = tmp_path / "SA-BENCH"
    write_scenes(bench, 400, seed=99, format="sa-bench", image_format="jpeg")
    found = evaluated(
        tmp_path,
        *("--annotations", f"sa-bench:{bench}?split=full", "--rubric", f"sa-bench:{bench}?prompt=4"),
        *("--assessor.threads", 1),
    )["agreement"]
    card = {"layout": 0.934, "harmony": 0.991, "lighting": 0.981, "distortion": 0.979}
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
    assert "the annotations are about distortion, harmony, layout, lighting, but rubric q-align has quality" in message
    assert "--annotations: is required" in refused()
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
