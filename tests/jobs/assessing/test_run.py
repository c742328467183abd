"""Batches fed to a run by hand, as the worker's loop makes them: what it counts, and what it says of the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from iqa_core.__main__ import main
from iqa_core.errors import CallerError, RunError
from iqa_core.records import Reason, Rejection
from iqa_core.report.scoring_report import scoring_report
from iqa_core.storage.storage import Storage
from iqa_core.tables.heartbeats import SCORING, Pulse
from iqa_core.tables.scores.columns import table_schema
from iqa_core.tables.scores.score_table import open_score_table, score_ledger
from iqa_core.tables.sink import AssessedBatch
from jobs.assessing.proposing import applied, proposed
from jobs.assessing.run import AssessingRun
from jobs.assessing.stock import take_stock
from jobs.assessing.work import assessed_batch, read_chunk
from jobs.command import parse
from jobs.compaction.flow import compact
from jobs.compaction.settings import CompactSettings
from jobs.on_ray.transport import ChunkFailure
from jobs.scoring.job import ScoringJob, checked
from jobs.scoring.settings import ScoreSettings
from tests.clock import stand_still
from tests.corpora import tiny_png, write_folder
from tests.jobs.by_hand import begun
from tests.tables.test_heartbeats import age

NOT_FETCHED = Rejection(Reason.FETCH_FAILED, "reading failed again and again: a refused connection")


def job_over(root: Path, *more: str) -> ScoringJob:
    """Over twelve images in three chunks."""
    if not (root / "in").exists():
        write_folder(root / "in", {f"{index:02d}.png": tiny_png(index) for index in range(12)})
    flags = ["--input", root / "in", "--output", root / "out", "--chunk-images", 4, "--no-report", *more]
    return checked(parse(ScoreSettings, [*map(str, flags), "--assessor.checkpoint", "fake:"]))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AssessingRun]:
    """As it stands ten seconds after it began; its heartbeat is put by the tests."""
    monkeypatch.setattr("iqa_core.tables.heartbeats.BEAT_S", 3600)
    job = job_over(tmp_path)
    proposal = proposed(job)
    with Pulse(Storage(), job.output, SCORING) as pulse:
        run = begun(job, applied(job, proposal), proposal, pulse)
        run._progress.began -= 10
        stand_still(monkeypatch, "jobs.progress", run._progress.began + 10)
        yield run
        run.close()


def batches(run: AssessingRun, chunk: int, rejection: Rejection | None = None) -> Iterator[AssessedBatch]:
    """All of one chunk, rejected for this reason."""
    job = run._job
    contract = job.plan.contract()
    assert contract is not None
    work = job.work(contract, 1)
    for batch in read_chunk(list(job.plan.chunks())[chunk], work):
        assert not isinstance(batch, ChunkFailure)
        rejections = (rejection or Rejection(Reason.CORRUPT, "it is broken"),) * len(batch.ordinals)
        yield assessed_batch(replace(batch, rejections=rejections, images=()), [], work, "{}")


def told(run: AssessingRun) -> dict[str, Any]:
    run._tell(run._job.doing)
    return dict(run._pulse.progress)


def test_a_run_that_is_not_begun_has_touched_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_over(tmp_path)
    proposal = proposed(job)
    contract = applied(job, proposal)
    pulse = Pulse(Storage(), job.output, SCORING)
    stock = take_stock(job, contract)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    AssessingRun(job, proposal, stock, pulse)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert pulse.progress == {}
    assert capsys.readouterr() == ("", "")


def test_a_run_in_which_nothing_can_be_fetched_has_done_nothing(
    run: AssessingRun, capsys: pytest.CaptureFixture[str]
) -> None:
    for chunk in range(3):
        for batch in batches(run, chunk, NOT_FETCHED):
            run.take(batch)
    known = told(run)
    assert (known["images_done"], known["images_this_run"], known["rejected_this_run"]) == (0, 0, 0)
    assert (known["images_per_second"], known["eta_seconds"], known["chunks_failed"]) == (0.0, None, 3)
    run._pulse._beat()
    assert main(["status", run._job.output]) == 0
    assert "0 images at 0.0/s, 0 chunks open, 3 failed, ETA unknown" in capsys.readouterr().out
    assert run.conclude() == 1
    shown = capsys.readouterr().out
    assert "this run   0 images in 10." in shown
    assert " s, 0.0 images/s\n" in shown
    assert "fetch_failed, reading failed again and again: a refused connection" in shown


def test_what_fails_is_not_waited_for(run: AssessingRun) -> None:
    name = next(run._job.plan.chunks()).name
    run.take(ChunkFailure(name, "its source is gone", is_fatal=False))
    run.take(ChunkFailure(name, "its source is gone", is_fatal=False))
    for batch in batches(run, 1):
        run.take(batch)
    known = told(run)
    assert (known["images_done"], known["images_left"]) == (4, 4)
    assert known["eta_seconds"] == pytest.approx(10, rel=0.2)


def test_a_run_that_has_ended_has_no_eta(run: AssessingRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for batch in batches(run, 0):
        run.take(batch)
    told(run)
    run._pulse.__exit__(RunError, RunError("stopped"), None)
    assert main(["status", run._job.output]) == 0
    shown = capsys.readouterr().out
    assert ": failed, heartbeat" in shown
    assert "ETA" not in shown
    [beat] = [json.loads(file.read_text()) for file in (tmp_path / "out" / "runs").glob("*.json")]
    assert beat["progress"]["images_left"] == 8


def test_a_run_whose_clock_is_ahead_is_neither_dead_nor_alive(
    run: AssessingRun, capsys: pytest.CaptureFixture[str]
) -> None:
    age(Path(run._job.output), -3600)
    assert main(["status", run._job.output]) == 0
    told = r"at work or dead, which cannot be told, its clock 3(600|5\d\d) s ahead of this one's"
    assert re.search(told, capsys.readouterr().out)


def test_scores_without_a_plan_are_nobodys(tmp_path: Path) -> None:
    job = job_over(tmp_path)
    job.ledger.commit("000000-000000", pa.table({"key": ["a"]}), {"fingerprint": job.wanted.fingerprint})
    with pytest.raises(CallerError, match=r"there is no plan/000000\.json that says what they are of; put plan/ back"):
        job_over(tmp_path)


def test_scores_of_another_fingerprint_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    """In no job; a file is named, and nothing is written."""
    job = job_over(tmp_path)
    contract = applied(job, proposed(job))
    metadata = {"chunk": "000000-000001", "fingerprint": "f" * 16, "table_version": 1}
    schema = table_schema(job.dimensions, False, contract.carried)
    job.ledger.commit("000000-000001", schema.empty_table(), metadata)
    job.ledger.commit("000000-000002", schema.empty_table(), {**metadata, "chunk": "000000-000002"})
    what = rf"scores/000000-000001\.parquet: .*fingerprint {'f' * 16}, not {job.wanted.fingerprint}\); remove it"
    with pytest.raises(CallerError, match=what):
        take_stock(job, contract)
    with pytest.raises(CallerError, match=what):
        compact(parse(CompactSettings, ["--scores", job.output]))
    table = open_score_table(Storage(), job.output)
    with pytest.raises(CallerError, match=what):
        table.local_files(tmp_path / "scratch")
    with pytest.raises(CallerError, match=what):
        scoring_report(table)
    with pytest.raises(CallerError, match=what):
        list(score_ledger(Storage(), job.output).read_all(table.chunks))
    assert len(list((tmp_path / "out" / "scores").iterdir())) == 2


def test_what_is_tried_again_takes_the_place_of_what_was(tmp_path: Path) -> None:
    """Once from files of their own, and once from a pack, beside a neighbour that stays."""
    failed = Rejection(Reason.ASSESSOR_FAILED, "it failed")
    of_chunks = [failed, failed, Rejection(Reason.CORRUPT, "it is broken")]
    for turn, flags in enumerate(((), ("--retry-rejected",), ("--retry-rejected",))):
        job = job_over(tmp_path, "--max-reject-rate", "1", *flags)
        proposal = proposed(job)
        with Pulse(Storage(), job.output, SCORING) as pulse:
            run = begun(job, applied(job, proposal), proposal, pulse)
            tried = [int(task.name[-6:]) for task in run.tasks()]
            assert tried == [0, 1, 2] if turn == 0 else [0, 1]
            for chunk in tried:
                for batch in batches(run, chunk, of_chunks[chunk]):
                    run.take(batch)
            assert run.conclude() == 0
            run.close()
        files = sorted((tmp_path / "out" / "scores").iterdir())
        begins = [f"000000-00000{chunk}.{f'{turn}-' if turn else 'parquet'}" for chunk in (0, 1)]
        assert [path.name.startswith(begin) for path, begin in zip(files, begins, strict=False)] == [True, True]
        assert len(files) == 3
        assert main(["status", job.output, "--verify"]) == 0
        if turn == 1:
            assert compact(parse(CompactSettings, ["--scores", job.output])) == 0
            assert len(list((tmp_path / "out" / "scores").iterdir())) == 1
