"""Written answers of the fake, through planning and the worker's loop (no Ray) -> table, run.json, and all who read it.

Tests iqa_core/written/columns.py.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from iqa_core.assessor.config import AssessorConfig
from iqa_core.corpus.plan.plan import Contract, Plan
from iqa_core.errors import DONE, CallerError
from iqa_core.report.scoring_report import scoring_report
from iqa_core.rubrics import WrittenRubric, load_any_rubric
from iqa_core.tables.scores.score_table import open_score_table
from iqa_core.tables.sink import AssessedBatch, Sink
from iqa_core.written.columns import WrittenColumns
from iqa_core.written.parsing import Parsed, parsed
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.work import AssessBatches, ChunkTask, ReadChunks, from_assessed_row
from jobs.evaluation.flow import evaluate
from jobs.evaluation.settings import EvaluateSettings
from jobs.scoring.job import checked
from jobs.scoring.settings import ScoreSettings
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from tests.corpora import tiny_png, write_folder
from tests.inspection.speaking import save_writing
from tests.jobs.operations import LOCAL, compact, faults_of, rows_of, score
from tests.jobs.running import read_run

pytestmark = pytest.mark.slow

NAMES = [f"{index:02d}.png" for index in range(40)]
CUT = AssessorConfig(checkpoint="fake:?cut_share=0.2")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_folder(folder, {name: tiny_png(seed) for seed, name in enumerate(NAMES)})
    return folder


@pytest.fixture(scope="module")
def table(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored along a written rubric, a fifth of the answers cut."""
    output = tmp_path_factory.mktemp("table") / "out"
    assert score(output, images, rubric="interior-written-v1", assessor=CUT) == DONE
    return output


