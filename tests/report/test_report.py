"""Reports: the numbers are those of the rows, what comes from data is escaped, and size stays bounded.

Tests iqa_core/report/charts.py, iqa_core/report/comparison.py, iqa_core/report/gathered.py,
iqa_core/report/scoring_report.py, iqa_core/report/selection_report.py, iqa_core/report/thumbnails.py,
iqa_core/tables/scores/run_record.py and jobs/reporting.py.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from iqa_core.__main__ import main
from iqa_core.corpus.chunks import ReadOptions
from iqa_core.corpus.originals import Locator
from iqa_core.errors import CallerError
from iqa_core.questions import own_scales
from iqa_core.records import ImageLimits, ScoreRange
from iqa_core.report.charts import histogram
from iqa_core.report.comparison import compare_tables
from iqa_core.report.gathered import BINS, MAX_THUMBNAILS, Gathered
from iqa_core.report.scoring_report import gather, scoring_report
from iqa_core.report.thumbnails import thumbnails
from iqa_core.storage.storage import Storage
from iqa_core.tables.scores.score_table import open_score_table
from jobs.command import parse
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from tests.selection.score_tables import DIMENSIONS, write_score_table
from tests.selection.scored_corpora import write_scored_corpus
from tests.unlike import NAMES, RUBRIC

pytestmark = pytest.mark.slow


CARRIED = pa.schema({"model": pa.string(), "prompt": pa.string()})


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    found: list[dict[str, Any]] = []
    for index in range(count):
        layout, lighting = rng.uniform(1, 5), rng.uniform(1, 5)
        scores = {"layout": layout, "lighting": lighting, "reward": (layout + lighting) / 2}
        row: dict[str, Any] = {"key": f"{index:04d}.png", "model": rng.choice("ab"), "prompt": f"p{index}"}
        found.append(row | ({"reason": "corrupt"} if index % 10 == 3 else scores))
    return found


@pytest.fixture
def gathered(tmp_path: Path) -> Gathered:
    scores = write_score_table(tmp_path / "scores", rows(200), CARRIED, chunk_images=16)
    return gather(open_score_table(Storage(), str(scores)))


def column(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([row[name] for row in rows(200) if "reason" not in row], np.float32)


def test_counts_means_and_correlations_are_those_of_the_rows(gathered: Gathered) -> None:
    names = (*DIMENSIONS, "reward")
    assert (gathered.images, gathered.scored, gathered.reasons["corrupt"]) == (200, 180, 20)
    expected = np.stack([column(name) for name in names])
    np.testing.assert_allclose(gathered.means(), expected.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(gathered.correlations(), np.corrcoef(expected), atol=1e-6)
    assert gathered.histograms[0].sum(axis=1).tolist() == [180] * 3
    assert len(gathered.examples["corrupt"]) == 5


def test_sheets_hold_the_extremes_of_all_chunks_in_order(gathered: Gathered) -> None:
    count = gathered.sheet_images
    layout = np.sort(column("layout"))
    sheets = gathered.sheets
    shown = {s: [image.values["layout"] for image in sheets["layout", s]] for s in ("best", "worst", "borderline")}
    assert shown["best"] == pytest.approx(layout[::-1][:count].tolist())
    assert shown["worst"] == pytest.approx(layout[:count].tolist())
    nearest = np.sort(np.abs(column("layout") - 3))[:count]
    assert [abs(score - 3) for score in shown["borderline"]] == pytest.approx(nearest.tolist())


def test_columns_of_few_values_are_groups_and_others_are_not(gathered: Gathered) -> None:
    assert set(gathered.by_group) == {"model"}, "a prompt of its own per image is no group"
    mine = [row for row in rows(200) if row.get("model") == "a" and "reason" not in row]
    group = gathered.by_group["model"]["a"]
    assert group.images == len(mine)
    assert group.totals_K[-1] / group.images == pytest.approx(np.mean([row["reward"] for row in mine]))


@pytest.mark.parametrize("dimensions", [1, 4, 40, 95])
def test_thumbnails_are_bounded_whatever_the_rubric(dimensions: int) -> None:
    names = [f"d{index}" for index in range(dimensions)]
    assert 0 < Gathered((*names, "reward")).sheet_images * 3 * (dimensions + 1) <= MAX_THUMBNAILS


def test_a_checklist_of_256_columns_has_a_report_of_the_first(tmp_path: Path) -> None:
    names = [f"d{index}" for index in range(256)]
    scores = write_score_table(tmp_path / "many", [{"key": str(index)} for index in range(3)], dimensions=names)
    page = scoring_report(open_score_table(Storage(), str(scores))).decode()
    assert "The first 95 dimensions and the reward; the table has 161 further ones." in page
    assert page.count("<svg") == 96


def test_tables_in_which_nothing_varies_or_nothing_is_scored_have_reports(tmp_path: Path) -> None:
    equal = write_score_table(tmp_path / "equal", [{"key": str(index)} for index in range(9)])
    assert b"mean 3.00" in scoring_report(open_score_table(Storage(), str(equal)))
    rejected = write_score_table(tmp_path / "rejected", [{"key": "a", "reason": "empty"}])
    assert b"no scores" in scoring_report(open_score_table(Storage(), str(rejected)))


def test_a_damaged_record_of_the_run_is_named(tmp_path: Path) -> None:
    scores = write_score_table(tmp_path / "scores", rows(9), CARRIED)
    for damaged in (b"", b"{", b"[]", b"\xff"):
        (scores / "run.json").write_bytes(damaged)
        with pytest.raises(CallerError, match=r"run\.json"):
            scoring_report(open_score_table(Storage(), str(scores)))


def test_what_comes_from_data_is_escaped_and_nothing_is_fetched_by_the_page(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>\"'&"
    table: list[dict[str, Any]] = [
        *({"key": f"{nasty}{i}", "model": f"{nasty}{i % 2}", "reward": 2.0 + i} for i in range(3)),
        {"key": nasty, "reason": "corrupt", "detail": nasty},
    ]
    scores = write_score_table(tmp_path / "sc&<b>", table, CARRIED)
    record = {
        "checkpoint": nasty,
        "rubric": "q-align",
        "meant_for": {"rubric": "Any picture.", "checkpoint": "Drawings."},
        "warnings": [nasty, "own answer: 0/3"],
        "rejected_by_reason": {},
        "this_run": {"progress": [[1, 2], [3, 4]]},
    }
    (scores / "run.json").write_text(json.dumps(record))
    page = scoring_report(open_score_table(Storage(), str(scores))).decode()
    for fact in ("q-align", "Any picture.", "Drawings.", "own answer: 0/3"):
        assert f"<dd>{fact}</dd>" in page
    assert "Throughput" in page
    assert "<script" not in page
    assert html.escape(nasty, quote=True) in page.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:)|url\(|@import|https?://""", page)


