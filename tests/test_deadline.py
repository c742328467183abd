"""A process that hangs, ended from outside its own code."""

from __future__ import annotations

import subprocess
import sys

SLEEP = "import time; from iqa_core.deadline import deadline\nwith deadline({}): time.sleep({})\ntime.sleep(0.3)"


def exit_code(limit_s: float, takes_s: float) -> int:
    return subprocess.run(
        [sys.executable, "-c", SLEEP.format(limit_s, takes_s)], stderr=subprocess.DEVNULL, timeout=30, check=False
    ).returncode


def test_a_block_that_takes_too_long_ends_the_process() -> None:
    assert exit_code(0.1, 20) == 1


def test_a_block_in_time_does_not() -> None:
    assert exit_code(0.2, 0) == 0
