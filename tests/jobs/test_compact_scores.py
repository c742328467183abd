"""The compaction job as a user starts it, and kills it.

Tests jobs/compaction/flow.py and jobs/compaction/settings.py.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from iqa_core.__main__ import main
from iqa_core.corpus.chunks import chunk_name
from iqa_core.corpus.plan.plan import Plan
from iqa_core.report.scoring_report import gather
from iqa_core.storage.storage import Storage
from iqa_core.tables.compaction import carry_out
from iqa_core.tables.heartbeats import Pulse
from iqa_core.tables.ledger import Ledger
from iqa_core.tables.scores.score_table import open_score_table
from jobs.selection.flow import select
from jobs.selection.settings import SelectSettings
from tests.corpora import tiny_png, write_folder
from tests.jobs import running
from tests.selection.scored_corpora import score

pytestmark = pytest.mark.slow


CHUNKS = 60


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_folder(tmp_path / "in", {f"{index:03d}.png": tiny_png(index % 9) for index in range(2 * CHUNKS)})
    return score(tmp_path / "scores", tmp_path / "in", chunk_images=2)


def compact(output: Path, *arguments: object) -> tuple[int, str]:
    # chunks of 4 planned images are what tests/corpus/planned.py lays down
    return running.run("--scores", output, "--file-images", 40, *arguments, job="compact_scores")


def files_of(output: Path) -> int:
    return len(list((output / "scores").glob("*.parquet")))


@pytest.mark.slow
def test_killed_at_work_and_started_again(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = running.read_table(output)
    killed = 0
    for packs in (1, 3, 5, 99):
        process = running.start("--scores", output, "--file-images", 40, job="compact_scores")
        while process.poll() is None and len(list((output / "scores").glob("*-*-*.parquet"))) < packs:
            time.sleep(0.001)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        text, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), text
        names = sorted(Ledger(Storage(), str(output)).finished())
        assert names == [chunk_name(0, index) for index in range(CHUNKS)]
        keys = [rows.column("key").to_pylist() for _, rows in Ledger(Storage(), str(output)).read_all(names)]
        assert sorted(key for some in keys for key in some) == before.column("key").to_pylist()
    assert killed >= 1
    assert files_of(output) == 6
    running.assert_same_tables(running.read_table(output), before, tolerance=0)
    assert main(["status", str(output), "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "every planned image is there exactly once" in shown
    assert f"planned    {2 * CHUNKS} images in {CHUNKS} chunks" in shown
    assert "compact_scores" in shown


@pytest.mark.slow
def test_what_it_says_and_when_it_refuses(output: Path, tmp_path: Path) -> None:
    code, text = compact(output, "--dry-run")
    assert code == 0
    assert f"to merge   {CHUNKS} chunks into 6 files" in text
    assert files_of(output) == CHUNKS
    assert not (output / "runs").exists()
    with Pulse(Storage(), str(output), "score_corpus"):
        code, text = compact(output)
        assert (code, files_of(output)) == (2, CHUNKS)
        assert "score_corpus is at work there" in text
    code, text = compact(tmp_path)
    assert code == 2
    assert "no score table is there" in text


def test_help_is_quick() -> None:
    text, took_s = running.help_of("compact_scores")
    assert "--file-images" in text
    assert took_s < running.QUICK_S


def test_status_of_what_is_not_there_and_of_what_is_not_true(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "nothing was planned there" in capsys.readouterr().err
    assert main(["status", str(output), "--storage-options", "{"]) == 2
    capsys.readouterr()
    Ledger(Storage(), str(output)).remove([chunk_name(0, 7)])
    assert main(["status", str(output)]) == 0
    shown = capsys.readouterr().out
    assert "left       2 images in 1 chunk\n" in shown
    assert "none has left a heartbeat" in shown
    assert main(["status", str(output), "--verify", "--json"]) == 1
    verified = json.loads(capsys.readouterr().out)["verified"]
    assert verified["faults"] == [{"chunk": chunk_name(0, 7), "what": "has no rows yet"}]
    assert verified["images"] == 2 * CHUNKS - 2


def test_status_reads_an_object_store(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any that fsspec knows; here one in memory."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(str(output), "/bucket/scores", recursive=True)
    assert main(["status", "memory://bucket/scores", "--verify"]) == 0
    assert "every planned image is there exactly once" in capsys.readouterr().out


def test_selection_and_report_are_the_same_at_every_moment(output: Path, tmp_path: Path) -> None:
    """Before, with packs and single files side by side, and afterwards. Rewards repeat: their order decides."""
    ledger = Ledger(Storage(), str(output))
    names = sorted(ledger.finished())
    found = [chosen(output, tmp_path / "before")]
    ledger.commit_pack(names[:10], [rows for _, rows in ledger.read_all(names[:10])], 1)
    ledger.discard(names[3:7])
    found.append(chosen(output, tmp_path / "between"))
    list(carry_out(ledger, Plan(Storage(), str(output)), 16))
    assert files_of(output) == 4
    found.append(chosen(output, tmp_path / "after"))
    assert found[0]["kept"] == [True] * 24
    assert found[1] == found[0]
    assert found[2] == found[0]


def chosen(scores: Path, decisions: Path) -> dict[str, Any]:
    """What a selection decides, and what a report counts."""
    settings = SelectSettings(scores=[str(scores)], output=str(decisions), top_k=24, report=False)
    assert select(settings) == 0
    kept = pq.read_table(decisions / "decisions").filter(pc.field("kept"))
    gathered = gather(open_score_table(Storage(), str(scores)))
    return {
        **kept.select(["key", "kept", "reward"]).to_pydict(),
        "means": gathered.means().tolist(),
        "reasons": dict(gathered.reasons),
        "sheets": [image.values["key"] for image in gathered.shown()],
    }