def test_pictures_are_those_of_the_corpus_and_lost_ones_are_left_out(tmp_path: Path) -> None:
    corpus = write_scored_corpus(tmp_path)
    table = open_score_table(Storage(), str(corpus.scores))
    page = scoring_report(table).decode()
    pictures = re.findall(r'<img src="data:image/jpeg;base64,[\w+/=]+" alt="([^"]+)"', page)
    assert len(pictures) > 30
    assert any(text.startswith("picture-") for text in pictures), "from tars and tables"
    assert any(re.fullmatch(r"loose/part\d/picture-\d+\.png, layout \d\.\d\d", text) for text in pictures)
    for path in (tmp_path / "corpus" / "loose").rglob("*.png"):
        path.unlink()
    fewer = re.findall(r'alt="([^"]+)"', scoring_report(table).decode())
    assert fewer
    assert not any(text.startswith("loose/") for text in fewer)


def test_a_comparison_tells_drift_and_what_moved_most(tmp_path: Path) -> None:
    here = write_score_table(tmp_path / "here", rows(100), CARRIED)
    moved = [row | ({} if "reason" in row else {"reward": row["reward"] - 0.5}) for row in rows(100)]
    moved[7]["reward"] = 9.0
    there = write_score_table(tmp_path / "there", moved[:60], CARRIED, fingerprint="f" * 16)
    found = compare_tables(*(open_score_table(Storage(), str(uri)) for uri in (here, there)))
    assert found.images == 54
    by_name = {row["name"]: row for row in found.rows}
    assert by_name["layout"]["drift"] == pytest.approx(0, abs=1e-6)
    assert by_name["layout"]["correlation"] == pytest.approx(1)
    assert found.most[0]["key"] == "0007.png"
    expected = (53 * 0.5 + rows(100)[7]["reward"] - 9) / 54
    assert by_name["reward"]["drift"] == pytest.approx(expected, abs=1e-5)


