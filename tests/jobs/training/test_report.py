"""The page of a run, from what lies in its output: every figure has its chart, whatever kind of training it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iqa_core.storage.storage import Storage
from jobs.training.records import FIGURES, TEXTS, RecordsFile
from jobs.training.report import RunReport, best, sections
from jobs.training.watch import Watch

STEPS = 40
RANKED = {"loss": 0.1, "kl": 0.01, "reward": 2, "reward_score": 0.8, "reward_std": 0.1, "memory_gib": 1.2, "odd": 5}
DRAWN = {"parsed_drawn": 0.3, "fidelity_normalised": 0.7, "fidelity_blind": 0.1}
FOUND = {"parsed": 1, "srcc": 0.9, "mae_tidy": 0.2, "single_srcc": 0.8, "single_mae_tidy": 0.3, "rank_by": 0.9}


def run(output: Path) -> RunReport:
    """Of a ranking that validates twice, and writes about an image that is there and one that is gone."""
    Image.new("RGB", (40, 30), "teal").save(output / "there.png")
    figures: list[dict[str, Any]] = [{"step": step, "steps": 50, **RANKED, **DRAWN} for step in range(1, STEPS + 1)]
    for last in (20, STEPS):
        figures[last - 1] |= FOUND | {"rank_by": 1 / last}
    texts = [
        {"step": step, "image": str(output / name), "text": f"at {step}", "ratings": None, "opinions": {"tidy": 4.5}}
        for step in (20, STEPS)
        for name in ("there.png", "gone.png")
    ]
    RecordsFile.of(str(output), Storage(), FIGURES).write(figures)
    RecordsFile.of(str(output), Storage(), TEXTS).write(texts)
    return RunReport(str(output), Storage(), [("base", "small")])


def test_a_page_says_what_the_run_is_how_far_it_is_and_what_goes_wrong(tmp_path: Path) -> None:
    shown = run(tmp_path).page().decode()
    said = dict(re.findall(r"<dt>(.*)</dt><dd>(.*)</dd>", shown))
    assert said["base"] == "small"
    assert said["step"] == "40 of 50"
    assert said["best"] == "the checkpoint of step 20"
    assert said["since step 30"].startswith("30% of answers are parsed: teach the form")
    assert shown.count("<img ") == 1
    assert shown.index("there.png") < shown.index("gone.png"), "the order of the examples"
    assert re.findall(r"<td>(step \d+)</td>", shown) == ["step 20", "step 40"] * 2
    assert shown.count("<td>4.50</td>") == 2


def test_of_equal_checkpoints_the_last_is_the_best() -> None:
    """As Ray Train keeps them."""
    assert best({"step": step, "rank_by": rank} for step, rank in ((10, 0.9), (20, 0.9), (30, 0.8)))["step"] == 20


def test_each_figure_has_one_chart_and_what_belongs_together_shares_it(tmp_path: Path) -> None:
    run(tmp_path)
    found = list(sections(RecordsFile.of(str(tmp_path), Storage(), FIGURES).read()))
    assert [section.title for section in found] == [
        *("Validation", "Rewards", "Does it look at the image?", "Drawn answers", "Learning"),
        *("Validation by attribute", "Machines"),
    ]
    charts = [chart for section in found for chart in section.charts]
    lines = [line for chart in charts for line in chart.lines]
    assert len(lines) == len({*RANKED, *DRAWN, *FOUND} - {"rank_by"})
    assert [len(chart.lines) for chart in charts if chart.title in ("SRCC", "normalised fidelity")] == [2, 2]
    assert "odd" in [chart.title for chart in found[-1].charts], "a figure that nobody planned for"
    assert [chart.title for chart in found[1].charts] == ["reward", "reward: score"]


def test_a_run_that_has_reported_nothing_or_nothing_finite_has_a_page(tmp_path: Path) -> None:
    report = RunReport(str(tmp_path), Storage(), [])
    assert b"<figure" not in report.page()
    RecordsFile.of(str(tmp_path), Storage(), FIGURES).write([{"step": 1, "steps": 2, "loss": float("nan")}])
    assert b"<figure" not in report.page()


def test_a_restart_shows_what_is_new_and_no_alarm_that_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = RecordsFile.of(str(tmp_path), Storage(), FIGURES)
    record = {"steps": 99, "loss": 0.5, "samples_per_s": 3, "memory_gib": 1}
    records = [{**record, "step": step, "cut": 0.9 if step < 31 else 0.0} for step in range(1, 70)]
    file.write(records[:-1])
    watch = Watch(RunReport(str(tmp_path), Storage(), []))
    watch.look()
    file.write(records)
    watch.look()
    watch.close()
    [shown] = capsys.readouterr().out.splitlines()
    assert shown.startswith("step 69/99")


def test_it_is_made_at_each_validation_and_ends_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(RunReport(str(tmp_path), Storage(), []))
    file, page = RecordsFile.of(str(tmp_path), Storage(), FIGURES), tmp_path / "report.html"
    record = {"steps": 9, "loss": 0.5, "samples_per_s": 3, "memory_gib": 1}
    file.write([{**record, "step": 1}])
    watch.look()
    assert not page.exists()
    file.write([{**record, "step": 1}, {**record, "step": 2, "rank_by": 0.1}])
    watch.look()
    assert "2 of 9" in page.read_text()
    page.unlink()
    page.mkdir()
    file.write([{**record, "step": step, "rank_by": 0.1} for step in (1, 2, 3)])
    watch.look()
    watch.close()
    printed = capsys.readouterr()
    assert "step 3/9" in printed.out
    assert "report" not in printed.out
    assert "error: the report of this training so far could not be written" in printed.err
