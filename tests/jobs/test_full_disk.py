"""A disk that is full or read-only, wherever that meets a job -> a message, an exit code, and the same command goes on.

The disk is real: a file system in memory of 1 MiB, where mounting is allowed.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from iqa_core.errors import exit_code
from iqa_core.storage.storage import Storage
from iqa_core.tables.heartbeats import COMPACTION, Pulse, active
from jobs.command import parse
from jobs.compaction.flow import compact
from jobs.compaction.settings import CompactSettings
from tests.corpora import tiny_png, write_folder
from tests.jobs import running
from tests.jobs.by_hand import score_by_hand

LEFT_KIB = (0, 80, 250)
"""An output is tried with 64 KiB; then come plan and heartbeat, three chunks of some 80 KiB each, and run.json."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path, left_kib: int) -> None:
    """All but so much."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = subprocess.run(["df", "--output=avail", "-k", disk], capture_output=True, text=True, check=True).stdout
    ballast.write_bytes(bytes(1024 * max(0, int(free.split()[1]) - left_kib)))


def states(output: Path) -> list[str]:
    return [json.loads(beat.read_text())["state"] for beat in (output / "runs").glob("*.json")]


def tried(job: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and last line of what was said."""
    capsys.readouterr()
    code = exit_code(job)
    return code, capsys.readouterr().err.strip().rpartition("\n")[2]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A list with a column that takes its place on a disk."""
    write_folder(tmp_path / "in", {f"{index:02d}.png": tiny_png(index) for index in range(12)})
    rows = [
        {"uri": f"in/{index:02d}.png", "noise": random.Random(index).randbytes(20_000).hex()} for index in range(12)
    ]
    (tmp_path / "list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path / "list.jsonl"


def test_it_fills_while_a_corpus_is_scored(disk: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = set()
    for left_kib in LEFT_KIB:
        output = disk / "out"
        flags = ("--input", corpus, "--output", output, "--chunk-images", 4)
        fill(disk, left_kib)
        code, said = tried(partial(score_by_hand, *flags), capsys)
        codes.add(code)
        assert code == 0 or "No space left on device" in said or "cannot be written" in said, said
        if code == 2:
            assert not (output / "plan").exists() or not any((output / "plan").iterdir())
        assert "running" not in states(output)
        (disk / "ballast").unlink()
        assert score_by_hand(*flags) == 0
        assert running.read_table(output).num_rows == 12
        assert list((output / ".tmp").iterdir()) == []
        subprocess.run(["rm", "-r", output], check=True)
    assert {1, 2} <= codes


def test_it_fills_while_a_table_is_compacted(disk: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own heartbeat, which cannot be replaced any more, does not keep the next one off."""
    output = disk / "out"
    assert score_by_hand("--input", corpus, "--output", output, "--chunk-images", 4) == 0
    before = running.read_table(output)
    settings = parse(CompactSettings, ["--scores", str(output), "--file-images", "1000"])
    codes = set()
    for left_kib in (0, 80, 100):
        fill(disk, left_kib)
        code, said = tried(lambda: compact(settings), capsys)
        codes.add(code)
        assert code == 0 or "No space left on device" in said or "cannot be written" in said, said
        assert "running" not in states(output)
    assert {1, 2} <= codes
    (disk / "ballast").unlink()
    assert compact(settings) == 0
    running.assert_same_tables(running.read_table(output), before, tolerance=0)


def test_it_is_read_only(disk: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--input", corpus, "--output", disk / "out", "--chunk-images", 4)
    assert score_by_hand(*flags) == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    settings = parse(CompactSettings, ["--scores", str(disk / "out"), "--file-images", "1000"])
    for job in (lambda: score_by_hand(*flags), lambda: compact(settings)):
        code, said = tried(job, capsys)
        assert (code, "Read-only file system" in said) == (2, True), said
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert compact(settings) == 0


def test_a_heartbeat_that_cannot_be_replaced_is_withdrawn(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(disk / "out")
    with Pulse(Storage(), output, COMPACTION):
        assert active(Storage(), output, COMPACTION) is not None
        fill(disk, 0)
    assert active(Storage(), output, COMPACTION) is None
    assert "could not be written" in capsys.readouterr().err