def test_tables_that_have_nothing_in_common_are_not_compared(tmp_path: Path) -> None:
    here = open_score_table(Storage(), str(write_score_table(tmp_path / "a", [{"key": "x"}])))
    other = write_score_table(tmp_path / "b", [{"key": "y"}])
    with pytest.raises(CallerError, match="none of these images"):
        compare_tables(here, open_score_table(Storage(), str(other)))
    other = write_score_table(tmp_path / "c", [{"key": "x"}], dimensions=("beauty",))
    with pytest.raises(CallerError, match="there is nothing to compare"):
        compare_tables(here, open_score_table(Storage(), str(other)))


def test_the_command_writes_a_report_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = write_score_table(tmp_path / "scores", rows(20), CARRIED)
    arguments = ["report", "--scores", str(scores), "--against", str(scores), "--output", str(tmp_path / "r.html")]
    assert main(arguments) == 0
    assert "Against another run" in (tmp_path / "r.html").read_text()
    assert main(["report", "--scores", str(tmp_path / "nowhere")]) == 2
    assert "no score table is there" in capsys.readouterr().err


def test_a_selection_shows_kept_against_dropped(tmp_path: Path) -> None:
    scores = write_score_table(tmp_path / "scores", rows(60), CARRIED)
    arguments = ["--scores", str(scores), "--output", str(tmp_path / "out"), "--top-fraction", "0.25"]
    assert select(parse(SelectSettings, arguments)) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "14 kept, 40 dropped" in page
    assert "6:top_fraction" in page
    assert "corrupt: 6" in page
    assert "Means by model" in page


def test_columns_of_an_old_table_that_are_called_as_a_decisions_are_no_decisions(tmp_path: Path) -> None:
    carried = pa.schema({"kept": pa.bool_(), "weight": pa.string(), "model": pa.string()})
    given = [row | {"kept": False, "weight": "7 kg"} for row in rows(50)]
    pages = []
    for name, content, schema in (("old", given, carried), ("plain", rows(50), pa.schema({"model": pa.string()}))):
        scores, output = write_score_table(tmp_path / name, content, schema), tmp_path / f"{name}-chosen"
        flags = ["--scores", str(scores), "--output", str(output), "--where", "reward > 3"]
        assert select(parse(SelectSettings, flags)) == 0
        pages.append((output / "report.html").read_text().replace(str(scores), "").replace(str(output), ""))
    assert pages[0] == pages[1]


def test_a_report_that_cannot_be_written_costs_nobody_the_selection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write_score_table(tmp_path / "scores", rows(10), CARRIED)
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    assert select(parse(SelectSettings, ["--scores", str(scores), "--output", str(tmp_path / "out")])) == 0
    assert "error: the report of this selection could not be written" in capsys.readouterr().err
    assert (tmp_path / "out" / "selection.json").exists()


def test_a_page_full_of_noise_stays_under_ten_megabytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    place = Locator(str(tmp_path / "a.png"), None, None, None, hashlib.sha256(buffer.getvalue()).hexdigest())
    [worst] = thumbnails(Storage(), [place], ReadOptions(), ImageLimits()).values()
    assert len(worst) * MAX_THUMBNAILS < 9e6, "nothing compresses worse than noise"


