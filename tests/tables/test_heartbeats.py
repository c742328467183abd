"""A run tells that it lives, how far it is, and how it ended; one that is silent for too long is taken to be dead."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from iqa_core.errors import RunError
from iqa_core.storage.storage import Storage
from iqa_core.tables.heartbeats import LATEST, STALE_S, Pulse, active, heartbeats
from tests.clock import wait_for


def log_of(output: Path, run: str) -> list[dict[str, object]]:
    parts = sorted((output / "runs").glob(f"{run}.*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def age(output: Path, seconds: float) -> None:
    """As if the machine's clock had gone on since."""
    for path in (output / "runs").glob("*.json"):
        beat = json.loads(path.read_text())
        beat["at"] = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        path.write_text(json.dumps(beat))


def test_a_run_at_work_and_its_end(tmp_path: Path) -> None:
    assert heartbeats(Storage(), str(tmp_path)) == []
    with Pulse(Storage(), str(tmp_path), "score_corpus") as pulse:
        found = active(Storage(), str(tmp_path), "score_corpus")
        assert found is not None
        assert (found.run, found.state) == (pulse.run, "running")
        assert 0 <= found.age_s() < STALE_S
        assert active(Storage(), str(tmp_path), "compact_scores") is None
        pulse.progress = {"images_done": 7}
        pulse.log("chunk_complete", chunk="000000-000001", images=7)
    assert active(Storage(), str(tmp_path), "score_corpus") is None
    [ended] = heartbeats(Storage(), str(tmp_path))
    assert (ended.state, ended.progress) == ("done", {"images_done": 7})
    first, last = log_of(tmp_path, pulse.run)
    assert (first["event"], first["chunk"], first["run"]) == ("chunk_complete", "000000-000001", pulse.run)
    assert (last["event"], last["error"]) == ("run_ended", None)


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), Pulse(Storage(), str(tmp_path), "score_corpus") as pulse:
        raise ValueError("wrong")
    assert [beat.state for beat in heartbeats(Storage(), str(tmp_path))] == ["failed"]
    assert log_of(tmp_path, pulse.run)[-1]["error"] == "ValueError: wrong"


def test_a_silent_run_is_not_active(tmp_path: Path) -> None:
    pulse = Pulse(Storage(), str(tmp_path), "score_corpus")
    pulse._beat()
    age(tmp_path, STALE_S - 10)
    assert active(Storage(), str(tmp_path), "score_corpus") is not None
    age(tmp_path, STALE_S + 1)
    assert active(Storage(), str(tmp_path), "score_corpus") is None


def test_a_store_that_fails_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Pulse(Storage(), str(tmp_path), "score_corpus") as pulse:
        assert heartbeats(Storage(), str(tmp_path))[0].run == pulse.run
        (tmp_path / "runs").rename(tmp_path / "aside")
        (tmp_path / "runs").write_text("a file where the folder should be")
    assert capsys.readouterr().err.count("could not be written") == 1
    with pytest.raises(RunError, match="cannot be written"), Pulse(Storage(), str(tmp_path), "score_corpus"):
        pass


class Odd:
    """Cannot be copied, is no JSON, and is told nevertheless."""

    def __deepcopy__(self, memo: object) -> Odd:
        return self

    def __repr__(self) -> str:
        return "odd \udcff"


def circle() -> dict[object, object]:
    found: dict[object, object] = {"path": "/pictures/\udcff.png"}
    found["again"] = found
    return found


@pytest.mark.parametrize("told", [{"path": "/pictures/\udcff.png"}, {"a": Odd(), "b": float("nan")}, circle()])
def test_whatever_is_told_the_thread_goes_on(
    tmp_path: Path, told: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iqa_core.tables.heartbeats.BEAT_S", 0.01)
    monkeypatch.setattr("iqa_core.tables.heartbeats.LOG_PART_S", 0.02)
    with Pulse(Storage(), str(tmp_path), "score_corpus") as pulse:
        pulse.log("chunk_failed", **told)
        pulse.progress = told
        wait_for(lambda: heartbeats(Storage(), str(tmp_path))[0].progress.keys() == told.keys())
        wait_for(lambda: log_of(tmp_path, pulse.run))
        [told_then] = heartbeats(Storage(), str(tmp_path))
        wait_for(lambda: heartbeats(Storage(), str(tmp_path))[0].at > told_then.at)
    assert {line["event"] for line in log_of(tmp_path, pulse.run)} == {"chunk_failed", "run_ended"}


def test_what_cannot_be_told_at_all_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Unspeakable(Odd):
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    with Pulse(Storage(), str(tmp_path), "score_corpus") as pulse:
        pulse.progress = {"a": Unspeakable()}
    assert capsys.readouterr().err.count("no words") == 1


def test_a_run_is_seen_however_many_have_ended_since(tmp_path: Path) -> None:
    live = Pulse(Storage(), str(tmp_path), "score_corpus")
    live._beat()
    for index in range(LATEST + 3):
        (tmp_path / "runs" / f"29991231T0000{index:02d}Z-000000.json").write_text(
            json.dumps({**asdict(heartbeats(Storage(), str(tmp_path))[-1]), "state": "done"})
        )
        (tmp_path / "runs" / f"29991231T0000{index:02d}Z-000000.ended").touch()
    found = heartbeats(Storage(), str(tmp_path))
    assert len(found) == LATEST + 1
    seen = active(Storage(), str(tmp_path), "score_corpus")
    assert seen is not None
    assert seen.run == live.run


def test_a_clock_that_is_ahead_keeps_no_run_alive(tmp_path: Path) -> None:
    pulse = Pulse(Storage(), str(tmp_path), "score_corpus")
    pulse._beat()
    age(tmp_path, 10 - STALE_S)
    assert active(Storage(), str(tmp_path), "score_corpus") is not None
    age(tmp_path, -3600)
    assert active(Storage(), str(tmp_path), "score_corpus") is None


@pytest.mark.parametrize("at", ["soon", "2026-11-29T23:00:00"])
def test_a_heartbeat_that_something_else_wrote_is_passed_over(tmp_path: Path, at: str) -> None:
    pulse = Pulse(Storage(), str(tmp_path), "score_corpus")
    pulse._beat()
    [file] = (tmp_path / "runs").glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "at": at}))
    assert heartbeats(Storage(), str(tmp_path)) == []
