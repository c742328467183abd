"""What a run came to -> run.json, the lines for people, and the exit code.

Tests jobs/assessing/outcome.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iqa_core.corpus.plan.proposal import Proposal
from iqa_core.corpus.plan.segments import Draft
from iqa_core.errors import DONE, FAILED
from iqa_core.questions import ColumnScale
from iqa_core.records import ScoreRange
from iqa_core.tables.regions.beside_scores import GroundedSummary
from iqa_core.tables.scores.summary import Distribution, Summary
from jobs.assessing.outcome import FAILURES_SHOWN, RunOutcome
from jobs.command import parse
from jobs.progress import Progress
from jobs.scoring.job import ScoringJob, checked
from jobs.scoring.outcome import publish
from jobs.scoring.settings import ScoreSettings


@pytest.fixture
def job(tmp_path: Path) -> ScoringJob:
    flags = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--assessor.checkpoint", "fake:"]
    return checked(parse(ScoreSettings, [*flags, "--no-report"]))


@pytest.fixture
def outcome(job: ScoringJob) -> RunOutcome[Summary | GroundedSummary]:
    """That of a run that had nothing to do."""
    table, mine = Summary(job.dimensions), Summary(job.dimensions)
    return RunOutcome(Proposal(job.wanted, Draft()), table, mine, {}, 0, Progress(0, 0), None)


def recorded(job: ScoringJob) -> dict[str, object]:
    record: dict[str, object] = json.loads((Path(job.output) / "run.json").read_text())
    return record


def test_other_scales_than_five_levels_are_recorded_and_of_many_columns_the_first_are_shown(
    job: ScoringJob, outcome: RunOutcome[Summary | GroundedSummary], capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(job, outcome) == DONE
    assert "scales" not in recorded(job)
    names = [f"d{index}" for index in range(256)]
    scales = dict.fromkeys(names, ColumnScale(ScoreRange(0, 1), (0, 1)))
    wanted, table = replace(job.wanted, scales=scales), Summary(names, scales)
    table.distributions = {name: Distribution() for name in (*names, "reward")}
    capsys.readouterr()
    assert publish(replace(job, wanted=wanted), replace(outcome, table=table)) == DONE
    ends = {"worst": 0, "best": 1, "worths": [0, 1], "is_group": False}
    assert recorded(job)["scales"] == dict.fromkeys(names, ends)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) < 60
    assert "and 217 further columns, in run.json" in shown
    assert any(line.startswith("reward ") for line in shown)


def test_a_run_without_failures_is_complete(job: ScoringJob, outcome: RunOutcome[Summary | GroundedSummary]) -> None:
    assert publish(job, outcome) == DONE
    record = recorded(job)
    assert (record["complete"], record["unfinished"], record["images"]) == (True, {}, 0)


def test_failures_are_all_recorded_and_the_first_are_shown(
    job: ScoringJob, outcome: RunOutcome[Summary | GroundedSummary], capsys: pytest.CaptureFixture[str]
) -> None:
    failures = {f"000000-{index:06d}": f"source {index} is gone" for index in reversed(range(FAILURES_SHOWN + 2))}
    failed = replace(outcome, failures=failures)
    assert publish(job, failed) == FAILED
    record = recorded(job)
    assert (record["complete"], record["unfinished"]) == (False, failures)
    shown = capsys.readouterr().out
    assert f"unfinished {len(failures)} chunks, which the same command tries again:\n  000000-000000: source 0" in shown
    assert f"source {FAILURES_SHOWN - 1} is gone" in shown
    assert f"source {FAILURES_SHOWN} is gone" not in shown