def test_what_is_no_number_is_in_no_mean_and_no_drift(tmp_path: Path) -> None:
    """As of images that a joined table has not scored, or scores that somebody else wrote."""
    nan, inf = float("nan"), float("inf")
    given = [(1.0, "a"), (nan, "a"), (3.0, "a"), (inf, "b"), (None, "b")]
    found = [{"reward": value, "layout": value, "lighting": value, "model": model} for value, model in given]
    tables = [
        open_score_table(Storage(), str(write_score_table(tmp_path / name, found, CARRIED))) for name in ("x", "y")
    ]
    groups = gather(tables[0]).by_group["model"]
    assert (groups["a"].images, list(groups["a"].means_K)) == (3, [2.0, 2.0, 2.0])
    assert groups["b"].images == 2
    assert np.isnan(groups["b"].means_K).all()
    moved = compare_tables(*tables)
    assert [(row["mean_here"], row["drift"]) for row in moved.rows] == [(2.0, 0.0)] * 3
    assert [row["key"] for row in moved.most] == ["0000.png", "0002.png"]
    assert b"nan" not in scoring_report(tables[0], against=tables[1]).lower().replace(b"finance", b"")


UNLIKE = own_scales(RUBRIC.columns)


def unlike_rows(count: int) -> list[dict[str, Any]]:
    """From best to worst in every dimension, whatever its range."""
    shares = [1 - index / (count - 1) for index in range(count)]
    return [
        {"key": f"{i:02d}", "shown": s, "noise": 10 - 9 * s, "layout": 1 + 4 * s, "things": s, "reward": 1 + 4 * s}
        for i, s in enumerate(shares)
    ]


def test_the_better_end_of_each_range_is_in_front(tmp_path: Path) -> None:
    scores = write_score_table(tmp_path / "scores", unlike_rows(41), dimensions=NAMES, scales=UNLIKE)
    table = open_score_table(Storage(), str(scores))
    found = gather(table)
    for name in (*NAMES, "reward"):
        shown = {sheet: found.sheets[name, sheet][0].values["key"] for sheet in ("best", "worst", "borderline")}
        assert shown == {"best": "00", "worst": "40", "borderline": "20"}, name
    assert found.histograms[0].sum(axis=1).tolist() == [41] * 5
    assert found.histograms[0].max() <= 2, "from end to end, even where rounding moves a score over an edge"
    page = scoring_report(table).decode()
    assert "1 is worst, 5 is best unless a chart says otherwise" in page
    for caption in ("noise: 10 is worst, 1 is best", "things: 0 is worst, 1 is best", ">layout<"):
        assert caption in page
    assert "Histogram of noise: mean 5.50 on the scale of 10 to 1; 41 images" in page


def test_a_selection_shows_the_best_of_what_is_dropped_where_less_is_better(tmp_path: Path) -> None:
    scores = write_score_table(tmp_path / "scores", unlike_rows(41), dimensions=NAMES, scales=UNLIKE)
    for _, block in (table := open_score_table(Storage(), str(scores))).ledger.read_all(table.chunks):
        found = Gathered(("noise", "reward"), (), table.contract.scales)
        found.add(block, np.zeros(block.num_rows, bool))
        assert found.sheets["noise", "borderline"][0].values["noise"] == min(block.column("noise").to_pylist())


def test_ticks_go_from_one_end_of_a_range_to_the_other() -> None:
    ends = {(1, 5): "12345", (0, 1): ("0", "0.25", "0.5", "0.75", "1"), (10, 2): "2 4 6 8 10".split()}
    for (worst, best), wanted in ends.items():
        chart = histogram("x", np.ones((1, BINS), np.int64), 1.0, ["images"], ScoreRange(worst, best))
        assert re.findall(r'text-anchor="\w+">([^<]+)<', chart) == list(wanted)


def test_a_dimension_whose_range_is_another_there_is_not_compared(tmp_path: Path) -> None:
    tables = []
    for name, scales in (("here", UNLIKE), ("there", {**UNLIKE, "noise": UNLIKE["shown"]})):
        scores = write_score_table(tmp_path / name, unlike_rows(5), dimensions=NAMES, scales=scales)
        tables.append(open_score_table(Storage(), str(scores)))
    assert [row["name"] for row in compare_tables(*tables).rows] == ["shown", "layout", "things", "reward"]