@pytest.fixture(scope="module")
def drawn(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of three samples, all of them kept."""
    folder = tmp_path_factory.mktemp("drawn")
    shipped = resources.files("iqa_core.rubrics.written").joinpath("perception-v1.toml").read_text()
    text = shipped.replace("samples = 1\ntemperature = 0", "samples = 3\ntemperature = 1")
    (folder / "drawn.toml").write_text(text)
    settings = {"rubric": str(folder / "drawn.toml"), "assessor": CUT, "all_samples": True}
    assert score(folder / "out", images, **settings) == DONE
    return folder / "out"


def test_a_row_has_the_numbers_and_the_text_of_its_answer(table: Path) -> None:
    rows = rows_of(table)
    assert len(rows) == len(NAMES)
    assert faults_of(table) == []
    scored = [row for row in rows if row["status"] == "scored"]
    assert 24 <= len(scored) < len(rows)
    for row in scored:
        assert all(1 <= row[name] <= 5 for name in ("layout", "harmony", "lighting", "distortion", "quality"))
        assert row["reward"] == row["quality"]
        assert row["layout_std"] is row["quality_std"] is None, "one sample has no spread"
        assert row["written_reasoning"].startswith("The layout is ")
        assert (row["written_caption"], row["written_parsed"], row["written_finish"]) == (None, 1, "stop")
    for row in rows:
        if row["status"] == "rejected":
            assert row["reason"] == "unparsable"
            assert row["detail"].partition(":")[0] in {"no_open", "no_close", "missing_attribute", "not_a_number"}
            assert {row[name] for name in row if name.startswith(("written_", "quality"))} == {None}
    assert "written_answers" not in rows[0]


def test_several_samples_are_averaged_and_kept_where_asked(drawn: Path) -> None:
    rubric = load_any_rubric("perception-v1")
    assert isinstance(rubric, WrittenRubric)
    parsed_counts = set()
    for row in rows_of(drawn):
        answers = [parsed(text, rubric.form) for text in row["written_answers"] or ()]
        good = [one for one in answers if isinstance(one, Parsed)]
        parsed_counts.add(len(good))
        if not good:
            assert row["reason"] == "unparsable"
            continue
        assert row["quality"] == pytest.approx(sum(one.values[0] for one in good) / len(good))
        assert (row["quality_std"] is None) == (len(good) == 1)
        assert (row["written_caption"], row["written_reasoning"]) == (good[0].caption, good[0].reasoning)
        assert (len(answers), row["written_parsed"]) == (3, len(good))
    assert {1, 2, 3} <= parsed_counts
    assert faults_of(drawn) == []


def test_an_answer_that_does_not_end_costs_its_image_alone(table: Path, images: Path, tmp_path: Path) -> None:
    score(tmp_path / "out", images, rubric="interior-written-v1")
    whole, cut = rows_of(tmp_path / "out"), rows_of(table)
    assert {row["status"] for row in whole} == {"scored"}
    assert [row for row in cut if row["status"] == "scored"] == [
        row for row, other in zip(whole, cut, strict=True) if other["status"] == "scored"
    ]


def test_run_json_counts_how_answers_were_parsed(table: Path, drawn: Path) -> None:
    for output, samples in ((table, 1), (drawn, 3)):
        run, rows = read_run(output), rows_of(output)
        counts = run["written_answers"]
        assert sum(counts.values()) == samples * len(NAMES)
        assert counts["parsed"] == sum(row["written_parsed"] or 0 for row in rows)
        assert run["this_run"]["written_answers"] == counts
        assert run["rejected_by_reason"].get("unparsable", 0) == sum(row["status"] == "rejected" for row in rows)
    assert "decoding" in run["fingerprint_parts"]
    assert run["fingerprint_parts"]["parser"] == "1"


def test_run_json_notes_what_is_not_taken_from_a_checkpoint(tmp_path: Path, table: Path) -> None:
    checkpoint = save_writing(tmp_path / "checkpoint")
    inherited = {"do_sample": True, "temperature": 0.000001, "top_k": 1}
    (checkpoint / "generation_config.json").write_text(json.dumps(inherited))
    write_folder(tmp_path / "images", {name: tiny_png(seed) for seed, name in enumerate(NAMES[:2])})
    assessor = AssessorConfig(checkpoint=str(checkpoint), dtype="float32", threads=1)
    rubric = str(checkpoint / "writing.toml")
    assert score(tmp_path / "out", tmp_path / "images", rubric=rubric, assessor=assessor, check=False) == DONE
    about = read_run(tmp_path / "out")
    assert about["generation_config"] == inherited
    assert "temperature=0 " in about["fingerprint_parts"]["decoding"]
    assert about["written_answers"] == {"parsed": 2}
    assert read_run(table)["generation_config"] == {}, "a fake has no such file"


def test_what_was_counted_stays_when_more_images_come(images: Path, tmp_path: Path) -> None:
    settings = {"rubric": "perception-v1", "assessor": CUT}
    score(tmp_path / "out", images, limit=8, **settings)
    first = read_run(tmp_path / "out")
    score(tmp_path / "out", images, **settings)
    run = read_run(tmp_path / "out")
    assert sum(first["written_answers"].values()) == 8
    assert sum(run["written_answers"].values()) == len(NAMES)
    assert sum(run["this_run"]["written_answers"].values()) == len(NAMES) - 8
    before = rows_of(tmp_path / "out")
    compact(tmp_path / "out")
    assert rows_of(tmp_path / "out") == before
    score(tmp_path / "out", images, **settings)
    assert read_run(tmp_path / "out")["written_answers"] == run["written_answers"]


def test_it_is_right_where_images_are_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(
        tmp_path / "in", {"a.png": tiny_png(1), "b.png": tiny_png(2, corner=(255, 0, 0)), "c.png": tiny_png(3)}
    )
    settings: dict[str, Any] = {"rubric": "attributes-v1", "max_reject_rate": 1}
    failing = AssessorConfig(checkpoint="fake:?nan_on=ff0000")
    score(tmp_path / "out", tmp_path / "in", **settings, assessor=failing)
    assert read_run(tmp_path / "out")["written_answers"] == {"parsed": 2}
    score(tmp_path / "out", tmp_path / "in", **settings, retry_rejected=True)
    run = read_run(tmp_path / "out")
    assert (run["written_answers"], run["this_run"]["written_answers"]) == ({"parsed": 3}, {"parsed": 1})
    assert faults_of(tmp_path / "out") == []
    assert "\nanswers\n  parsed                 3\n" in capsys.readouterr().out
    score(tmp_path / "out", tmp_path / "in", **settings)
    assert read_run(tmp_path / "out")["written_answers"] == {"parsed": 3}


def test_counts_travel_from_the_actors_also_where_images_come_again_in_other_batches(
    images: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "input": [str(images)],
        "output": str(tmp_path),
        "assessor": CUT,
        "rubric": "perception-v1",
    }
    job = checked(ScoreSettings(**given))
    work = job.work(applied(job, proposed(job)), threads=1)
    read, assess, sink = ReadChunks(work), AssessBatches(lambda: work), Sink()
    [chunk] = job.plan.chunks()
    for task in (ChunkTask.of(chunk, only=tuple(range(0, len(NAMES), 7))), ChunkTask.of(chunk)):
        for ready in read(task):
            done = assess(ready)
            batch = from_assessed_row({name: done.column(name)[0] for name in done.column_names})
            assert isinstance(batch, AssessedBatch)
            complete = sink.add(batch)
    assert complete is not None
    assert complete.answers.total() == len(NAMES)
    assert complete.answers["parsed"] == pc.sum(complete.rows().column("written_parsed")).as_py()


def test_a_carried_column_of_such_a_name_makes_way_in_written_outputs_alone(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [(images / NAMES[0]).read_bytes()], "written_caption": ["mine"]}), path)
    score(tmp_path / "levels", path)
    assert rows_of(tmp_path / "levels")[0]["written_caption"] == "mine"
    score(tmp_path / "written", path, rubric="perception-v1")
    [row] = rows_of(tmp_path / "written")
    assert row["input_written_caption"] == "mine"
    assert row["written_caption"].startswith("Something ")


def test_the_report_shows_the_text_under_its_pictures(table: Path) -> None:
    page = scoring_report(open_score_table(LOCAL, str(table))).decode()
    best = max(rows_of(table), key=lambda row: row["quality"] or 0)
    assert f'<p class="said">{best["written_reasoning"]}</p>' in page
    counts = read_run(table)["written_answers"]
    assert f"<dd>40: parsed {counts['parsed'] / 40:.2%}, no_close " in page
    lengths = [len(row["written_reasoning"]) for row in rows_of(table) if row["written_reasoning"]]
    said = f"{sum(lengths) / len(lengths):,.0f} characters in the mean, {max(lengths)} at most"
    assert f"<dt>written_reasoning</dt><dd>{said}</dd>" in page
    assert "<dt>written_caption</dt>" not in page, "this grammar has none"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"rubric": "perception-v1", "probs": True}, "--probs: rubric perception-v1 is written"),
        ({"all_samples": True}, "--all-samples: rubric interior-v1 is not written"),
    ],
)
def test_flags_of_the_other_kind_are_refused(
    images: Path, tmp_path: Path, settings: dict[str, Any], fault: str
) -> None:
    given = {"input": [str(images)], "output": str(tmp_path), "assessor": AssessorConfig(checkpoint="fake:")}
    with pytest.raises(CallerError, match=fault):
        checked(ScoreSettings(**{**given, **settings}))


def test_an_output_stays_as_it_was_begun(table: Path, images: Path) -> None:
    with pytest.raises(CallerError, match="all_samples: False there, True now"):
        score(table, images, rubric="interior-written-v1", assessor=CUT, all_samples=True)
    with pytest.raises(CallerError, match=r"(?s)rubric: interior-written-v1.*decoding"):
        score(table, images, rubric="perception-v1", assessor=CUT)


def test_plans_say_what_is_kept_and_those_without_are_read(table: Path) -> None:
    contract = Plan(LOCAL, str(table)).contract()
    assert contract is not None
    assert contract.written == WrittenColumns(all_samples=False)
    assert Contract.from_json(contract.to_json()) == contract
    content = json.loads(contract.to_json())
    assert content.pop("written") == {"all_samples": False}
    assert Contract.from_json(json.dumps(content).encode()).written is None


def test_selections_look_at_the_text_and_export_it_as_caption(table: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"scores": [str(table)], "output": str(tmp_path / "out"), "report": False}
    wanted: dict[str, Any] = {
        "where": "written_reasoning ILIKE '%LAYOUT is excellent%' AND quality > 1",
        "export": ["list"],
    }
    assert select(SelectSettings(**given, **wanted, caption_column="written_reasoning")) == DONE
    kept = pq.read_table(tmp_path / "out" / "list" / "selected.parquet").to_pylist()
    expected = [row for row in rows_of(table) if "layout is excellent" in (row["written_reasoning"] or "")]
    assert kept
    assert [row["caption"] for row in kept] == [row["written_reasoning"] for row in expected if row["quality"] > 1]


def test_scores_are_held_against_opinions(
    table: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {row["key"]: row for row in rows_of(table)}
    lines = [f"{name},{rows[name]['quality'] or 3},{rows[name]['layout'] or 3}" for name in NAMES]
    path = images.parent / "opinions.csv"
    path.write_text("\n".join(["image,quality,layout", *lines]))
    settings: dict[str, Any] = {
        "annotations": [f"{path}?dimensions=quality,layout&images={images}"],
        "scores": str(table),
    }
    output = tmp_path / "figures.json"
    assert evaluate(EvaluateSettings(**settings, resamples=5, output=str(output))) == DONE
    figures = json.loads(output.read_text())
    scored = sum(row["status"] == "scored" for row in rows.values())
    for name in ("quality", "layout"):
        assert figures["agreement"][name]["srcc"]["value"] == pytest.approx(1)
        assert (figures["agreement"][name]["scored"], figures["agreement"][name]["failed"]) == (scored, 40 - scored)
        assert figures["parsed"][name] == pytest.approx(scored / 40)
        assert figures["uncertainty"][name]["srcc"]["value"] is None, "one sample has no spread"
    assert f"| quality | {scored} | {40 - scored} | {scored / 40:.3f} |" in capsys.readouterr().out
    settings |= {"scores": None, "assessor": CUT, "rubric": "interior-written-v1"}
    assert evaluate(EvaluateSettings(**settings, resamples=0, output=str(output))) == DONE
    again = json.loads(output.read_text())
    assert again["parsed"] == figures["parsed"]
    assert again["agreement"]["quality"]["srcc"]["value"] == pytest.approx(1)
